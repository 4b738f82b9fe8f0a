//! `--security-opt`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Error;

/// All `--security-opt` together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// `no-new-privileges`: executing a set-uid program gives nothing.
    pub no_new_privileges: bool,
    /// `seccomp=`.
    pub seccomp: SeccompChoice,
    /// `mask=`: further paths to hide.
    pub mask: Vec<String>,
    /// `unmask=`: default paths not to hide or protect; `ALL` and shell patterns are understood.
    pub unmask: Vec<String>,
    /// `proc-opts=`: the options `/proc` is mounted with instead of the default ones.
    pub proc_opts: Vec<String>,
    /// `label=`: kept for `inspect`; there is no SELinux labelling here.
    pub label: Vec<String>,
}

/// `seccomp=`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeccompChoice {
    /// Our own profile.
    #[default]
    Default,
    /// None at all.
    Unconfined,
    /// A profile file in the JSON form that podman and docker share.
    File(PathBuf),
}

/// Reads all `--security-opt` words.
///
/// # Errors
/// podman's `invalid --security-opt 1: "X"` for what has no value and `invalid --security-opt 2: "X"` for what is unknown.
pub fn security(words: &[String]) -> Result<Security, Error> {
    let mut security = Security::default();
    for word in words {
        if word == "no-new-privileges" {
            security.no_new_privileges = true;
            continue;
        }
        // The colon is docker's old separator.
        let split = word.split_once('=').or_else(|| word.split_once(':'));
        let (key, value) =
            split.ok_or_else(|| Error::value(format!("invalid --security-opt 1: {word:?}")))?;
        let unknown = || Error::value(format!("invalid --security-opt 2: {word:?}"));
        let list = || {
            value
                .split(':')
                .filter(|p| !p.is_empty())
                .map(str::to_string)
        };
        match key {
            "no-new-privileges" => {
                security.no_new_privileges = match value {
                    "true" => true,
                    "false" => false,
                    _ => return Err(unknown()),
                }
            }
            "seccomp" => {
                security.seccomp = match value {
                    "unconfined" => SeccompChoice::Unconfined,
                    "" => SeccompChoice::Default,
                    path => SeccompChoice::File(PathBuf::from(path)),
                }
            }
            "label" => security.label.push(value.to_string()),
            "apparmor" => {
                // No profile is ever put on here, which is what "unconfined" asks for.
                if value != "unconfined" {
                    return Err(Error::value(format!(
                        "apparmor profile {value:?} specified, but a profile cannot be applied without root"
                    )));
                }
            }
            "mask" => security.mask.extend(list()),
            "unmask" => security.unmask.extend(list()),
            "proc-opts" => security.proc_opts = value.split(',').map(str::to_string).collect(),
            "systempaths" if value == "unconfined" => security.unmask.push("ALL".into()),
            _ => return Err(unknown()),
        }
    }
    Ok(security)
}

impl Security {
    /// Whether a default path stays hidden or protected: not unmasked by name, by `ALL` or by a pattern.
    pub(crate) fn keeps(&self, path: &str) -> bool {
        !self
            .unmask
            .iter()
            .any(|u| u.eq_ignore_ascii_case("all") || matches(u.trim_end_matches('/'), path))
    }
}

/// A shell pattern against a path: `*` and `?` stop at a slash, as in Go's filepath.Match; classes are not needed here.
fn matches(pattern: &str, path: &str) -> bool {
    let (mut rest, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (rest.next(), path.next()) {
            (None, None) => return true,
            (Some(p), Some(name)) if part_matches(p.as_bytes(), name.as_bytes()) => {}
            _ => return false,
        }
    }
}

/// The usual backtracking to the last star: linear in all but hostile cases, never deeper than a loop.
fn part_matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((sp, sn)) => {
                    star = Some((sp, sn + 1));
                    p = sp + 1;
                    n = sn + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Security, Error> {
        security(&words.iter().map(|w| w.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn reads_all_forms() {
        let s = read(&[
            "no-new-privileges",
            "seccomp=/p.json",
            "mask=/a:/b",
            "unmask=/proc/kcore",
            "label=disable",
        ])
        .unwrap();
        assert!(s.no_new_privileges);
        assert_eq!(s.seccomp, SeccompChoice::File("/p.json".into()));
        assert_eq!(s.mask, ["/a", "/b"]);
        assert_eq!(s.unmask, ["/proc/kcore"]);
        assert!(
            !read(&["no-new-privileges", "no-new-privileges:false"])
                .unwrap()
                .no_new_privileges
        );
        assert!(read(&["no-new-privileges=true"]).unwrap().no_new_privileges);
        assert_eq!(
            read(&["seccomp:unconfined"]).unwrap().seccomp,
            SeccompChoice::Unconfined
        );
        assert_eq!(
            read(&["proc-opts=hidepid=2,nosuid"]).unwrap().proc_opts,
            ["hidepid=2", "nosuid"]
        );
        assert_eq!(read(&["systempaths=unconfined"]).unwrap().unmask, ["ALL"]);
        assert_eq!(read(&["apparmor=unconfined"]).unwrap(), Security::default());
    }

    #[test]
    fn refuses_as_podman_does() {
        for word in ["", "x", "seccomp", "mask"] {
            assert_eq!(
                read(&[word]).unwrap_err().to_string(),
                format!("invalid --security-opt 1: {word:?}")
            );
        }
        for word in ["foo=bar", "no-new-privileges:x", "systempaths=x"] {
            assert_eq!(
                read(&[word]).unwrap_err().to_string(),
                format!("invalid --security-opt 2: {word:?}")
            );
        }
        assert!(read(&["apparmor=foo"]).is_err());
    }

    #[test]
    fn unmasking() {
        let s = read(&["unmask=/proc/kcore:/sys/*/"]).unwrap();
        assert!(!s.keeps("/proc/kcore") && !s.keeps("/sys/firmware"));
        assert!(s.keeps("/proc/keys") && s.keeps("/sys/fs/selinux"));
        assert!(!read(&["unmask=all"]).unwrap().keeps("/proc/keys"));
        assert!(
            !read(&["unmask=/proc/t*r_*t"])
                .unwrap()
                .keeps("/proc/timer_list")
        );
        assert!(!read(&["unmask=/proc/k?ys"]).unwrap().keeps("/proc/keys"));
    }
}
