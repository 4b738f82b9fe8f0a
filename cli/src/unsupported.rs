//! What podman has and rcon does not have yet: refused by name, so that nobody takes it for a typing error.
//!
//! What is built leaves these lists (a test sees to it).

/// podman's commands.
pub const COMMANDS: &[&str] = &[
    "auto-update",
    "build",
    "compose",
    "generate",
    "kube",
    "machine",
    "manifest",
    "mount",
    "network connect",
    "network create",
    "network disconnect",
    "network prune",
    "network reload",
    "network rm",
    "network update",
    "play",
    "pod",
    "unmount",
    "umount",
    "farm",
    "artifact",
    "quadlet",
    "container checkpoint",
    "container clone",
    "container mount",
    "container restore",
    "container runlabel",
    "container unmount",
    "container umount",
    "image build",
    "image scp",
    "image sign",
    "image trust",
    "volume reload",
    "system connection",
    "system migrate",
    "system renumber",
    "system service",
];

const GLOBAL: &str = "--cdi-spec-dir --conmon --connection -c --events-backend --hooks-dir --identity \
    --imagestore --module --namespace --network-cmd-path --network-config-dir --noout --out -r --remote --runtime --runtime-flag --ssh \
    --syslog --tmpdir --transient-store --url --volumepath";

const RUN: &str = "--cpu-rt-period --cpu-rt-runtime \
    --decryption-key \
    --disable-content-trust --gpus \
    --health-log-destination --init-ctr --ip --ip6 --mac-address \
    --network-alias --pod \
    --pod-id-file --rdt-class --requires --rootfs --seccomp-policy";

const OTHERS: &[(&str, &str)] = &[
    ("check", "-m --max --repair-lossy"),
    ("create", "-a --attach --rmi"),
    ("exec", "--no-session"),
    ("login", "--compat-auth-file"),
    ("logout", "--compat-auth-file"),
    ("logs", "--color"),
    ("pull", "--decryption-key --disable-content-trust"),
    ("prune", "--build --build-cache --external"),
    ("cleanup", "--exec --stopped-only"),
    ("commit", "--config"),
    (
        "push",
        "--all --disable-content-trust --encrypt-layer --encryption-key --remove-signatures \
         --sign-by --sign-by-sigstore --sign-by-sigstore-private-key --sign-passphrase-file --signature-policy",
    ),
    ("rm", "--depend"),
    ("save", "--signature-policy"),
    ("tree", "--whatrequires"),
    ("unshare", "--rootless-netns"),
    (
        "update",
        "--cpu-rt-period --cpu-rt-runtime --health-log-destination --ulimit",
    ),
];

/// What to do instead of a command that rcon does not have.
pub fn instead(command: &str) -> &'static str {
    match command {
        "build" | "image build" | "farm" => {
            "buildah builds images without a daemon, as podman does: `buildah build -t NAME . && buildah push NAME \
             oci-archive:FILE`, then `rcon load -i FILE`"
        }
        "manifest" | "artifact" => "`buildah manifest` or `skopeo` do it",
        "pod" | "kube" | "play" | "compose" => {
            "containers that belong together share a network by --network container:NAME"
        }
        "generate" | "quadlet" | "auto-update" => {
            "a unit of systemd runs a container with ExecStart=rcon run --rm --name NAME IMAGE (Type=notify)"
        }
        "machine" | "system connection" | "system service" => {
            "there is no daemon and no machine between: rcon runs containers where it is called"
        }
        "network connect" | "network create" | "network disconnect" | "network prune"
        | "network reload" | "network rm" | "network update" => {
            "containers reach one another over published ports, or share a network by --network container:NAME"
        }
        "mount" | "unmount" | "umount" | "container mount" | "container unmount"
        | "container umount" => {
            "`rcon cp`, `rcon export` and `rcon diff` reach the files of a container"
        }
        "image scp" => "`rcon save` and `rcon load` over ssh do it",
        "container clone" => {
            "`rcon inspect --format '{{.Config.CreateCommand}}'` says how it was made"
        }
        "container checkpoint" | "container restore" => {
            "`rcon commit` keeps its files, `rcon pause` its processes"
        }
        _ => "docs/podman.md says what else there is",
    }
}

/// Whether podman's command (given as `rcon container ls`) has that flag (given as `--pod` or `-p`).
pub fn is_podmans(command: &str, flag: &str) -> bool {
    let has = |list: &str| list.split_whitespace().any(|f| f == flag);
    if has(GLOBAL) {
        return true;
    }
    match command.rsplit(' ').next() {
        Some("run" | "create") if has(RUN) => true,
        // Secrets are made too.
        Some("create") if command.contains("secret") => flag == "--driver-opts",
        Some("create") if command.contains("volume") => false,
        Some(word) => OTHERS
            .iter()
            .any(|(command, list)| *command == word && has(list)),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podmans_flags_are_known() {
        assert!(is_podmans("rcon run", "--pod"));
        assert!(is_podmans("rcon container create", "--cpu-rt-runtime"));
        assert!(is_podmans("rcon ps", "--volumepath"));
        assert!(is_podmans("rcon unshare", "--rootless-netns"));
        assert!(is_podmans("rcon create", "-a") && !is_podmans("rcon run", "-a"));
        assert!(is_podmans("rcon secret create", "--driver-opts"));
        assert!(!is_podmans("rcon volume create", "-a"));
        assert!(!is_podmans("rcon run", "--foo"));
        assert!(!is_podmans("rcon", "--pod"));
    }

    #[test]
    fn what_rcon_has_is_not_listed() {
        let check = |command: &str, list: &str| {
            let definition = crate::app::find(command).unwrap().definition(command);
            for flag in list.split_whitespace() {
                if (command, flag) == ("commit", "--config") {
                    // Another one than that which every command has.
                    continue;
                }
                let known = definition
                    .get_arguments()
                    .any(|arg| match flag.strip_prefix("--") {
                        Some(long) => arg.get_long() == Some(long),
                        None => arg.get_short() == flag.chars().nth(1),
                    });
                assert!(!known, "{command} {flag}");
            }
        };
        check("run", RUN);
        check("run", &GLOBAL.replace("-c ", ""));
        for &(command, list) in OTHERS {
            check(
                match command {
                    "check" => "system check",
                    "cleanup" => "container cleanup",
                    "prune" => "image prune",
                    "tree" => "image tree",
                    command => command,
                },
                list,
            );
        }
        for command in COMMANDS {
            assert!(crate::app::find(command).is_none(), "{command}");
        }
    }
    /// Each command of podman's with its flags, as Debian's podman and podman 5 have them.
    fn podmans() -> Vec<(&'static str, Vec<&'static str>)> {
        let files = [
            include_str!("../../tests/compat/podman-4.3.flags"),
            include_str!("../../tests/compat/podman-5.flags"),
        ];
        let lines = files.into_iter().flat_map(str::lines);
        lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(command, flags)| (command, flags.split_whitespace().collect()))
            .collect()
    }

    fn has(definition: &clap::Command, flag: &str) -> bool {
        definition
            .get_arguments()
            .any(|arg| match flag.strip_prefix("--") {
                Some(long) => {
                    arg.get_long() == Some(long)
                        || arg.get_all_aliases().is_some_and(|all| all.contains(&long))
                }
                None => arg.get_short() == flag.chars().nth(1),
            })
    }

    #[test]
    fn every_flag_of_podmans_is_there_or_refused_by_name() {
        let mut unknown = Vec::new();
        for (command, flags) in podmans() {
            let definition = match command {
                "podman" => crate::app::root_definition(),
                command => match crate::app::find(command) {
                    Some(entry) => entry.definition(command),
                    None => {
                        let first = command.split(' ').next().unwrap_or_default();
                        if ![command, first].iter().any(|name| COMMANDS.contains(name))
                            && !COMMANDS
                                .iter()
                                .any(|name| command.starts_with(&format!("{name} ")))
                        {
                            unknown.push(command.to_owned());
                        }
                        continue;
                    }
                },
            };
            let full = match command {
                "podman" => "rcon".to_owned(),
                command => format!("rcon {command}"),
            };
            for flag in flags {
                if !has(&definition, flag) && !is_podmans(&full, flag) {
                    unknown.push(format!("{command} {flag}"));
                }
            }
        }
        assert!(unknown.is_empty(), "{}", unknown.join("\n"));
    }

    #[test]
    fn every_difference_is_in_the_document() {
        let document = include_str!("../../docs/podman.md");
        let mut missing = Vec::new();
        let lists = [GLOBAL, RUN]
            .into_iter()
            .chain(OTHERS.iter().map(|(_, list)| *list));
        let refused = lists
            .flat_map(str::split_whitespace)
            .filter(|f| f.starts_with("--"));
        for word in refused.chain(COMMANDS.iter().copied()) {
            let first = word.split(' ').next().unwrap_or_default();
            if ![word, first]
                .iter()
                .any(|name| document.contains(&format!("`{name}`")))
            {
                missing.push(word.to_owned());
            }
        }
        // And what only rcon has.
        let podmans = podmans();
        for entry in crate::commands::COMMANDS {
            let flags: Vec<&str> = podmans
                .iter()
                .filter(|(command, _)| entry.names.contains(command))
                .flat_map(|(_, flags)| flags.iter().copied())
                .collect();
            if flags.is_empty()
                && podmans
                    .iter()
                    .all(|(command, _)| !entry.names.contains(command))
            {
                if !document.contains(&format!("`{}`", entry.names[0])) {
                    missing.push(format!("only rcon has {}", entry.names[0]));
                }
                continue;
            }
            for arg in entry.definition(entry.names[0]).get_arguments() {
                let Some(long) = arg.get_long().filter(|_| !arg.is_hide_set()) else {
                    continue;
                };
                let flag = format!("--{long}");
                if long != "help"
                    && !flags.contains(&flag.as_str())
                    && !document.contains(&format!("`{flag}`"))
                {
                    missing.push(format!("only rcon has {} {flag}", entry.names[0]));
                }
            }
        }
        missing.sort();
        missing.dedup();
        assert!(
            missing.is_empty(),
            "not in docs/podman.md:\n{}",
            missing.join("\n")
        );
    }
}
