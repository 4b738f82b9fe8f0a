//! A host made of namespaces, and containers on it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitStatus;

use nix::sched::CloneFlags;
use rcon_net::{Config, Guest, Listeners, Network};
use rcon_sys::ids::{self, IdMaps};
use rcon_sys::netlink::{Batch, LOOPBACK, Link};
use rcon_sys::process::{self, Fork};

use crate::cable::bad_cable;

/// The host's address in its network.
pub const HOST_V4: &str = "10.0.0.67";
/// The same, IPv6.
pub const HOST_V6: &str = "fd11::67";

/// The exit code of a process whose work panicked, as Rust's own.
const PANICKED: i32 = 101;

/// Runs `host` as root of a new user namespace, in a network with the host's addresses.
///
/// # Errors
/// Namespaces cannot be made here.
pub fn on_a_host(host: impl FnOnce()) -> io::Result<ExitStatus> {
    let (ours, theirs) = rcon_sys::fdpass::pair()?;
    let namespaces = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET;
    match process::clone(namespaces)? {
        Fork::Child => {
            drop(ours);
            // Until the ids are mapped.
            let _ = rcon_sys::fdpass::recv_fds(&theirs, &mut [0; 8]);
            drop(theirs);
            work(|| {
                let mut batch = Batch::new();
                batch.link_up(Link {
                    index: LOOPBACK,
                    ..Link::default()
                });
                batch.address(LOOPBACK, HOST_V4.parse().unwrap(), 32, None);
                batch.address(LOOPBACK, HOST_V6.parse().unwrap(), 128, None);
                batch.send().unwrap();
                std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
                host();
            })
        }
        Fork::Parent { pid, pidfd } => {
            drop(theirs);
            ids::write_maps(pid, &IdMaps::single())
                .map_err(|error| io::Error::other(error.to_string()))?;
            File::from(ours).write_all(b"go")?;
            process::wait_pidfd(&pidfd)
        }
    }
}

/// A child process at work.
pub struct Child(OwnedFd);

impl Child {
    /// The child that a descriptor stands for.
    pub fn of(pidfd: OwnedFd) -> Child {
        Child(pidfd)
    }

    /// Waits for its end, which must be a good one.
    pub fn succeed(self) {
        let status = process::wait_pidfd(&self.0).unwrap();
        assert!(status.success(), "{status}");
    }

    /// Ends it.
    pub fn kill(self) {
        process::pidfd_send_signal(&self.0, libc::SIGKILL).unwrap();
        process::wait_pidfd(&self.0).unwrap();
    }
}

/// Does something in a child.
pub fn child(f: impl FnOnce()) -> Child {
    match process::fork().unwrap() {
        Fork::Child => work(f),
        Fork::Parent { pidfd, .. } => Child(pidfd),
    }
}

/// Does something, says whether it went well, and ends the process. It does not outlive whoever
/// made it.
pub fn work(f: impl FnOnce()) -> ! {
    process::set_pdeathsig(Some(rustix::process::Signal::KILL)).unwrap();
    let code = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(()) => 0,
        Err(_) => PANICKED,
    };
    process::exit_now(code)
}

/// Runs `inside` in a container with a network, and `outside` on the host at the same time.
pub fn with_container(
    config: &Config,
    listeners: Listeners,
    inside: impl FnOnce(),
    outside: impl FnOnce(),
) {
    over_a_cable(config, listeners, None, inside, outside);
}

/// The same, with a bad cable: each of its faults strikes one frame of so many.
pub fn over_a_cable(
    config: &Config,
    listeners: Listeners,
    faults: Option<u64>,
    inside: impl FnOnce(),
    outside: impl FnOnce(),
) {
    let (ours, theirs) = rcon_sys::fdpass::pair().unwrap();
    let namespaces = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET;
    let (pid, container) = match process::clone(namespaces).unwrap() {
        Fork::Child => {
            drop((ours, listeners, outside));
            work(|| {
                let taps = rcon_net::set_up_namespace(config).unwrap();
                let taps: Vec<_> = taps.iter().map(AsFd::as_fd).collect();
                rcon_sys::fdpass::send_fds(&theirs, b"tap", &taps).unwrap();
                rcon_sys::fdpass::recv_fds(&theirs, &mut [0; 8]).unwrap();
                inside();
            })
        }
        Fork::Parent { pid, pidfd } => (pid, pidfd),
    };
    // What the container was given must not stay open here.
    drop((theirs, inside));
    ids::write_maps(pid, &IdMaps::single()).unwrap();
    let (_, mut taps) = rcon_sys::fdpass::recv_fds(&ours, &mut [0; 8]).unwrap();
    let mut tap = taps.pop().expect("the container has no tap");
    let cable = faults.map(|faults| {
        let (end, carrier) = bad_cable(&tap, faults);
        tap = end;
        carrier
    });
    let namespace = |name: &str| -> OwnedFd {
        let path = format!("/proc/{}/ns/{name}", pid.as_raw_pid());
        File::open(path).unwrap().into()
    };
    let (userns, netns) = (namespace("user"), namespace("net"));
    let network = Network::start(Guest {
        config: config.clone(),
        tap,
        userns: Some(userns),
        netns,
        listeners,
        control: None,
        process: None,
    })
    .unwrap();
    File::from(ours).write_all(b"go").unwrap();
    outside();
    Child(container).succeed();
    assert!(network.end(), "the network process has failed");
    if let Some(carrier) = cable {
        carrier.kill();
    }
}
