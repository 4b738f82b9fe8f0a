//! The environment of a container's first process.

use crate::parse::set;
use crate::{ImageConfig, Options};

/// The search path where neither image nor user gives one.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Lists the environment: defaults, then the caller's (if asked for), the image's, the user's; what comes later wins.
///
/// `HOME` is missing: whoever resolves the user knows it.
/// `machine` is the id of the container, where systemd is to find it.
pub(crate) fn list(
    image: &ImageConfig,
    options: &Options,
    hostname: &str,
    machine: Option<&str>,
) -> Vec<String> {
    let mut env: Vec<(String, String)> = Vec::new();
    set(&mut env, "PATH", PATH);
    if options.tty {
        set(&mut env, "TERM", "xterm");
    }
    // Not our own name: scripts, systemd and test frameworks that ask "am I in a container that behaves like podman's?"
    // compare with this very word, and here the answer is yes.
    set(&mut env, "container", "podman");
    for (name, value) in &options.host_env {
        set(&mut env, name, value);
    }
    // An entry without "=" takes nothing from the caller: it is the image that speaks, not the user.
    for (name, value) in image.env.iter().filter_map(|e| e.split_once('=')) {
        if !name.is_empty() {
            set(&mut env, name, value);
        }
    }
    if options.unsetenv_all {
        env.clear();
    }
    env.retain(|(name, _)| !options.unsetenv.contains(name));
    for entry in &options.env_merge {
        // What it is made of are the image's variables, without what is taken away.
        let merged = crate::parse::expand(entry, &env);
        if let Some((name, value)) = merged.split_once('=').filter(|(name, _)| !name.is_empty()) {
            set(&mut env, name, value);
        }
    }
    if let Some(id) = machine {
        set(&mut env, "container_uuid", &crate::systemd::uuid(id));
    }
    for (name, value) in &options.env {
        set(&mut env, name, value);
    }
    if !env.iter().any(|(name, _)| name == "HOSTNAME") {
        set(&mut env, "HOSTNAME", hostname);
    }
    // A NUL would cut the entry short in the program's eyes.
    env.iter()
        .map(|(name, value)| format!("{name}={value}"))
        .filter(|e| !e.contains('\0'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(a, b)| (a.to_string(), b.to_string()))
            .collect()
    }

    fn image(env: &[&str]) -> ImageConfig {
        ImageConfig {
            env: env.iter().map(|e| e.to_string()).collect(),
            ..ImageConfig::default()
        }
    }

    #[test]
    fn defaults() {
        let env = list(&image(&[]), &Options::default(), "h", None);
        assert_eq!(
            env,
            [&format!("PATH={PATH}"), "container=podman", "HOSTNAME=h"]
        );
        let tty = Options {
            tty: true,
            ..Options::default()
        };
        assert!(list(&image(&[]), &tty, "h", None).contains(&"TERM=xterm".to_string()));
        assert!(list(&image(&["TERM=vt100"]), &tty, "h", None).contains(&"TERM=vt100".to_string()));
    }

    #[test]
    fn what_comes_later_wins_and_images_take_nothing() {
        let options = Options {
            host_env: pairs(&[("A", "host"), ("B", "host"), ("AWS_SECRET", "s")]),
            env: pairs(&[("A", "user"), ("HOSTNAME", "me"), ("container", "x")]),
            ..Options::default()
        };
        let env = list(
            &image(&[
                "A=image",
                "B=image",
                "PATH=/p",
                "AWS_SECRET_2",
                "=x",
                "Z=a\0b",
                "HOME=/h",
            ]),
            &options,
            "h",
            None,
        );
        assert_eq!(
            env,
            [
                "PATH=/p",
                "container=x",
                "A=user",
                "B=image",
                "AWS_SECRET=s",
                "HOME=/h",
                "HOSTNAME=me"
            ]
        );
    }

    #[test]
    fn unsetting() {
        let options = Options {
            env: pairs(&[("A", "1")]),
            unsetenv: vec!["PATH".into(), "A".into()],
            ..Options::default()
        };
        assert_eq!(
            list(&image(&["F=i"]), &options, "h", None),
            ["container=podman", "F=i", "A=1", "HOSTNAME=h"]
        );
        let options = Options {
            env: pairs(&[("A", "1")]),
            unsetenv_all: true,
            ..Options::default()
        };
        assert_eq!(
            list(&image(&["F=i"]), &options, "h", None),
            ["A=1", "HOSTNAME=h"]
        );
    }
}
