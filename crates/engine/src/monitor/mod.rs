//! The monitor: the one process that stays with a running container.
//!
//! It is forked by the command that starts the container, into a session of its own, so that it outlives the shell; it lets
//! go of everything the command had open. It starts the container (`setup`), tells the command how that went, and then
//! waits in one loop (`serve`) for output to log and pass on (`streams`), for commands on its socket (`talk`), for what is
//! due by the clock (`health`), for the word to start a program that waits for it (`hold`), and for the end, which it writes down (`end`) before it starts the container again (`again`),
//! should that be its policy. A container whose monitor was killed gets another (`adopt`). It has one thread and allocates little: a machine may run hundreds.

mod adopt;
mod again;
mod clients;
mod end;
mod health;
mod hold;
mod inside;
mod notify;
mod ports;
mod serve;
mod setup;
mod streams;
mod talk;

pub(crate) use adopt::Ends;
pub(crate) use end::exit_code;

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal};
use rcon_launch::Ahead;
use rcon_store::Snapshot;
use rcon_sys::descriptors;
use rcon_sys::process::{self, Fork};
use rcon_sys::trace;

use self::clients::Client;

use crate::Engine;
use crate::error::{Context, Error, Result};
use crate::events::Action;
use crate::given::Given;
use crate::protocol::Report;
use crate::record::{Container, ProcessRef};
use crate::records::Lock;
use crate::requests::Streams;
use crate::terminal::{Signals, replace_stdio};

/// What the monitor is given by the command that starts it.
pub(crate) struct Order {
    /// The container as it is before.
    pub container: Container,
    /// Its root file system.
    pub snapshot: Snapshot,
    /// The container's lock; it is held until the container runs.
    pub lock: Lock,
    /// The command's end of a session, there from the first byte.
    pub foreground: Option<(OwnedFd, Streams)>,
    /// Files of the command for the program.
    pub given: Given,
    /// It runs already, and its monitor was killed. What the command has of its streams.
    pub running: Option<Ends>,
    /// What the command has begun of it.
    pub ahead: Option<Ahead>,
    /// Its program is to be started later.
    pub hold: bool,
}

/// Forks the monitor and waits for its report. With a command that stays in the foreground, the ends of the container's
/// streams come back too, so that the container need not notice when its monitor is killed.
pub(crate) fn start(engine: &Engine, order: Order) -> Result<(ProcessRef, Ends)> {
    let command = match &order.foreground {
        Some(_) => ProcessRef::of(std::process::id().cast_signed()),
        None => None,
    };
    let (ours, theirs) = rcon_sys::fdpass::pair().context(|| "cannot make a socket pair".into())?;
    match process::fork().context(|| "cannot start the monitor".into())? {
        Fork::Child => {
            drop(ours);
            process::exit_now(live(engine, order, theirs, command));
        }
        Fork::Parent { pidfd, .. } => {
            drop(theirs);
            drop(order);
            let (said, fds) = rcon_sys::fdpass::recv_message(&ours, 64 * 1024)
                .context(|| "cannot hear the monitor".into())?;
            match serde_json::from_slice::<Report>(&said) {
                Ok(report) => {
                    let ends = Ends::of(fds, report.streams());
                    let started = report.started();
                    if started.is_err() {
                        // It is about to end; then nothing of the attempt is left.
                        let _ = process::wait_pidfd(&pidfd);
                    }
                    started.map(|process| (process, ends))
                }
                Err(_) => {
                    let _ = process::wait_pidfd(&pidfd);
                    Err(Error::Invalid(
                        "the monitor was killed while it started the container".into(),
                    ))
                }
            }
        }
    }
}

/// The life of the monitor; its exit code.
fn live(engine: &Engine, order: Order, report: OwnedFd, command: Option<ProcessRef>) -> i32 {
    // Buffers cost what they hold, and nothing once they are gone.
    rcon_sys::memory::set_mmap_threshold(16 * 1024);
    let result = detach(engine, &order, &report).and_then(|(engine, signals)| {
        let Order {
            mut container,
            snapshot,
            lock,
            foreground,
            given: files,
            running,
            ahead,
            hold,
        } = order;
        let given = setup::Given {
            snapshot,
            files,
            command,
        };
        trace::mark("monitor detached");
        let started = match running {
            Some(ends) => adopt::take_up(&engine, &mut container, ends, command)?,
            None => {
                container.state.restarts = 0;
                setup::start(&engine, &mut container, &given, ahead, hold)?
            }
        };
        drop(lock);
        let clients = foreground
            .into_iter()
            .map(|(socket, streams)| Client::foreground(socket, streams))
            .collect();
        serve::Monitor::new(engine, container, started, signals, clients, given)
    });
    let mut monitor = match result {
        Ok(monitor) => monitor,
        Err(error) => {
            tell(&report, &Report::failed(&error), &[]);
            return 1;
        }
    };
    if !monitor.started.taken_up {
        monitor.note_start(&[Action::Init]);
    }
    if let Some(process) = monitor.process() {
        let (streams, ends) = match command {
            Some(_) => monitor.ends(),
            None => Default::default(),
        };
        tell(&report, &Report::Started { process, streams }, &ends);
    }
    drop(report);
    trace::mark("start told");
    monitor.make_lasting();
    monitor.watch();
    0
}

/// The command may have gone; the container runs nevertheless.
fn tell(report: &OwnedFd, what: &Report, fds: &[BorrowedFd<'_>]) {
    if let Ok(text) = serde_json::to_vec(what) {
        let _ = rcon_sys::fdpass::send_fds(report, &text, fds);
    }
}

/// Leaves the command's session, files and terminal behind.
fn detach(engine: &Engine, order: &Order, report: &OwnedFd) -> Result<(Engine, Signals)> {
    let why = || "cannot detach the monitor".to_string();
    rustix::process::setsid().context(why)?;
    rustix::process::chdir("/").context(why)?;
    let mut keep = vec![report.as_raw_fd(), order.lock.0.as_raw_fd()];
    keep.extend(
        order
            .foreground
            .iter()
            .map(|(socket, _)| socket.as_raw_fd()),
    );
    keep.extend(order.given.fds().map(AsRawFd::as_raw_fd));
    keep.extend(
        order
            .running
            .iter()
            .flat_map(Ends::fds)
            .map(AsRawFd::as_raw_fd),
    );
    keep.extend(
        order
            .ahead
            .iter()
            .flat_map(Ahead::fds)
            .map(|fd| fd.as_raw_fd()),
    );
    descriptors::close_range_except(3, &keep);
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context(why)?;
    replace_stdio(&null).context(why)?;
    // The name is for people only.
    let _ = process::set_name("rcon-monitor");
    let _ = SigSet::empty().thread_set_mask();
    let signals = Signals::take(&[
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
    ])
    .context(why)?;
    Ok((engine.reopened()?, signals))
}

impl Engine {
    /// The same for a monitor, or a child of it, that has closed all it came with: the store's directory was among that.
    fn reopened(&self) -> Result<Engine> {
        Ok(Engine {
            paths: self.paths.clone(),
            maps: self.maps.clone(),
            store: self.open_store()?,
            special: self.special.clone(),
            is_monitor: true,
        })
    }
}
