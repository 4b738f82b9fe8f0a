//! What the options of `run` and `create` mean that say what happens around a container's process: health checks, the log,
//! notices to systemd, files with numbers of processes.

use std::path::{Path, PathBuf};

use rcon_engine::bundle::parse;
use rcon_engine::{Health, HealthChanges, Lifecycle, LogDriver, LogOptions, SdNotify};
use rcon_sys::errors::in_words;

use super::container_args::ContainerArgs;
use crate::failure::Failure;

/// Reads them.
///
/// # Errors
/// For what cannot be, in podman's words.
pub fn lifecycle(args: &ContainerArgs) -> Result<(Lifecycle, HealthChanges), Failure> {
    let (health, changes) = args.health.overlay(&Health::default())?;
    let lifecycle = Lifecycle {
        log: log(args)?,
        health,
        timeout: args.timeout.unwrap_or(0),
        sdnotify: match args.sdnotify.as_deref() {
            Some(word) => SdNotify::parse(word).map_err(Failure::new)?,
            None => SdNotify::default(),
        },
        pidfile: args.pidfile.as_deref().map(absolute).transpose()?,
        conmon_pidfile: args.conmon_pidfile.as_deref().map(absolute).transpose()?,
        cidfile: None,
    };
    Ok((lifecycle, changes))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|e| Failure::new(format!("cannot find {}: {}", path.display(), in_words(&e))))
}

fn log(args: &ContainerArgs) -> Result<LogOptions, Failure> {
    let mut options = LogOptions {
        driver: LogDriver::parse(args.log_driver.as_deref().unwrap_or_default())
            .map_err(Failure::new)?,
        ..LogOptions::default()
    };
    for word in &args.log_opt {
        let (name, value) = word.split_once('=').ok_or_else(|| {
            Failure::new(format!(
                "invalid log option {word:?}: it must have the form name=value"
            ))
        })?;
        let size = || {
            parse::bytes(value).map_err(|_| {
                Failure::new(format!(
                    "invalid log option {name}: {value:?} is not a size"
                ))
            })
        };
        match name.to_ascii_lowercase().as_str() {
            "driver" => options.driver = LogDriver::parse(value).map_err(Failure::new)?,
            "path" => options.path = Some(absolute(Path::new(value))?),
            // None at all is no limit.
            "max-size" => options.max_size = Some(size()?).filter(|size| *size > 0),
            "max-file" => {
                options.max_file = value.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
                    Failure::new(format!(
                        "invalid log option max-file: {value:?} is not a number above 0"
                    ))
                })?;
            }
            "tag" => options.tag = Some(value.to_owned()),
            _ => {
                return Err(
                    Failure::new(format!("rcon does not support the log option {name:?}"))
                        .hint("there are max-size, max-file, path and tag"),
                );
            }
        }
    }
    if options.driver == LogDriver::Passthrough && args.tty {
        return Err(Failure::new(
            "the '--log-driver passthrough' option cannot be used with '--tty'",
        ));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;
    use rcon_engine::OnUnhealthy;

    use super::*;

    #[derive(Parser)]
    #[command(disable_help_flag = true)]
    struct Said {
        #[command(flatten)]
        container: ContainerArgs,
    }

    fn said(words: &[&str]) -> Result<(Lifecycle, HealthChanges), Failure> {
        let words = std::iter::once(&"run").chain(words).chain(&["img"]);
        lifecycle(&Said::parse_from(words).container)
    }

    #[test]
    fn health_checks_are_read() {
        let (lifecycle, changes) = said(&[
            "--health-cmd",
            "curl x || exit 1",
            "--health-interval",
            "500ms",
            "--health-retries",
            "2",
            "--health-on-failure",
            "kill",
        ])
        .unwrap();
        assert_eq!(
            lifecycle.health.check.unwrap().test,
            ["CMD-SHELL", "curl x || exit 1"]
        );
        assert_eq!(changes.interval, Some(Duration::from_millis(500)));
        assert_eq!(changes.retries, Some(2));
        assert_eq!(lifecycle.health.on_unhealthy, OnUnhealthy::Kill);
        let (_, changes) = said(&["--health-interval", "disable"]).unwrap();
        assert_eq!(changes.interval, Some(Duration::ZERO));
        assert!(said(&["--health-cmd", "none"]).unwrap().1.none);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (words, message) in [
            (["--health-interval", "x"], "invalid healthcheck-interval"),
            (
                ["--health-timeout", "0"],
                "healthcheck-timeout must be at least",
            ),
            (
                ["--health-retries", "0"],
                "healthcheck-retries must be greater",
            ),
            (["--health-on-failure", "x"], "invalid on-failure action"),
            (["--health-startup-success", "1"], "must define a startup"),
            (["--log-driver", "x"], "invalid log driver"),
            (["--log-opt", "max-size"], "invalid log option"),
            (["--log-opt", "max-size=x"], "invalid log option"),
            (["--log-opt", "max-file=0"], "invalid log option"),
            (
                ["--log-opt", "labels=a"],
                "rcon does not support the log option",
            ),
            (["--sdnotify", "x"], "invalid sdnotify value"),
        ] {
            let failure = said(&words).unwrap_err();
            assert!(failure.message.starts_with(message), "{}", failure.message);
        }
        assert!(said(&["--no-healthcheck", "--health-cmd", "true"]).is_err());
        assert!(said(&["--log-driver=passthrough", "-t"]).is_err());
    }

    #[test]
    fn logs_are_read() {
        let (lifecycle, _) = said(&[
            "--log-driver",
            "json-file",
            "--log-opt",
            "max-size=10m",
            "--log-opt",
            "max-file=3",
        ])
        .unwrap();
        assert_eq!(lifecycle.log.driver, LogDriver::JsonFile);
        assert_eq!(lifecycle.log.max_size, Some(10 << 20));
        assert_eq!(lifecycle.log.max_file, 3);
        let (lifecycle, _) = said(&["--log-opt", "max-size=0"]).unwrap();
        assert_eq!(lifecycle.log.max_size, None);
    }
}
