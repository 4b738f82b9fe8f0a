//! A cgroup of version 2 of a user's own, as a login session of systemd has one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::service::Service;
use super::{User, lab};

/// Makes the cgroup in a mount namespace where that version is all there is. It may have no controllers, since on a hybrid
/// host the first version has them.
const GIVE: &str = r#"
    set -e
    if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then mount -t cgroup2 cgroup2 /sys/fs/cgroup; fi
    given=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/rcon-e2e-$$
    mkdir "$given"
    chown "$1:$2" "$given" "$given/cgroup.procs" "$given/cgroup.subtree_control" "$given/cgroup.threads"
    echo "$given"
    read -r _ || true
    tries=0
    while [ "$tries" -lt 100 ] && [ -n "$(find "$given" -name cgroup.procs -exec cat {} +)" ]; do
        tries=$((tries + 1)); sleep 0.1
    done
    find "$given" -depth -type d -exec rmdir {} +"#;

/// The cgroup; it goes with this.
pub struct Delegated {
    holder: Service,
    path: PathBuf,
}

impl Delegated {
    /// Gives `user` one; `None` where that cannot be.
    pub fn new(user: &User) -> Option<Delegated> {
        if !lab().root {
            return None;
        }
        let ids = [user.uid.to_string(), user.gid.to_string()];
        let words = ["--mount", "sh", "-c", GIVE, "sh", &ids[0], &ids[1]];
        let mut holder = Service::start(Path::new("unshare"), &words);
        let path = holder.try_wait_for(Duration::from_secs(60), |line| {
            line.starts_with("/sys/fs/cgroup/")
                .then(|| PathBuf::from(line))
        })?;
        Some(Delegated { holder, path })
    }

    /// The process in whose mount namespace it is seen.
    pub fn holder(&self) -> u32 {
        self.holder.pid()
    }

    /// Where it is there.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cgroups of containers in it.
    pub fn containers(&self) -> Vec<String> {
        let inside = self.path.strip_prefix("/").unwrap();
        let here = Path::new("/proc")
            .join(self.holder().to_string())
            .join("root")
            .join(inside);
        let mut found = Vec::new();
        let mut todo = vec![here];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    // What rcon moves its own processes into, where controllers must be enabled.
                    if name != "rcon-aside" {
                        found.push(name);
                    }
                    todo.push(entry.path());
                }
            }
        }
        found
    }
}
