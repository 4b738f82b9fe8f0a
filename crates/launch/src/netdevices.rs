//! Network devices that the container takes over (config-linux.md, network devices): from the network namespace of its
//! creator into its own, with their addresses, and up.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::Spec;
use rcon_sys::netlink::{self, Address, Batch, Link};

use crate::error::{Context, Error, NetworkFailure, Result};
use crate::namespaces::Namespaces;

/// The devices of a specification.
#[derive(Debug)]
pub(crate) struct Devices(Vec<Device>);

#[derive(Debug)]
struct Device {
    /// Its name here.
    name: String,
    /// Its name in the container; one with `%d` becomes one with a number that is free there.
    inside: String,
    index: u32,
    up: bool,
    addresses: Vec<Address>,
    /// It is in the container's namespace; what else has its name there is somebody else's.
    moved: bool,
}

impl Devices {
    /// Those of `spec`, which are looked for, in the order of their names.
    pub(crate) fn of(spec: &Spec, namespaces: &Namespaces) -> Result<Self> {
        let linux = spec.linux().as_ref();
        let named = linux.and_then(|linux| linux.net_devices().as_ref());
        let mut devices = Vec::new();
        for (name, device) in named.into_iter().flatten() {
            let inside = device.name().as_ref().filter(|name| !name.is_empty());
            let inside = inside.unwrap_or(name);
            for (name, template) in [(name, false), (inside, true)] {
                if !is_name(name, template) {
                    return Err(Error::Invalid(format!(
                        "{name:?} cannot be the name of a network device (linux.netDevices)"
                    )));
                }
            }
            let step = || format!("find the network device {name}");
            let found = netlink::link(name).map_err(|error| failed(&step(), &error))?;
            let addresses =
                netlink::addresses(found.index).map_err(|error| failed(&step(), &error))?;
            devices.push(Device {
                name: name.clone(),
                inside: inside.clone(),
                index: found.index,
                up: found.up,
                addresses,
                moved: false,
            });
        }
        if !devices.is_empty() && !namespaces.has(CloneFlags::CLONE_NEWNET) {
            return Err(Error::Invalid(
                "network devices (linux.netDevices) need a network namespace of the container's own".to_owned(),
            ));
        }
        devices.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self(devices))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Move them to the namespace `netns`, of the container.
    ///
    /// After an error some may be there; [`Devices::take_back`] brings them home.
    pub(crate) fn give(&mut self, netns: &OwnedFd) -> Result<()> {
        // All names first: the kernel would move one whose name is taken, and not rename it.
        in_namespace(netns, || self.choose_names())?;
        for device in &mut self.0 {
            let mut batch = Batch::new();
            batch.move_link(device.index, netns.as_fd(), &device.inside);
            let step = format!("move the network device {}", device.name);
            batch.send().map_err(|error| failed(&step, &error.source))?;
            device.moved = true;
        }
        in_namespace(netns, || {
            let mut all = self.0.iter();
            all.try_for_each(|device| device.set_up(&device.inside, true))
        })
    }

    /// Bring those home that were moved to `netns`, as they were. What cannot be had back goes with the namespace.
    pub(crate) fn take_back(&self, netns: &OwnedFd) {
        let Ok(own) = File::open("/proc/self/ns/net") else {
            return;
        };
        let moved = || self.0.iter().filter(|device| device.moved);
        let _ = in_namespace(netns, || {
            for device in moved() {
                if let Ok(found) = netlink::link(&device.inside) {
                    let mut batch = Batch::new();
                    batch.move_link(found.index, own.as_fd(), &device.name);
                    let _ = batch.send();
                }
            }
            Ok(())
        });
        for device in moved() {
            let _ = device.set_up(&device.name, device.up);
        }
    }

    /// Find a number for each `%d`, and see whether every name is free in this namespace.
    fn choose_names(&mut self) -> Result<()> {
        let mut chosen: Vec<String> = Vec::new();
        for device in &mut self.0 {
            let mut free = |name: &str| {
                let free = !chosen.iter().any(|one| one == name)
                    && netlink::link(name)
                        .is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV));
                if free {
                    chosen.push(name.to_owned());
                }
                free
            };
            let name = match device.inside.contains("%d") {
                true => (0..1000)
                    .map(|number| device.inside.replace("%d", &number.to_string()))
                    .find(|name| free(name)),
                false => Some(device.inside.clone()).filter(|name| free(name)),
            };
            let taken = || io::Error::from_raw_os_error(libc::EEXIST);
            let step = || {
                let Device { name, inside, .. } = &device;
                format!("move the network device {name} into the container as {inside}")
            };
            device.inside = name.ok_or_else(|| failed(&step(), &taken()))?;
        }
        Ok(())
    }
}

impl Device {
    /// Give it its addresses, in the namespace that it is in now as `name`, and bring it up.
    fn set_up(&self, name: &str, up: bool) -> Result<()> {
        let step = format!("set up the network device {}", self.name);
        let index = netlink::link(name).map_err(|error| failed(&step, &error))?;
        let index = index.index;
        let mut batch = Batch::new();
        for address in &self.addresses {
            batch.address_again(index, address);
        }
        if up {
            batch.link_up(Link {
                index,
                ..Link::default()
            });
        }
        batch.send().map_err(|error| failed(&step, &error.source))
    }
}

/// Whether the kernel takes it for a name, or for the pattern of one.
fn is_name(name: &str, template: bool) -> bool {
    let rest = match template {
        true => name.replacen("%d", "", 1),
        false => name.to_owned(),
    };
    let bad = |c: char| c.is_whitespace() || c == '/' || c == ':' || c == '%' || c == '\0';
    !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && ![".", ".."].contains(&name)
        && !rest.contains(bad)
}

/// Do `work` in another network namespace.
fn in_namespace<T>(netns: &OwnedFd, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let step = "join the network namespace of the container";
    let own = File::open("/proc/self/ns/net").map_err(|error| failed(step, &error))?;
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(|error| failed(step, &error.into()))?;
    let done = work();
    let back = || "cannot come back to the own network namespace".to_owned();
    setns(&own, CloneFlags::CLONE_NEWNET).context(back)?;
    done
}

fn failed(step: &str, error: &io::Error) -> Error {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "it takes CAP_NET_ADMIN and CAP_SYS_ADMIN over the network namespace that the device is in: run as \
             root, or as the root of the namespaces around"
        }
        Some(libc::ENODEV) => "`ip link` lists those of the network namespace that this runs in",
        Some(libc::EEXIST) => "give it another name (linux.netDevices, name)",
        Some(libc::EINVAL) => "some devices, such as lo, cannot leave their network namespace",
        _ => "",
    };
    Error::Network(NetworkFailure {
        message: format!("cannot {step}: {}", crate::cgroup::reason(error)),
        hint: (!hint.is_empty()).then(|| hint.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        for name in ["eth0", "a", "fifteen-letters"] {
            assert!(is_name(name, false), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a:1",
            "eth%d",
            "sixteen-letters-",
        ] {
            assert!(!is_name(name, false), "{name}");
        }
        assert!(is_name("eth%d", true) && is_name("%d", true));
        assert!(!is_name("eth%d%d", true) && !is_name("eth%s", true));
    }
}
