//! Which namespaces a container has, from its specification (config-linux.md, namespaces).

use nix::sched::CloneFlags;
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::error::{Error, Result};

/// The new namespaces of the container, as flags of clone(2). A user and a mount namespace are
/// always among them.
///
/// Fails with [`Error::Invalid`] for namespaces that are to be joined, and for time namespaces.
pub(crate) fn flags(spec: &Spec) -> Result<CloneFlags> {
    let mut flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
    let listed = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_ref());
    for namespace in listed.into_iter().flatten() {
        if let Some(path) = namespace.path() {
            return Err(Error::Invalid(format!(
                "joining the namespace {} is not supported",
                path.display()
            )));
        }
        flags |= match namespace.typ() {
            LinuxNamespaceType::User => CloneFlags::CLONE_NEWUSER,
            LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
            LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
            LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
            LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
            LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
            LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
            LinuxNamespaceType::Time => {
                return Err(Error::Invalid(
                    "time namespaces are not supported".to_owned(),
                ));
            }
        };
    }
    Ok(flags)
}
