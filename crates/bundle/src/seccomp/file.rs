//! Profiles from files (`--security-opt seccomp=FILE`), in the JSON form that podman, docker and the OCI specification share.
//!
//! The form goes beyond OCI's in that a rule may apply only with or without certain capabilities, architectures or kernels;
//! what applies here and now becomes an OCI profile.

use std::fs;
use std::path::Path;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompFilterFlag};
use oci_spec::runtime::{LinuxSeccompOperator, LinuxSyscall};
use serde::Deserialize;

use crate::{Caps, Error};

/// What a rule with ERRNO answers when it does not say: EPERM.
const DEFAULT_ERRNO: u32 = 1;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: Action,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<Arch>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    /// The old form: one name.
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Vec<String>,
    action: Action,
    errno_ret: Option<u32>,
    args: Option<Vec<Arg>>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: usize,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: LinuxSeccompOperator,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Reads a profile for a container with these capabilities.
///
/// # Errors
/// podman's `opening seccomp profile failed: …` and `loading seccomp profile (…) failed: …`.
pub(super) fn read(path: &Path, caps: &Caps) -> Result<LinuxSeccomp, Error> {
    let shown = path.display();
    let text = fs::read(path).map_err(|e| {
        Error::value(format!(
            "opening seccomp profile failed: open {shown}: {}",
            rcon_sys::errors::in_words(&e)
        ))
    })?;
    let failed =
        |why: String| Error::value(format!("loading seccomp profile ({shown}) failed: {why}"));
    let profile: Profile = serde_json::from_slice(&text)
        .map_err(|e| failed(format!("decoding seccomp profile failed: {e}")))?;
    let mut rules = Vec::new();
    for rule in profile.syscalls {
        let included = rule.includes.as_ref().is_none_or(|c| c.all(caps));
        let excluded = rule.excludes.as_ref().is_some_and(|c| c.any(caps));
        if included && !excluded {
            rules.push(rule.into_oci().map_err(failed)?);
        }
    }
    // Rules with conditions come before those without, as the launcher takes the first that fits; among themselves they keep
    // their order.
    rules.sort_by_key(|r| r.args().as_ref().is_none_or(Vec::is_empty));
    let mut oci = LinuxSeccomp::default();
    oci.set_default_action(profile.default_action)
        .set_default_errno_ret(profile.default_errno_ret)
        .set_architectures(Some(
            profile.architectures.unwrap_or_else(super::architectures),
        ))
        .set_flags(profile.flags)
        .set_syscalls(Some(rules));
    Ok(oci)
}

impl Rule {
    fn into_oci(self) -> Result<LinuxSyscall, String> {
        let mut names = self.names;
        if !self.name.is_empty() {
            names.push(self.name);
        }
        if names.is_empty() {
            return Err("a rule names no system call".into());
        }
        let mut args = Vec::new();
        for arg in self.args.into_iter().flatten() {
            if arg.index > 5 {
                return Err(format!(
                    "argument {} of {}: there are six, counted from 0",
                    arg.index,
                    names.join(", ")
                ));
            }
            let second = (arg.op == LinuxSeccompOperator::ScmpCmpMaskedEq).then_some(arg.value_two);
            args.push(super::argument(arg.index, arg.op, arg.value, second));
        }
        let mut syscall = LinuxSyscall::default();
        let errno =
            (self.action == Action::ScmpActErrno).then(|| self.errno_ret.unwrap_or(DEFAULT_ERRNO));
        syscall
            .set_names(names)
            .set_action(self.action)
            .set_errno_ret(errno.or(self.errno_ret))
            .set_args((!args.is_empty()).then_some(args));
        Ok(syscall)
    }
}

impl Condition {
    /// As `includes`: everything it names must be so.
    fn all(&self, caps: &Caps) -> bool {
        let has = |c: &String| caps.has(c.strip_prefix("CAP_").unwrap_or(c));
        self.caps.iter().flatten().all(has)
            && self
                .arches
                .as_ref()
                .is_none_or(|a| a.is_empty() || a.iter().any(|a| a == arch()))
            && self
                .min_kernel
                .as_deref()
                .is_none_or(|v| v.is_empty() || kernel_at_least(v))
    }

    /// As `excludes`: one thing that is so is enough.
    fn any(&self, caps: &Caps) -> bool {
        let has = |c: &String| caps.has(c.strip_prefix("CAP_").unwrap_or(c));
        self.caps.iter().flatten().any(has)
            || self.arches.iter().flatten().any(|a| a == arch())
            || self
                .min_kernel
                .as_deref()
                .is_some_and(|v| !v.is_empty() && kernel_at_least(v))
    }
}

/// This architecture, by the name profiles use (Go's).
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn kernel_at_least(wanted: &str) -> bool {
    let release = rustix::system::uname();
    version(wanted) <= version(&release.release().to_string_lossy())
}

/// Major and minor; what cannot be read counts as 0.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split(['.', '-']).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::tests::answer;
    use super::*;
    use crate::{Options, capabilities};

    fn load(text: &str, add: &[&str]) -> Result<LinuxSeccomp, Error> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.json");
        fs::write(&file, text).unwrap();
        let options = Options {
            cap_add: add.iter().map(|a| a.to_string()).collect(),
            ..Options::default()
        };
        read(&file, &capabilities(&options, None).unwrap())
    }

    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "archMap": [],
        "syscalls": [
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {"caps": ["CAP_SYS_ADMIN"]}, "excludes": {}},
            {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}, "errnoRet": 1},
            {"name": "socket", "action": "SCMP_ACT_ALLOW"},
            {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]},
            {"names": ["old"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "3.0"}},
            {"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
            {"names": ["foreign"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390"]}}
        ]}"#;

    #[test]
    fn conditions_are_settled() {
        let p = load(PROFILE, &[]).unwrap();
        for (name, first, want) in [
            ("bpf", 0, Err(1)),
            ("socket", 2, Ok(())),
            ("socket", 40, Err(1)),
            ("old", 0, Ok(())),
            ("future", 0, Err(38)),
            ("foreign", 0, Err(38)),
        ] {
            assert_eq!(answer(&p, name, [first, 0, 0, 0, 0, 0]), want, "{name}");
        }
        assert_eq!(
            answer(&load(PROFILE, &["SYS_ADMIN"]).unwrap(), "bpf", [0; 6]),
            Ok(())
        );
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let error = read(Path::new("/nope"), &Caps::default())
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "opening seccomp profile failed: open /nope: no such file or directory"
        );
        for bad in [
            "root:x:0",
            "[]",
            "{}",
            r#"{"defaultAction":"SCMP_ACT_WHAT"}"#,
        ] {
            let error = load(bad, &[]).unwrap_err().to_string();
            assert!(
                error.contains("failed: decoding seccomp profile failed: "),
                "{error}"
            );
        }
        let index = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["x"],"action":"SCMP_ACT_ERRNO",
            "args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#;
        assert!(
            load(index, &[])
                .unwrap_err()
                .to_string()
                .ends_with("there are six, counted from 0")
        );
    }
}
