//! Labels of security modules: AppArmor profiles and SELinux contexts (config.md, process).

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::Process;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2, readlinkat};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::procfs;

/// A label that means something: no text and the empty text ask for nothing.
pub(crate) fn wanted(label: &Option<String>) -> Option<&str> {
    label.as_deref().filter(|label| !label.is_empty())
}

/// Fails when there is no AppArmor here.
pub(crate) fn check_apparmor(profile: &str) -> Result<()> {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    match enabled.is_ok_and(|text| text.starts_with('Y')) || profile == "unconfined" {
        true => Ok(()),
        false => Err(Error::Invalid(format!(
            "the AppArmor profile {profile:?} was asked for, and this system has no AppArmor"
        ))),
    }
}

/// Fails when there is no SELinux here.
pub(crate) fn check_selinux(label: &str) -> Result<()> {
    match selinux() {
        true => Ok(()),
        false => Err(Error::Invalid(format!(
            "the SELinux label {label:?} was asked for, and this system has no SELinux"
        ))),
    }
}

/// Whether SELinux is enabled here.
pub(crate) fn selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Have the next program that this process executes get the labels of `process`.
///
/// Writes through a proc that nobody else can reach: a mount over a file of the container's own could
/// take the label elsewhere.
pub(crate) fn label(process: &Process) -> Result<()> {
    let profile = wanted(process.apparmor_profile());
    let context = wanted(process.selinux_label());
    if profile.is_none() && context.is_none() {
        return Ok(());
    }
    let proc = procfs::private()?;
    if let Some(profile) = profile
        && check_apparmor("").is_ok()
    {
        let step = || format!("cannot apply the AppArmor profile {profile:?}");
        let text = format!("exec {profile}");
        match write(&proc, "attr/apparmor/exec", &text) {
            // Before Linux 5.8 the modules shared one file.
            Err(Errno::NOENT) => write(&proc, "attr/exec", &text).context(step)?,
            result => result.context(step)?,
        }
    }
    if let Some(context) = context {
        write(&proc, "attr/exec", context)
            .context(|| format!("cannot apply the SELinux label {context:?}"))?;
    }
    Ok(())
}

fn write(proc: &OwnedFd, name: &str, text: &str) -> Result<(), Errno> {
    // "self" is a link that proc itself makes; nothing else is followed.
    let own = readlinkat(proc, "self", Vec::new())?;
    let path = format!("{}/{name}", own.to_string_lossy());
    let file = openat2(
        proc,
        path,
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )?;
    rustix::io::write(&file, text.as_bytes()).map(drop)
}
