//! What podman has and rcon does not have yet: refused by name, so that nobody takes it for a typing error.
//!
//! The lists may name what rcon has by now: they are asked only about what no definition knows.

/// podman's commands.
pub const COMMANDS: [&str; 75] = [
    "auto-update",
    "build",
    "commit",
    "cp",
    "diff",
    "events",
    "export",
    "generate",
    "healthcheck",
    "history",
    "init",
    "kube",
    "machine",
    "manifest",
    "mount",
    "network",
    "pause",
    "play",
    "pod",
    "push",
    "save",
    "search",
    "secret",
    "stats",
    "top",
    "unmount",
    "umount",
    "unpause",
    "update",
    "volume",
    "farm",
    "artifact",
    "quadlet",
    "container checkpoint",
    "container cleanup",
    "container clone",
    "container commit",
    "container cp",
    "container diff",
    "container export",
    "container init",
    "container mount",
    "container pause",
    "container prune",
    "container restore",
    "container runlabel",
    "container stats",
    "container top",
    "container unmount",
    "container umount",
    "container unpause",
    "container update",
    "image build",
    "image diff",
    "image history",
    "image mount",
    "image prune",
    "image push",
    "image save",
    "image scp",
    "image search",
    "image sign",
    "image tree",
    "image trust",
    "image unmount",
    "image umount",
    "system check",
    "system connection",
    "system df",
    "system events",
    "system migrate",
    "system prune",
    "system renumber",
    "system reset",
    "system service",
];

const GLOBAL: &str = "--cgroup-manager --config --conmon --connection -c --events-backend --hooks-dir --identity \
    --imagestore --module --namespace --network-cmd-path --network-config-dir --noout -r --remote --runtime --runtime-flag --ssh \
    --storage-driver --storage-opt --syslog --tmpdir --transient-store --url --volumepath";

const RUN: &str = "-a --annotation --arch --attach --authfile --blkio-weight --blkio-weight-device --cert-dir --cgroup-conf \
    --cgroup-parent --cgroupns --cgroups --chrootdirs --conmon-pidfile --cpu-period --cpu-quota --cpu-rt-period \
    --cpu-rt-runtime -c --cpu-shares --cpus --cpuset-cpus --cpuset-mems --creds --decryption-key --device \
    --device-cgroup-rule --device-read-bps --device-read-iops --device-write-bps --device-write-iops \
    --disable-content-trust --dns-option --dns-search --env-host --env-merge --expose --gidmap --gpus --group-add --group-entry \
    --health-cmd --health-interval --health-log-destination --health-max-log-count --health-max-log-size \
    --health-on-failure --health-retries --health-start-period --health-startup-cmd --health-startup-interval \
    --health-startup-retries --health-startup-success --health-startup-timeout --health-timeout --hosts-file --hostuser \
    --http-proxy --image-volume --init-ctr --init-path --intel-rdt-closid --ip --ip6 --ipc --label-file --log-driver --log-opt \
    --mac-address -m --memory --memory-reservation --memory-swap --memory-swappiness --net --network-alias \
    --no-healthcheck --no-hostname --no-hosts --oom-kill-disable --oom-score-adj --os --passwd --passwd-entry --personality \
    --pid --pidfile --pids-limit --pod --pod-id-file --preserve-fd --preserve-fds -q --quiet --rdt-class --read-only-tmpfs \
    --replace --requires --retry --retry-delay --rmi --rootfs --sdnotify --seccomp-policy --secret --shm-size \
    --shm-size-systemd --sig-proxy --subgidname --subuidname --sysctl --systemd --timeout --tls-verify --tz --uidmap \
    --umask --unsetenv --unsetenv-all --userns --uts --variant --volumes-from";

const OTHERS: [(&str, &str); 22] = [
    ("attach", "-l --latest --no-stdin --sig-proxy"),
    (
        "exec",
        "--env-file -l --latest --preserve-fd --preserve-fds --cidfile --no-session",
    ),
    ("images", "-a --all"),
    ("import", "--arch --os --variant"),
    ("info", "-D --debug"),
    ("inspect", "-l --latest -s --size"),
    ("kill", "--cidfile -l --latest"),
    ("load", "--signature-policy"),
    ("login", "--secret --compat-auth-file"),
    ("logout", "--compat-auth-file"),
    ("logs", "--color -l --latest -n --names --until"),
    ("port", "-l --latest"),
    ("ps", "--external --ns -p --pod -s --size --sync -w --watch"),
    (
        "pull",
        "--arch --decryption-key --disable-content-trust --os --retry --retry-delay --variant --policy",
    ),
    ("restart", "--cidfile -f --filter -l --latest --running"),
    ("rm", "--cidfile --depend --filter -i --ignore -l --latest"),
    ("rmi", "-i --ignore --no-prune"),
    ("rm", "-f --filter"),
    ("start", "--all -f --filter -l --latest --sig-proxy"),
    ("stop", "--cidfile -f --filter -i --ignore -l --latest"),
    ("unshare", "--rootless-netns --rootless-cni"),
    (
        "wait",
        "--condition --ignore -i --interval -l --latest --return-on-first",
    ),
];

/// Whether podman's command (given as `rcon container ls`) has that flag (given as `--pod` or `-p`).
pub fn is_podmans(command: &str, flag: &str) -> bool {
    let has = |list: &str| list.split_whitespace().any(|f| f == flag);
    if has(GLOBAL) {
        return true;
    }
    match command.rsplit(' ').next() {
        Some("run" | "create") => has(RUN),
        Some("ls" | "list") => has(if command.contains("image") {
            "-a --all"
        } else {
            "--ns -p --pod -s --size --sync -w --watch"
        }),
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
        assert!(is_podmans("rcon container create", "--cpus"));
        assert!(is_podmans("rcon ps", "--storage-driver"));
        assert!(is_podmans("rcon container ls", "--pod"));
        assert!(!is_podmans("rcon run", "--foo"));
        assert!(!is_podmans("rcon", "--pod"));
    }
}
