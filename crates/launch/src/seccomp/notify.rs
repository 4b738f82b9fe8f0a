//! Handing the listener of a filter to the program that will decide about its calls
//! (config-linux.md, seccomp: `listenerPath`; seccomp_unotify(2)).

use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::{LinuxSeccomp, Spec};
use rcon_sys::fdpass;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::Serialize;

use crate::error::{Context, Error, Result};
use crate::hooks::StateOf;
use crate::request::KnownAs;

/// Who gets the listener of a filter, and what they are told with it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Option<OwnedFd>,
    message: Vec<u8>,
}

/// The state of a process whose filter has a listener (runtime.md of the specification).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: StateOf<'a>,
}

impl Listener {
    /// Connect to the path that `spec` names; it must be in sight, so before there is another root.
    pub(crate) fn connect(spec: &Spec) -> Result<Self> {
        let Some(path) = seccomp(spec).and_then(|seccomp| seccomp.listener_path().as_deref())
        else {
            return Err(Error::Invalid(
                "the seccomp profile has the action SCMP_ACT_NOTIFY and no listenerPath".to_owned(),
            ));
        };
        let step = || format!("cannot connect to the seccomp listener {}", path.display());
        let flags = SocketFlags::CLOEXEC;
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).context(step)?;
        connect(&socket, &SocketAddrUnix::new(path).context(step)?).context(step)?;
        Ok(Self {
            socket: Some(socket),
            message: Vec::new(),
        })
    }

    /// Put together what they are told: of the process `pid` of the container of `spec`, whose status
    /// is `status`.
    pub(crate) fn tell(
        &mut self,
        spec: &Spec,
        known_as: Option<KnownAs<'_>>,
        pid: i32,
        status: &str,
    ) -> Result<()> {
        let who = known_as.ok_or_else(|| {
            Error::Invalid("a seccomp listener needs a container with an id".to_owned())
        })?;
        let state = ProcessState {
            oci_version: spec.version(),
            fds: ["seccompFd"],
            pid,
            metadata: seccomp(spec).and_then(|seccomp| seccomp.listener_metadata().as_deref()),
            state: StateOf::new(spec, who, status, Some(pid)),
        };
        self.message = serde_json::to_vec(&state).unwrap_or_default();
        Ok(())
    }

    /// The socket, for whoever has to keep it open.
    pub(crate) fn take_socket(&mut self) -> Option<OwnedFd> {
        self.socket.take()
    }

    /// Hand `listener` over through the socket. The filter is on this process already.
    pub(crate) fn give(&self, socket: &OwnedFd, listener: OwnedFd) -> Result<()> {
        fdpass::send_fds(socket, &self.message, &[listener.as_fd()])
            .context(|| "cannot hand over the seccomp listener".to_owned())
    }
}

fn seccomp(spec: &Spec) -> Option<&LinuxSeccomp> {
    spec.linux().as_ref()?.seccomp().as_ref()
}
