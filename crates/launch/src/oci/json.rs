//! Reading the JSON of a specification where the types that it is read into know less than it may say, or spell it in another
//! way.
//!
//! Only what cannot be read as it is is looked at once more, so a usual specification costs nothing.

use oci_spec::runtime::{Arch, Capability};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The five sets, as a specification calls them.
const SETS: [&str; 5] = [
    "bounding",
    "effective",
    "permitted",
    "inheritable",
    "ambient",
];

/// Flags of the scheduler: as the specification has them, and as the types do.
const FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// Read `text`, in which the description of a process is at `process`. Capabilities that nobody knows are left out, with a
/// warning for each.
///
/// # Errors
/// The parser's.
pub fn read<T: DeserializeOwned>(
    text: &[u8],
    process: &str,
) -> serde_json::Result<(T, Vec<String>)> {
    let error = match serde_json::from_slice(text) {
        Ok(read) => return Ok((read, Vec::new())),
        Err(error) => error,
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else {
        return Err(error);
    };
    let mut unknown = Vec::new();
    if let Some(process) = value.pointer_mut(process) {
        forget_capabilities(process, &mut unknown);
        spell_flags(process);
    }
    forget_architectures(&mut value);
    let warning = |name: &String| format!("the capability {name} is not known, and not given");
    match serde_json::from_value(value) {
        Ok(read) => Ok((read, unknown.iter().map(warning).collect())),
        // The first one has the place of the fault.
        Err(_) => Err(error),
    }
}

fn forget_capabilities(process: &mut Value, unknown: &mut Vec<String>) {
    for name in SETS {
        let set = process.pointer_mut(&format!("/capabilities/{name}"));
        let Some(set) = set.and_then(Value::as_array_mut) else {
            continue;
        };
        set.retain(|word| {
            let known = serde_json::from_value::<Capability>(word.clone()).is_ok();
            match word.as_str() {
                Some(word) if !known => {
                    unknown.push(word.to_owned());
                    false
                }
                // What is no name at all is the parser's to complain of.
                _ => true,
            }
        });
    }
    unknown.sort();
    unknown.dedup();
}

fn spell_flags(process: &mut Value) {
    let flags = process.pointer_mut("/scheduler/flags");
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        let known = FLAGS.iter().find(|(name, _)| flag.as_str() == Some(name));
        if let Some((_, ours)) = known {
            *flag = Value::from(*ours);
        }
    }
}

/// Of architectures that nobody knows no program runs here, and no rule is needed for them.
fn forget_architectures(spec: &mut Value) {
    let listed = spec.pointer_mut("/linux/seccomp/architectures");
    if let Some(listed) = listed.and_then(Value::as_array_mut) {
        listed.retain(|word| {
            let named = word.as_str().is_some_and(|w| w.starts_with("SCMP_ARCH_"));
            !named || serde_json::from_value::<Arch>(word.clone()).is_ok()
        });
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{Process, Spec};
    use serde_json::json;

    use super::*;

    fn spec() -> Value {
        let process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["true"]});
        json!({"ociVersion": "1.3.0", "process": process, "linux": {}})
    }

    #[test]
    fn unknown_capabilities_are_left_out_and_told() {
        let mut spec = spec();
        let some = ["CAP_CHOWN", "CAP_OF_TOMORROW"];
        spec["process"]["capabilities"] = json!({"bounding": some, "effective": some});
        let (read, told) = read::<Spec>(spec.to_string().as_bytes(), "/process").unwrap();
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("CAP_OF_TOMORROW"));
        let sets = read
            .process()
            .as_ref()
            .unwrap()
            .capabilities()
            .clone()
            .unwrap();
        let only = Some([Capability::Chown].into());
        assert_eq!((sets.bounding(), sets.effective()), (&only, &only));
        let process = spec["process"].to_string();
        let (_, told) = super::read::<Process>(process.as_bytes(), "").unwrap();
        assert_eq!(told.len(), 1);
    }

    #[test]
    fn other_spellings_are_read() {
        let mut spec = spec();
        let flags = [
            "SCHED_FLAG_RESET_ON_FORK",
            "SCHED_FLAG_DL_OVERRUN",
            "SCHED_FLAG_RECLAIM",
        ];
        spec["process"]["scheduler"] = json!({"policy": "SCHED_FIFO", "flags": flags});
        spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_OF_TOMORROW"]});
        let (read, told) = read::<Spec>(spec.to_string().as_bytes(), "/process").unwrap();
        assert!(told.is_empty());
        let scheduler = read
            .process()
            .as_ref()
            .unwrap()
            .scheduler()
            .clone()
            .unwrap();
        assert_eq!(scheduler.flags().as_ref().unwrap().len(), 3);
        let seccomp = read.linux().as_ref().unwrap().seccomp().clone().unwrap();
        assert_eq!(seccomp.architectures().as_ref().unwrap().len(), 1);
    }

    #[test]
    fn the_rest_is_an_error_with_its_place() {
        for (pointer, value) in [
            ("/process/cwd", json!(3)),
            (
                "/process/scheduler",
                json!({"policy": "SCHED_FIFO", "flags": ["SCHED_FLAG_NONE"]}),
            ),
            ("/process/capabilities", json!({"bounding": [3]})),
            (
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["x"]}),
            ),
        ] {
            let mut spec = spec();
            let mut at = &mut spec;
            for part in pointer.split('/').skip(1) {
                at = &mut at[part];
            }
            *at = value;
            let error = read::<Spec>(spec.to_string().as_bytes(), "/process").unwrap_err();
            assert!(error.line() > 0, "{pointer}");
        }
        assert!(read::<Spec>(b"{", "/process").is_err());
    }
}
