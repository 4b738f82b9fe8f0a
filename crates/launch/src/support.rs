//! Saying no, before anything is made, to what a specification can ask for and cannot be had here.
//! Properties that the specification of specifications does not know are passed over, as it demands.

use oci_spec::runtime::{LinuxSeccompAction, Process, Spec};

use crate::error::{Error, Result};
use crate::{hooks, lsm};

/// Check all of `spec`. `known` says whether other programs can be told of the container.
pub(crate) fn check(spec: &Spec, known: bool) -> Result<()> {
    let refuse = |what: &str| Err(Error::Invalid(format!("{what} is not supported")));
    if spec.windows().is_some() || spec.solaris().is_some() || spec.zos().is_some() {
        return refuse("a specification for another system than Linux");
    }
    if spec.vm().is_some() {
        return refuse("a virtual machine (vm in the specification)");
    }
    if hooks::any(spec) && !known {
        return refuse("a specification with hooks, without an id for the container,");
    }
    if let Some(process) = spec.process() {
        check_process(process)?;
    }
    let Some(linux) = spec.linux() else {
        return Ok(());
    };
    if linux.intel_rdt().is_some() && !known {
        return refuse("Intel RDT (linux.intelRdt), without an id for the container,");
    }
    if let Some(label) = linux
        .mount_label()
        .as_deref()
        .filter(|label| !label.is_empty())
    {
        lsm::check_selinux(label)?;
    }
    if let Some(personality) = linux.personality()
        && personality
            .flags()
            .as_ref()
            .is_some_and(|all| !all.is_empty())
    {
        return refuse("a personality with flags");
    }
    if let Some(seccomp) = linux.seccomp() {
        let notify = LinuxSeccompAction::ScmpActNotify;
        let calls = seccomp.syscalls().iter().flatten();
        let notifies =
            calls.clone().any(|call| call.action() == notify) || seccomp.default_action() == notify;
        if notifies && seccomp.listener_path().is_none() {
            return Err(Error::Invalid(
                "the seccomp profile has the action SCMP_ACT_NOTIFY and no listenerPath".to_owned(),
            ));
        }
    }
    Ok(())
}

/// Check what a specification asks for one process.
pub(crate) fn check_process(process: &Process) -> Result<()> {
    if let Some(profile) = lsm::wanted(process.apparmor_profile()) {
        lsm::check_apparmor(profile)?;
    }
    if let Some(label) = lsm::wanted(process.selinux_label()) {
        lsm::check_selinux(label)?;
    }
    Ok(())
}
