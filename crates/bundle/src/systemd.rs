//! What systemd wants to find as the first process of a container (systemd.io/CONTAINER_INTERFACE), as podman gives it.

use crate::{Options, SystemdMode};

/// SIGRTMIN+3, by which systemd is asked to shut down.
pub(crate) const STOP: i32 = 37;

/// What is memory of its own for systemd.
pub(crate) const TMPFS: [&str; 4] = ["/run", "/run/lock", "/tmp", "/var/log/journal"];

/// Programs that are taken for systemd.
const INITS: [&str; 3] = ["/sbin/init", "/usr/sbin/init", "/usr/local/sbin/init"];

/// Whether a container that runs `args` is to be set up for systemd.
pub(crate) fn is_wanted(options: &Options, args: &[String]) -> bool {
    // As `CMD` in a Containerfile is written down.
    let words = match args {
        [shell, flag, rest @ ..] if shell == "/bin/sh" && flag == "-c" && !rest.is_empty() => rest,
        words => words,
    };
    match options.systemd {
        SystemdMode::False => false,
        SystemdMode::Always => true,
        SystemdMode::True => words.first().is_some_and(|program| {
            INITS.contains(&program.as_str()) || program.rsplit('/').next() == Some("systemd")
        }),
    }
}

/// The id of a container in the form that systemd takes for a machine id.
pub(crate) fn uuid(container_id: &str) -> String {
    let digits: String = container_id.chars().take(32).collect();
    match digits.len() {
        32 => format!(
            "{}-{}-{}-{}-{}",
            &digits[..8],
            &digits[8..12],
            &digits[12..16],
            &digits[16..20],
            &digits[20..]
        ),
        _ => digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_taken_for_systemd() {
        let wanted = |mode, words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            let options = Options {
                systemd: mode,
                ..Options::default()
            };
            is_wanted(&options, &words)
        };
        for yes in [
            &["/sbin/init"][..],
            &["/usr/lib/systemd/systemd", "--user"],
            &["systemd"],
            &["/bin/sh", "-c", "/usr/sbin/init"],
        ] {
            assert!(wanted(SystemdMode::True, yes), "{yes:?}");
            assert!(!wanted(SystemdMode::False, yes));
        }
        for no in [
            &["sh"][..],
            &["/bin/sh", "-c"],
            &["init"],
            &["sh", "/sbin/init"],
        ] {
            assert!(!wanted(SystemdMode::True, no), "{no:?}");
            assert!(wanted(SystemdMode::Always, no));
        }
    }

    #[test]
    fn ids_of_machines() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(uuid(&id), "01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!(uuid("short"), "short");
    }
}
