//! What podman has and rcon does not have yet: refused by name, so that nobody takes it for a typing error.
//!
//! What is built leaves these lists (a test sees to it).

/// podman's commands.
pub const COMMANDS: &[&str] = &[
    "auto-update",
    "build",
    "generate",
    "init",
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
    "container init",
    "container mount",
    "container restore",
    "container runlabel",
    "container unmount",
    "container umount",
    "image build",
    "image scp",
    "image sign",
    "image trust",
    "volume mount",
    "volume reload",
    "volume unmount",
    "system connection",
    "system migrate",
    "system renumber",
    "system service",
];

const GLOBAL: &str = "--config --conmon --connection -c --events-backend --hooks-dir --identity \
    --imagestore --module --namespace --network-cmd-path --network-config-dir --noout -r --remote --runtime --runtime-flag --ssh \
    --syslog --tmpdir --transient-store --url --volumepath";

const RUN: &str = "--cpu-rt-period --cpu-rt-runtime \
    --decryption-key \
    --disable-content-trust --gidmap --gpus \
    --health-log-destination --hosts-file --init-ctr --ip --ip6 --mac-address \
    --network-alias --pod \
    --pod-id-file --rdt-class --requires --rmi --rootfs --seccomp-policy \
    --subgidname --subuidname --uidmap";

const OTHERS: &[(&str, &str)] = &[
    ("exec", "--cidfile --no-session"),
    ("info", "-D --debug"),
    ("inspect", "-s --size"),
    ("login", "--compat-auth-file --secret"),
    ("logout", "--compat-auth-file"),
    ("logs", "--color"),
    ("ps", PS),
    ("ls", PS),
    ("pull", "--decryption-key --disable-content-trust"),
    ("prune", "--build-cache --external"),
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
    ("update", "--cpu-rt-period --cpu-rt-runtime --restart"),
];

const PS: &str = "--external --ns -p --pod --sync -w --watch";

/// Whether podman's command (given as `rcon container ls`) has that flag (given as `--pod` or `-p`).
pub fn is_podmans(command: &str, flag: &str) -> bool {
    let has = |list: &str| list.split_whitespace().any(|f| f == flag);
    if has(GLOBAL) {
        return true;
    }
    match command.rsplit(' ').next() {
        Some("run" | "create") => has(RUN),
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
        assert!(is_podmans("rcon container ls", "--pod"));
        assert!(!is_podmans("rcon run", "--foo"));
        assert!(!is_podmans("rcon", "--pod"));
    }

    #[test]
    fn what_rcon_has_is_not_listed() {
        let check = |command: &str, list: &str| {
            let definition = crate::app::find(command).unwrap().definition(command);
            for flag in list.split_whitespace() {
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
                    "ls" => "container ls",
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
}
