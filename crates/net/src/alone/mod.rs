//! The network for any process, as slirp4netns is used by others: one device in a namespace that
//! somebody else has made, until somebody says that it is over.
//!
//! Ports come and go through a socket that speaks slirp4netns's API: see [`api`].

mod api;

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::namespace;
use crate::ports::bind::Listeners;
use crate::supervise::{Guest, Network};
use api::Api;

/// Whom to give a network.
#[derive(Debug)]
pub struct Alone {
    /// What network.
    pub config: Config,
    /// The namespace it is for.
    pub netns: OwnedFd,
    /// The user namespace that owns it; none when that is the caller's own.
    pub userns: Option<OwnedFd>,
    /// The name of the device.
    pub device: String,
    /// Whether the device gets its addresses and routes; else whoever made the namespace sees to it.
    pub configure: bool,
    /// A listening socket for slirp4netns's API, which must not block.
    pub api: Option<OwnedFd>,
    /// The end has come when the other side of this is closed.
    pub exit: Option<OwnedFd>,
}

impl Alone {
    /// Serves the network until the end; calls `ready` when it is there. To be called in a process
    /// with one thread.
    ///
    /// # Errors
    /// [`Error::NoTun`], [`Error::Io`] when the namespace cannot be joined or the device not be made.
    pub fn serve(self, ready: impl FnOnce() -> io::Result<()>) -> Result<()> {
        let tap = crate::elsewhere::in_namespace(self.userns.as_ref(), &self.netns, || {
            namespace::set_up_device(&self.config, &self.device, self.configure)
        })?;
        let Alone {
            config,
            netns,
            userns,
            api,
            exit,
            ..
        } = self;
        let mut api = api.map(|listener| Api::new(listener, &config));
        let mut network = Network::start(Guest {
            config,
            tap,
            userns,
            netns,
            listeners: Listeners::default(),
            control: None,
            process: None,
        })?;
        ready().map_err(Error::io("cannot say that the network is ready"))?;
        loop {
            let Some(fd) = network.fd() else {
                return Err(Error::Failed("the network has failed too often".into()));
            };
            let mut fds = vec![PollFd::from_borrowed_fd(fd, PollFlags::IN)];
            let has_exit = exit.is_some();
            // Only that the other side is gone matters.
            fds.extend(exit.iter().map(|fd| PollFd::new(fd, PollFlags::empty())));
            if let Some(api) = &api {
                api.watch(&mut fds);
            }
            rustix::io::retry_on_intr(|| poll(&mut fds, None))
                .map_err(|error| Error::io("cannot wait")(error.into()))?;
            let events: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(fds);
            if has_exit && events[1] {
                return match network.end() {
                    true => Ok(()),
                    false => Err(Error::Failed("the network has failed".into())),
                };
            }
            if events[0] {
                network.attend();
            }
            if let Some(api) = &mut api {
                api.attend(&events[1 + usize::from(has_exit)..], &mut network);
            }
        }
    }
}
