//! `exec`.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use rcon_launch::oci::{self, Console, ExecOptions, Runtime};
use rcon_launch::spec::{Capability, LinuxCapabilities, Process, User};

use super::globals::Globals;
use super::{Command, relay};
use crate::failure::{Failure, Outcome};

/// `rcon oci exec`
#[derive(Args, Debug)]
pub struct Exec {
    /// A socket that gets the master of the terminal
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// A file that gets the number of the process
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// The working directory of the program
    #[arg(long)]
    cwd: Option<PathBuf>,
    /// Set an environment variable
    #[arg(short, long)]
    env: Vec<String>,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// The user: UID[:GID]
    #[arg(short, long)]
    user: Option<String>,
    /// Further groups
    #[arg(short = 'g', long)]
    additional_gids: Vec<u32>,
    /// The file with the description of the program
    #[arg(short, long)]
    process: Option<PathBuf>,
    /// Leave the program to itself once it runs
    #[arg(short, long)]
    detach: bool,
    /// A label for SELinux
    #[arg(long)]
    process_label: Option<String>,
    /// A profile of AppArmor
    #[arg(long)]
    apparmor: Option<String>,
    /// Let it gain no privileges
    #[arg(long)]
    no_new_privs: bool,
    /// Add a capability
    #[arg(short, long)]
    cap: Vec<String>,
    /// Pass on so many descriptors, from 3 on
    #[arg(long, default_value_t = 0)]
    preserve_fds: u32,
    /// Put the program into a cgroup that is there below the container's: [CONTROLLER:]PATH
    #[arg(long)]
    cgroup: Vec<String>,
    /// Also in a container that is paused
    #[arg(long)]
    ignore_paused: bool,
    /// The id of the container
    id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Command for Exec {
    fn run(self, runtime: &Runtime, globals: &Globals) -> Outcome {
        // Before anything else is opened, which could be taken for what we were started with.
        let preserve_fds = super::inherited(self.preserve_fds)?;
        let program = self.program(runtime, globals)?;
        let options = ExecOptions {
            pid_file: self.pid_file.clone(),
            preserve_fds,
            cgroups: self.cgroup.clone(),
            ignore_paused: self.ignore_paused,
        };
        let console = match (&self.console_socket, self.detach) {
            (Some(path), _) => Console::Sent(path),
            (None, true) => Console::None,
            (None, false) => Console::Kept,
        };
        if self.detach {
            runtime.exec(&self.id, &program, options, console)?;
            return Ok(0);
        }
        let signals = relay::Signals::take()?;
        let child = runtime.exec(&self.id, &program, options, console)?.child;
        relay::attend(&child.pidfd, child.console.as_ref(), signals)
    }
}

impl Exec {
    /// The program that is asked for: from its file, or the container's own with other words.
    fn program(&self, runtime: &Runtime, globals: &Globals) -> Result<Process, Failure> {
        if let Some(path) = &self.process {
            let text = fs::read(path).map_err(|error| {
                let why = rcon_sys::errors::in_words(&error);
                Failure::new(format!("cannot read {}: {why}", path.display()))
            })?;
            let (program, warnings) = oci::read_json(&text, "")
                .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
            globals.warn(&warnings);
            return Ok(program);
        }
        if self.args.is_empty() {
            return Err(Failure::new("process args cannot be empty"));
        }
        let mut program = runtime.process_of(&self.id)?;
        program
            .set_args(Some(self.args.clone()))
            .set_terminal(Some(self.tty));
        let mut env = program.env().clone().unwrap_or_default();
        env.extend(self.env.iter().cloned());
        program.set_env(Some(env));
        if let Some(cwd) = &self.cwd {
            program.set_cwd(cwd.clone());
        }
        if let Some(words) = &self.user {
            program.set_user(user(words)?);
        }
        if !self.additional_gids.is_empty() {
            let groups = Some(self.additional_gids.clone());
            program.user_mut().set_additional_gids(groups);
        }
        if self.no_new_privs {
            program.set_no_new_privileges(Some(true));
        }
        if let Some(label) = &self.process_label {
            program.set_selinux_label(Some(label.clone()));
        }
        if let Some(profile) = &self.apparmor {
            program.set_apparmor_profile(Some(profile.clone()));
        }
        add_capabilities(&mut program, &self.cap)?;
        Ok(program)
    }
}

/// `UID[:GID]`, digits only: a sign or a blank is no number here.
fn user(words: &str) -> Result<User, Failure> {
    let wrong = || {
        Failure::new(format!(
            "invalid user {words:?}: it is UID[:GID], in digits"
        ))
    };
    let number = |text: &str| rcon_sys::passwd::parse_id(text).ok_or_else(wrong);
    let (uid, gid) = match words.split_once(':') {
        Some((uid, gid)) => (number(uid)?, number(gid)?),
        None => (number(words)?, 0),
    };
    let mut user = User::default();
    user.set_uid(uid).set_gid(gid);
    Ok(user)
}

fn add_capabilities(program: &mut Process, names: &[String]) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    let mut sets = program.capabilities().clone().unwrap_or_else(|| {
        let mut none = LinuxCapabilities::default();
        none.set_bounding(None)
            .set_effective(None)
            .set_permitted(None)
            .set_inheritable(None)
            .set_ambient(None);
        none
    });
    for name in names {
        let upper = name.to_ascii_uppercase();
        let full = match upper.starts_with("CAP_") {
            true => upper,
            false => format!("CAP_{upper}"),
        };
        let capability: Capability = serde_json::from_value(full.clone().into())
            .map_err(|_| Failure::new(format!("{full:?}: unknown capability")))?;
        let with = |set: &Option<std::collections::HashSet<Capability>>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        let (bounding, effective, permitted) = (
            with(sets.bounding()),
            with(sets.effective()),
            with(sets.permitted()),
        );
        sets.set_bounding(bounding)
            .set_effective(effective)
            .set_permitted(permitted);
    }
    program.set_capabilities(Some(sets));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        let both = |words: &str| user(words).map(|user| (user.uid(), user.gid())).ok();
        assert_eq!(both("7"), Some((7, 0)));
        assert_eq!(both("7:8"), Some((7, 8)));
        for bad in [
            "",
            "x",
            "-1",
            "+1",
            "1:",
            ":1",
            "1:x",
            " 1",
            "1 ",
            "4294967295",
            "0x1",
        ] {
            assert_eq!(both(bad), None, "{bad:?}");
        }
    }
}
