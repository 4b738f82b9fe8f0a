//! `rcon net`: rcon's network for any process, in slirp4netns's place.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use clap::Args;
use rcon_engine::{Error, net};
use rcon_sys::errors::in_words;

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// The arguments of `net`.
#[derive(Args, Debug)]
pub struct Net {
    /// Socket for adding and removing ports, which speaks slirp4netns's JSON
    #[arg(short = 'a', long, value_name = "PATH")]
    api_socket: Option<PathBuf>,
    /// Network address and prefix (default "10.0.2.0/24")
    #[arg(long)]
    cidr: Option<String>,
    /// Bring up the interface, with addresses and routes
    #[arg(short = 'c', long)]
    configure: bool,
    /// Have no name server at 10.0.2.3
    #[arg(long)]
    disable_dns: bool,
    /// Keep 127.0.0.1 of the host out of reach, which is 10.0.2.2 otherwise
    #[arg(long)]
    disable_host_loopback: bool,
    /// Enable IPv6
    #[arg(short = '6', long)]
    enable_ipv6: bool,
    /// Accepted for slirp4netns's sake: there is always a sandbox
    #[arg(long)]
    enable_sandbox: bool,
    /// Accepted for slirp4netns's sake: system calls are always limited
    #[arg(long)]
    enable_seccomp: bool,
    /// Descriptor whose other end is closed to end the network
    #[arg(short = 'e', long, value_name = "FD")]
    exit_fd: Option<i32>,
    /// Hardware address of the device (only with --configure; default: a random one)
    #[arg(long, value_name = "MAC")]
    macaddress: Option<String>,
    /// Maximum transmission unit (default 1500, max 65520)
    #[arg(short = 'm', long)]
    mtu: Option<String>,
    /// What the first argument is: "pid" or "path" (default "pid")
    #[arg(long, value_name = "TYPE")]
    netns_type: Option<String>,
    /// IPv4 address or interface of the host that connections leave from
    #[arg(long)]
    outbound_addr: Option<String>,
    /// IPv6 address or interface of the host that connections leave from
    #[arg(long)]
    outbound_addr6: Option<String>,
    /// Descriptor to write "1" to when the network is there
    #[arg(short = 'r', long, value_name = "FD")]
    ready_fd: Option<i32>,
    /// What is given a network: only "netns", a network namespace
    #[arg(long, value_name = "TYPE")]
    target_type: Option<String>,
    /// The user namespace that owns the network namespace
    #[arg(long, value_name = "PATH")]
    userns_path: Option<PathBuf>,
    args: Vec<String>,
}

impl Command for Net {
    const ABOUT: &'static str = "Give the network namespace of any process rcon's network";
    const USAGE: &'static str = "[options] PID|PATH [TAPNAME]";
    const EXAMPLES: &'static [&'static str] = &[
        "net --configure --disable-host-loopback 4711 tap0",
        "net -c --api-socket /tmp/api.sock --netns-type=path /run/user/1000/netns tap0",
    ];

    fn run(self, _: &Context) -> Outcome {
        let (target, device) = match self.args.as_slice() {
            [target] => (target, "tap0"),
            [target, device] => (target, device.as_str()),
            args => {
                return Err(Failure::new(format!(
                    "accepts 1 or 2 arg(s), received {}",
                    args.len()
                )));
            }
        };
        if device.is_empty() || device.len() > 15 || device.contains(['/', ' ', ':']) {
            return Err(Failure::new(format!("{device:?} is no name of a device")));
        }
        let config = self.config()?;
        let (netns, userns) = self.namespaces(target)?;
        let ready = self.ready_fd.map(descriptor).transpose()?;
        let exit = self.exit_fd.map(descriptor).transpose()?;
        let api = self.api_socket.as_deref().map(listen).transpose()?;
        let alone = net::Alone {
            config,
            netns,
            userns,
            device: device.to_owned(),
            configure: self.configure,
            api,
            exit,
        };
        let served = alone.serve(|| match ready {
            Some(ready) => File::from(ready).write_all(b"1"),
            None => Ok(()),
        });
        if let Some(path) = &self.api_socket {
            // It may be somebody else's by now, or gone.
            let _ = std::fs::remove_file(path);
        }
        served.map_err(Error::from)?;
        Ok(0)
    }
}

impl Net {
    /// The network namespace that is meant, and the user namespace that owns it unless it is ours.
    fn namespaces(&self, target: &str) -> Result<(OwnedFd, Option<OwnedFd>), Failure> {
        let (netns, userns) = match self.netns_type.as_deref() {
            None | Some("pid") => {
                let pid: u32 = target.parse().map_err(|_| {
                    Failure::new(format!("{target:?} is no process id"))
                        .hint("--netns-type=path is for the path of a network namespace")
                })?;
                (
                    PathBuf::from(format!("/proc/{pid}/ns/net")),
                    Some(PathBuf::from(format!("/proc/{pid}/ns/user"))),
                )
            }
            Some("path") => (PathBuf::from(target), None),
            Some(other) => {
                return Err(
                    Failure::new(format!("unknown type of network namespace: {other:?}"))
                        .hint("it is \"pid\" or \"path\""),
                );
            }
        };
        let netns = open(&netns)?;
        let userns = match self.userns_path.as_ref().or(userns.as_ref()) {
            Some(path) => {
                let file = open(path)?;
                (!is_ours(&file)).then_some(file.into())
            }
            None => None,
        };
        Ok((netns.into(), userns))
    }

    fn config(&self) -> Result<net::Config, Failure> {
        let mut options = vec![
            format!("allow_host_loopback={}", !self.disable_host_loopback),
            format!("enable_ipv6={}", self.enable_ipv6),
            "port_handler=slirp4netns".to_owned(),
        ];
        let mut say = |name: &str, value: Option<&str>| {
            options.extend(value.map(|value| format!("{name}={value}")));
        };
        say("mtu", Some(self.mtu.as_deref().unwrap_or("1500")));
        say("cidr", self.cidr.as_deref());
        say("outbound_addr", self.outbound_addr.as_deref());
        say("outbound_addr6", self.outbound_addr6.as_deref());
        if let Some(value) = [
            &self.cidr,
            &self.mtu,
            &self.outbound_addr,
            &self.outbound_addr6,
        ]
        .into_iter()
        .flatten()
        .find(|value| value.contains(','))
        {
            return Err(Failure::new(format!("invalid value {value:?}")));
        }
        match self.target_type.as_deref() {
            None | Some("netns") => {}
            Some(other) => {
                return Err(
                    Failure::new(format!("target type {other:?} is not supported"))
                        .hint("only \"netns\" is: bess is slirp4netns's way to user-mode Linux"),
                );
            }
        }
        let mut config =
            net::Config::parse_slirp_options(&options.join(",")).map_err(Error::from)?;
        config.name_server = !self.disable_dns;
        if let Some(mac) = &self.macaddress {
            if !self.configure {
                return Err(
                    Failure::new("--macaddress is for a device that is brought up here")
                        .hint("say --configure too"),
                );
            }
            config.set_mac(mac).map_err(Error::from)?;
        }
        Ok(config)
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| {
        Failure::new(format!(
            "cannot open {}: {}",
            path.display(),
            in_words(&error)
        ))
    })
}

/// Whether a user namespace is the one we are in.
fn is_ours(userns: &File) -> bool {
    let name = |file: std::io::Result<std::fs::Metadata>| file.ok().map(|m| (m.dev(), m.ino()));
    let ours = name(std::fs::metadata("/proc/self/ns/user"));
    ours.is_some() && ours == name(userns.metadata())
}

fn descriptor(number: i32) -> Result<OwnedFd, Failure> {
    rcon_engine::take_inherited(number)
        .map_err(|_| Failure::new(format!("there is no descriptor {number}")))
}

/// Listens at a path; a socket that is there gives way, as with slirp4netns.
fn listen(path: &Path) -> Result<OwnedFd, Failure> {
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        let _ = std::fs::remove_file(path);
    }
    let make = || {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener.into())
    };
    make().map_err(|error: std::io::Error| {
        Failure::new(format!(
            "cannot listen at {}: {}",
            path.display(),
            in_words(&error)
        ))
    })
}
