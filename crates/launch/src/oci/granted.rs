//! Capabilities that a specification asks for and that the caller does not have. They are left out, and it is said: the
//! specification (config.md, capabilities) wants a warning and no failure.

use std::collections::HashSet;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Spec};
use rustix::thread::CapabilitySet;

use super::bundle::new_users;
use crate::credentials::bit;

/// Leave out of `spec` what this process cannot hand on, because it does not have it and makes no user namespace.
pub(super) fn hand_on(spec: &mut Spec) -> Vec<String> {
    if new_users(spec).is_some() {
        return Vec::new();
    }
    let Ok(own) = rustix::thread::capabilities(None) else {
        return Vec::new();
    };
    let Some(process) = spec.process_mut() else {
        return Vec::new();
    };
    match process.capabilities().clone() {
        Some(mut wanted) => {
            let lacking = reduce(&mut wanted, own.permitted);
            process.set_capabilities(Some(wanted));
            lacking
        }
        None => Vec::new(),
    }
}

/// Leave out what is not among `own`; a warning for each.
fn reduce(wanted: &mut LinuxCapabilities, own: CapabilitySet) -> Vec<String> {
    let mut lacking = HashSet::new();
    let mut within = |set: &Option<Capabilities>| {
        set.as_ref().map(|set| {
            let (given, not): (Capabilities, Capabilities) =
                set.iter().partition(|one| own.contains(bit(**one)));
            lacking.extend(not);
            given
        })
    };
    let sets = [
        within(wanted.bounding()),
        within(wanted.effective()),
        within(wanted.permitted()),
        within(wanted.inheritable()),
        within(wanted.ambient()),
    ];
    let [bounding, effective, permitted, inheritable, ambient] = sets;
    wanted
        .set_bounding(bounding)
        .set_effective(effective)
        .set_permitted(permitted)
        .set_inheritable(inheritable)
        .set_ambient(ambient);
    let mut names: Vec<String> = lacking
        .into_iter()
        .filter_map(|one: Capability| serde_json::to_value(one).ok())
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    names.sort();
    let warning =
        |name: String| format!("the capability {name} is not this process's own, and not given");
    names.into_iter().map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_does_not_have_is_left_out_and_told() {
        let mut wanted = LinuxCapabilities::default();
        let both = || Some(Capabilities::from([Capability::Chown, Capability::SysBoot]));
        wanted.set_bounding(both()).set_permitted(both());
        wanted
            .set_effective(None)
            .set_inheritable(None)
            .set_ambient(None);
        let told = reduce(&mut wanted, CapabilitySet::CHOWN | CapabilitySet::KILL);
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("CAP_SYS_BOOT"), "{told:?}");
        let only = Some(Capabilities::from([Capability::Chown]));
        assert_eq!((wanted.bounding(), wanted.permitted()), (&only, &only));
        assert_eq!(wanted.ambient(), &None);
    }
}
