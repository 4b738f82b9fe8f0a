//! The options before the command.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use chrono::{SecondsFormat, Utc};
use rcon_launch::cgroup::Manager;
use rcon_launch::oci::Runtime;
use rcon_sys::trace;

use crate::failure::Failure;
use crate::output;

/// The options that every command has.
#[derive(Debug, Default)]
pub struct Globals {
    root: Option<PathBuf>,
    log: Option<PathBuf>,
    json: bool,
    debug: bool,
    systemd_cgroup: bool,
}

impl Globals {
    /// Takes them from the front of the words; what is left begins with the command.
    pub fn take(words: &[OsString]) -> Result<(Globals, &[OsString]), Failure> {
        let mut globals = Globals::default();
        let mut rest = words;
        while let Some((word, after)) = rest.split_first() {
            let word = word.to_string_lossy().into_owned();
            if !word.starts_with('-') {
                break;
            }
            rest = after;
            let (name, inline) = match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            // One dash or two, as Go has it.
            let name = name.trim_start_matches('-').to_owned();
            let switch = match inline.as_deref() {
                None | Some("true") => Some(true),
                Some("false") => Some(false),
                Some(_) => None,
            };
            match (name.as_str(), switch) {
                ("debug", Some(on)) => globals.debug = on,
                ("systemd-cgroup", Some(on)) => globals.systemd_cgroup = on,
                ("help" | "h", Some(true)) => {
                    output::print(&super::help())?;
                    return Err(Failure::silent(0));
                }
                ("version" | "v", Some(true)) => {
                    output::print(&super::version())?;
                    return Err(Failure::silent(0));
                }
                (
                    "root" | "log" | "log-format" | "rootless" | "cgroup-manager" | "log-level",
                    _,
                ) => {
                    let value = match inline {
                        Some(value) => value,
                        None => {
                            let (value, after) = rest.split_first().ok_or_else(|| {
                                Failure::new(format!("flag needs an argument: --{name}"))
                            })?;
                            rest = after;
                            value.to_string_lossy().into_owned()
                        }
                    };
                    globals.set(&name, value)?;
                }
                _ => {
                    return Err(Failure::new(format!("unknown flag: --{name}"))
                        .hint("`rcon oci --help` lists the options"));
                }
            }
        }
        Ok((globals, rest))
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), Failure> {
        let wrong = || Failure::new(format!("invalid value {value:?} for --{name}"));
        match name {
            "root" => self.root = Some(value.into()),
            "log" => self.log = Some(value.into()),
            "log-format" => {
                self.json = match value.as_str() {
                    "json" => true,
                    "text" => false,
                    _ => return Err(wrong()),
                }
            }
            "log-level" => match value.as_str() {
                "debug" => self.debug = true,
                "error" | "warning" | "warn" | "info" => {}
                _ => return Err(wrong()),
            },
            "cgroup-manager" => match value.as_str() {
                "systemd" => self.systemd_cgroup = true,
                "cgroupfs" => {}
                _ => return Err(wrong()),
            },
            // Whether the caller is root is seen, and need not be said.
            _ => match value.as_str() {
                "auto" | "true" | "false" => {}
                _ => return Err(wrong()),
            },
        }
        Ok(())
    }

    /// The runtime with its folder.
    pub fn runtime(&self) -> Result<Runtime, Failure> {
        let root = match &self.root {
            Some(root) => std::path::absolute(root)
                .map_err(|error| Failure::new(format!("--root: {error}")))?,
            None => default_root()?,
        };
        if self.debug {
            trace::enable();
            trace::mark("command line read");
        }
        self.debug(|| format!("root {}", root.display()));
        Ok(Runtime::new(root))
    }

    /// Who makes cgroups.
    pub fn manager(&self) -> Manager {
        match self.systemd_cgroup {
            true => Manager::Systemd,
            false => Manager::Cgroupfs,
        }
    }

    /// Says something with `--debug`.
    pub fn debug(&self, text: impl FnOnce() -> String) {
        if self.debug {
            let text = text();
            self.log("debug", &text);
            output::error_line("debug:", &text);
        }
    }

    /// Says where the time went, with `--debug` (docs/architecture.md, Start-up).
    pub fn log_trace(&self) {
        trace::mark("command done");
        for line in output::trace_lines() {
            self.debug(|| line);
        }
    }

    /// Says what was asked for and not given, there and in the log.
    pub fn warn(&self, warnings: &[String]) {
        for warning in warnings {
            self.log("warning", warning);
        }
        super::warn(warnings);
    }

    /// Writes a failure to the log, where engines look for it.
    pub fn log_failure(&self, failure: &Failure) {
        if !failure.message.is_empty() {
            self.log("error", &failure.message);
        }
    }

    fn log(&self, level: &str, text: &str) {
        let Some(path) = &self.log else { return };
        let time = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
        let line = match self.json {
            true => serde_json::json!({"level": level, "msg": text, "time": time}).to_string(),
            false => format!("time={time:?} level={level} msg={text:?}"),
        };
        // A log that cannot be written must not keep anybody from anything.
        if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path) {
            let _ = writeln!(file, "{line}");
        }
    }
}

/// Where containers are kept when nobody says.
fn default_root() -> Result<PathBuf, Failure> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match runtime {
        _ if rustix::process::geteuid().is_root() && own_users() => Ok("/run/rcon".into()),
        Some(dir) => Ok(PathBuf::from(dir).join("rcon-oci")),
        None => Err(Failure::new("XDG_RUNTIME_DIR is not set").hint("say --root DIR")),
    }
}

/// Whether root is the machine's: not of a user namespace that an engine has made for its user.
fn own_users() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}
