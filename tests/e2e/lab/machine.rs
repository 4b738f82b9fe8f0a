//! This machine with something changed: commands in a mount namespace of their own, in which root has been at work.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;

use super::program::Running;
use super::{Output, Rcon, lab, script, skip};

/// A changed machine.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// The shell script of root that changes it.
    pub change: &'a str,
    /// Words in front of the command, for the user to run.
    pub before: &'a [&'a str],
    /// Words in front of the command, for root to run, before it becomes the user.
    pub around: &'a [&'a str],
    /// The command is root's, as it is in most containers.
    pub root: bool,
}

impl<'a> Machine<'a> {
    /// One that `change` has been at work on.
    pub fn with(change: &'a str) -> Self {
        Self {
            change,
            before: &[],
            around: &[],
            root: false,
        }
    }

    /// Runs a command of rcon there.
    #[track_caller]
    pub fn run(self, t: &Rcon, args: &[&str]) -> Output {
        let user = if self.root { 0 } else { t.user.uid }.to_string();
        let group = if self.root { 0 } else { t.user.gid }.to_string();
        let script = format!("set -e; {}\nexec \"$@\"", self.change);
        let program = t.program.to_str().unwrap();
        let words = [
            &["unshare", "--mount", "--propagation", "private"][..],
            &["sh", "-c", &script, "sh"],
            self.around,
            &["setpriv", "--reuid", &user, "--regid", &group],
            &["--clear-groups", "--inh-caps=-all", "--"],
            self.before,
            &[program],
            args,
        ]
        .concat();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let mut command = t.command_of(&words);
        command.uid(0).gid(0);
        Running::start(command, Stdio::null()).wait()
    }
}

/// Whether scenarios that change the machine can be had.
pub fn can_change() -> bool {
    if !lab().root {
        skip("only root can take a part of the machine away");
    }
    lab().root
}

/// An archive of the image `lab.test/busybox:archived`.
pub fn archive() -> PathBuf {
    lab().cache.join("archive/docker.tar")
}

/// What every step of the ladder must be able to do, in whatever network: a container with users.
pub const WORK: &str = "id -u; touch /tmp/x; chown 33 /tmp/x; stat -c %u /tmp/x; su app -s /bin/sh -c 'id -u'; \
                        ls /proc/self/exe; echo >/dev/null";
/// What that prints.
pub const WORKED: &str = "0\n33\n1000\n/proc/self/exe\n";

/// Words of root's that run a command under a filter of system calls: each `NUMBER:ERRNO[:ARGUMENT:MASK]`.
pub fn deny(rules: &[String]) -> Vec<String> {
    let program = script("deny").to_str().unwrap().to_owned();
    let mut words = vec![program];
    words.extend_from_slice(rules);
    words.push("--".into());
    words
}
