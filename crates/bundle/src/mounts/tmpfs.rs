//! `--tmpfs`, and the options of tmpfs in `--mount`.

use super::words::{PROPAGATION, complete, destination};
use super::{Source, UserMount};
use crate::Error;

/// Reads `DESTINATION[:OPTIONS]`.
///
/// # Errors
/// podman's messages; sizes and modes that the kernel would refuse when the container starts are refused here.
pub fn tmpfs(text: &str) -> Result<UserMount, Error> {
    let (place, options) = match text.split_once(':') {
        None => (text, Vec::new()),
        Some((place, options)) => (place, options.split(',').map(str::to_string).collect()),
    };
    let destination = destination(place)?;
    Ok(UserMount {
        source: Source::Tmpfs,
        destination,
        options: finish(options)?,
        ..UserMount::default()
    })
}

/// Checks and completes the options of a tmpfs.
pub(super) fn finish(words: Vec<String>) -> Result<Vec<String>, Error> {
    let mut options = Vec::new();
    let (mut copy_up, mut size, mut mode) = (true, false, false);
    for word in words {
        let twice = |seen: &mut bool, what: &str| match std::mem::replace(seen, true) {
            true => Err(Error::value(format!(
                "only one tmpfs {what} can be specified: duplicate mount option passed"
            ))),
            false => Ok(()),
        };
        match word.as_str() {
            "tmpcopyup" => copy_up = true,
            "notmpcopyup" => copy_up = false,
            "ro" | "rw" => exclusive(&options, &word, ["rw", "ro"])?,
            "exec" | "noexec" => exclusive(&options, &word, ["noexec", "exec"])?,
            "suid" | "nosuid" => exclusive(&options, &word, ["nosuid", "suid"])?,
            "dev" | "nodev" => exclusive(&options, &word, ["nodev", "dev"])?,
            "z" | "Z" => {
                return Err(Error::value(
                    "the 'z' and 'Z' options are not allowed with tmpfs mounts: invalid mount option",
                ));
            }
            "bind" | "rbind" => {
                return Err(Error::value(
                    "the 'bind' and 'rbind' options are not allowed with tmpfs mounts: invalid mount option",
                ));
            }
            w if PROPAGATION.contains(&w) => {}
            w => match w.split_once('=') {
                Some(("size", value)) => {
                    twice(&mut size, "size")?;
                    check_size(value)?;
                }
                Some(("mode", value)) => {
                    twice(&mut mode, "mode")?;
                    check_mode(value)?;
                }
                _ => {
                    return Err(Error::value(format!(
                        "unknown mount option {w:?}: invalid mount option"
                    )));
                }
            },
        }
        if word != "tmpcopyup" && word != "notmpcopyup" {
            options.push(word);
        }
    }
    complete(&mut options, true, false);
    if copy_up {
        options.push("tmpcopyup".into());
    }
    Ok(options)
}

fn exclusive(options: &[String], word: &str, pair: [&str; 2]) -> Result<(), Error> {
    match options.iter().any(|o| pair.contains(&o.as_str())) {
        true => Err(Error::value(format!(
            "only one of '{}' and '{}' can be used: duplicate mount option passed",
            pair[0], pair[1]
        ))),
        false => {
            debug_assert!(pair.contains(&word));
            Ok(())
        }
    }
}

/// What tmpfs(5) takes: a number with k, m or g, or a percentage of memory.
fn check_size(value: &str) -> Result<(), Error> {
    let digits = value.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G', '%']);
    let one_unit = value.len() - digits.len() <= 1;
    if one_unit
        && !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && digits.len() < 19
    {
        return Ok(());
    }
    Err(Error::value(format!(
        "invalid tmpfs size {value:?}: must be a number of bytes, with k, m, g or % if you like"
    )))
}

fn check_mode(value: &str) -> Result<(), Error> {
    match !value.is_empty()
        && value.len() <= 5
        && value.bytes().all(|b| (b'0'..=b'7').contains(&b))
        && u32::from_str_radix(value, 8).is_ok_and(|m| m <= 0o7777)
    {
        true => Ok(()),
        false => Err(Error::value(format!(
            "invalid tmpfs mode {value:?}: must be octal"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> String {
        tmpfs(text).unwrap().options.join(",")
    }

    #[test]
    fn options_are_podmans() {
        assert_eq!(options("/b"), "rw,rprivate,nosuid,nodev,tmpcopyup");
        assert_eq!(options("/b:rw"), "rw,rprivate,nosuid,nodev,tmpcopyup");
        assert_eq!(
            options("/b:size=10m,mode=700,exec,suid,dev"),
            "size=10m,mode=700,exec,suid,dev,rw,rprivate,tmpcopyup"
        );
        assert_eq!(
            options("/b:ro,private"),
            "ro,private,nosuid,nodev,tmpcopyup"
        );
        assert_eq!(options("/b:notmpcopyup"), "rw,rprivate,nosuid,nodev");
        assert_eq!(
            options("/b:size=50%"),
            "size=50%,rw,rprivate,nosuid,nodev,tmpcopyup"
        );
        assert_eq!(tmpfs("/b/").unwrap().destination, "/b");
    }

    #[test]
    fn refuses_as_podman_does() {
        for (text, message) in [
            ("", "container directory cannot be empty"),
            (":size=3", "container directory cannot be empty"),
            (
                "b",
                "invalid container path \"b\", must be an absolute path",
            ),
            ("/b:xx", "unknown mount option \"xx\": invalid mount option"),
            ("/b:", "unknown mount option \"\": invalid mount option"),
            (
                "/b:uid=3",
                "unknown mount option \"uid=3\": invalid mount option",
            ),
            (
                "/b:ro,rw",
                "only one of 'rw' and 'ro' can be used: duplicate mount option passed",
            ),
            (
                "/b:noexec,exec",
                "only one of 'noexec' and 'exec' can be used: duplicate mount option passed",
            ),
            (
                "/b:z",
                "the 'z' and 'Z' options are not allowed with tmpfs mounts: invalid mount option",
            ),
            (
                "/b:rbind",
                "the 'bind' and 'rbind' options are not allowed with tmpfs mounts: invalid mount option",
            ),
            (
                "/b:size=1m,size=2m",
                "only one tmpfs size can be specified: duplicate mount option passed",
            ),
        ] {
            assert_eq!(tmpfs(text).unwrap_err().to_string(), message, "{text}");
        }
        for text in [
            "/b:size=x",
            "/b:size=",
            "/b:size=1mm",
            "/b:mode=9",
            "/b:mode=",
            "/b:mode=77777",
            "/b:mode=+7",
            "/",
        ] {
            assert!(tmpfs(text).is_err(), "{text}");
        }
    }
}
