//! What every command is given: the global options, resolved, and the engine, opened when first needed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use chrono::Local;
use clap::Args;
use rcon_engine::{Early, Engine, Manager, Paths, trace, wish_for};

use crate::failure::Failure;
use crate::output;

/// The options that go before the command, or after it.
#[derive(Args, Clone, Debug, Default)]
pub struct GlobalArgs {
    /// Path to the root directory in which data, including images, is stored
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// Path to the 'run directory' where all state information is stored
    #[arg(long)]
    pub runroot: Option<PathBuf>,
    /// Path of the folder of Docker's config.json, of which only the credentials are read
    #[arg(long, value_name = "string")]
    pub config: Option<PathBuf>,
    /// Who makes cgroups ("cgroupfs"|"systemd"); whoever can when nothing is said
    #[arg(long, value_name = "string")]
    pub cgroup_manager: Option<String>,
    /// How the layers of a container become one tree: the best way that works (overlay), or copies (vfs)
    #[arg(long, value_name = "string")]
    pub storage_driver: Option<String>,
    /// An option of the storage: overlay.mount_program=PATH of fuse-overlayfs, or overlay.imagestore=PATH of a store that is only read
    #[arg(long, value_name = "stringArray")]
    pub storage_opt: Vec<String>,
    /// Log messages above specified level (trace, debug, info, warn, warning, error, fatal, panic)
    #[arg(long, value_name = "string")]
    pub log_level: Option<String>,
}

impl GlobalArgs {
    /// These options, with those of `later` where it has any.
    pub fn overlaid(self, later: GlobalArgs) -> GlobalArgs {
        GlobalArgs {
            root: later.root.or(self.root),
            runroot: later.runroot.or(self.runroot),
            config: later.config.or(self.config),
            cgroup_manager: later.cgroup_manager.or(self.cgroup_manager),
            storage_driver: later.storage_driver.or(self.storage_driver),
            storage_opt: [self.storage_opt, later.storage_opt].concat(),
            log_level: later.log_level.or(self.log_level),
        }
    }
}

/// How much is said on standard error beside failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// `error`, `fatal` and `panic`: no warnings.
    Error,
    /// The default.
    Warn,
    /// What may interest.
    Info,
    /// What helps to find a fault.
    Debug,
}

impl Level {
    fn parse(text: &str) -> Result<Level, Failure> {
        match text.to_ascii_lowercase().as_str() {
            "panic" | "fatal" | "error" => Ok(Level::Error),
            "warn" | "warning" => Ok(Level::Warn),
            "info" => Ok(Level::Info),
            "debug" | "trace" => Ok(Level::Debug),
            _ => Err(Failure::new(format!(
                "log level {text:?} is not supported, choose from: trace, debug, info, warn, warning, error, fatal, panic"
            ))),
        }
    }
}

/// What a command works with.
#[derive(Debug)]
pub struct Context {
    globals: GlobalArgs,
    level: Level,
    /// The whole command line, the program's name first.
    pub argv: Vec<OsString>,
    /// The command as it was called, such as `rcon container ls`.
    pub name: String,
    /// What was begun before the command line was read.
    early: Mutex<Option<Early>>,
}

impl Context {
    /// Sees to it that the command runs inside of `rcon unshare`.
    ///
    /// # Errors
    /// When it does not, in podman's words.
    pub fn inside_unshare(&self) -> Result<(), Failure> {
        match rustix::process::geteuid().is_root() {
            true => Ok(()),
            false => Err(Failure::new(format!(
                "cannot run command {:?} in rootless mode, must execute `rcon unshare` first",
                self.name
            ))),
        }
    }

    /// Resolves the global options.
    ///
    /// # Errors
    /// For an unknown log level, or a cgroup manager that is neither of the two.
    pub fn new(globals: GlobalArgs, argv: Vec<OsString>, name: String) -> Result<Context, Failure> {
        let level = globals
            .log_level
            .as_deref()
            .map_or(Ok(Level::Warn), Level::parse)?;
        if level >= Level::Debug {
            trace::enable();
            trace::mark("command line read");
        }
        if let Some(other) = &globals.cgroup_manager
            && !["", "cgroupfs", "systemd"].contains(&other.as_str())
        {
            return Err(Failure::new(format!(
                "unsupported cgroup manager {other:?}: must be one of \"cgroupfs\" or \"systemd\""
            )));
        }
        if let Some(folder) = &globals.config {
            rcon_engine::image::auth::set_docker_config(folder.clone());
        }
        Ok(Context {
            globals,
            level,
            argv,
            name,
            early: Mutex::new(None),
        })
    }

    /// The same, with what has been begun already.
    pub fn with_early(self, early: Option<Early>) -> Context {
        Context {
            early: Mutex::new(early),
            ..self
        }
    }

    /// What has been begun already, once.
    pub fn take_early(&self) -> Option<Early> {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        early.take()
    }

    /// `--cgroup-manager`, or what a configuration file has for it.
    pub fn cgroup_manager(&self, usual: Option<&str>) -> Manager {
        match self.globals.cgroup_manager.as_deref() {
            Some("systemd") => Manager::Systemd,
            Some("cgroupfs") => Manager::Cgroupfs,
            // The usual word of configuration files: whoever can.
            _ if usual == Some("cgroupfs") => Manager::Cgroupfs,
            _ => Manager::Auto,
        }
    }

    /// Finds the directories without opening anything.
    ///
    /// # Errors
    /// As [`Paths::detect`].
    pub fn paths(&self) -> Result<Paths, Failure> {
        let mut paths = Paths::detect(
            self.globals.root.as_deref(),
            self.globals.runroot.as_deref(),
        )?;
        if let Some(driver) = &self.globals.storage_driver {
            wish_for(&mut paths.wish, driver)?;
        }
        for option in &self.globals.storage_opt {
            paths.storage_option(option)?;
        }
        Ok(paths)
    }

    /// Opens the engine.
    ///
    /// # Errors
    /// As [`Paths::detect`] and [`Engine::open`].
    pub fn engine(&self) -> Result<Engine, Failure> {
        self.engine_after(None)
    }

    /// The same, after something was begun.
    ///
    /// # Errors
    /// As [`Context::engine`].
    pub fn engine_after(&self, early: Option<&Early>) -> Result<Engine, Failure> {
        let paths = self.paths()?;
        let engine = match early {
            Some(early) => Engine::open_after(paths, early)?,
            None => Engine::open(paths)?,
        };
        trace::mark("store opened");
        self.log(Level::Debug, || {
            let paths = engine.paths();
            format!(
                "root {}, run root {}",
                paths.root.display(),
                paths.runroot.display()
            )
        });
        self.log(Level::Debug, || format!("ids: {:?}", engine.maps()));
        Ok(engine)
    }

    /// Says something on standard error if the level allows.
    pub fn log(&self, level: Level, message: impl FnOnce() -> String) {
        if level > self.level {
            return;
        }
        let word = match level {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
        };
        let time = Local::now().format("%Y-%m-%dT%H:%M:%S%:z");
        output::error_line(
            &format!("time=\"{time}\" level={word}"),
            &format!("msg={:?}", message()),
        );
    }

    /// Says where the time went, if that is wanted (docs/architecture.md, Start-up).
    pub fn log_trace(&self) {
        for line in output::trace_lines() {
            self.log(Level::Debug, || line);
        }
    }

    /// Warns.
    pub fn warn(&self, message: impl Into<String>) {
        self.log(Level::Warn, || message.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_podmans() {
        for word in [
            "trace", "debug", "info", "warn", "warning", "error", "fatal", "panic", "INFO",
        ] {
            assert!(Level::parse(word).is_ok(), "{word}");
        }
        assert!(Level::parse("loud").is_err());
        assert!(Level::Warn < Level::Debug);
    }

    #[test]
    fn later_options_win() {
        let early = GlobalArgs {
            root: Some("/a".into()),
            log_level: Some("info".into()),
            ..GlobalArgs::default()
        };
        let late = GlobalArgs {
            root: Some("/b".into()),
            ..GlobalArgs::default()
        };
        let both = early.overlaid(late);
        assert_eq!(
            (both.root, both.log_level.as_deref()),
            (Some("/b".into()), Some("info"))
        );
    }
}
