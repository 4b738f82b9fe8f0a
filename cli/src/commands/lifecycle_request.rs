//! What the options of `run` and `create` mean that say what happens around a container's process: health checks, the log,
//! notices to systemd, files with numbers of processes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcon_engine::bundle::parse;
use rcon_engine::{
    Health, HealthChanges, HealthCheck, Lifecycle, LogDriver, LogOptions, OnUnhealthy, SdNotify,
    StartupCheck,
};

use super::container_args::ContainerArgs;
use crate::failure::{Failure, errno_text};
use crate::times;

/// Reads them.
///
/// # Errors
/// For what cannot be, in podman's words.
pub fn lifecycle(args: &ContainerArgs) -> Result<(Lifecycle, HealthChanges), Failure> {
    let (health, changes) = health(args)?;
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
    std::path::absolute(path).map_err(|e| {
        Failure::new(format!(
            "cannot find {}: {}",
            path.display(),
            errno_text(&e)
        ))
    })
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
            parse::shm_size(value).ok().flatten().ok_or_else(|| {
                Failure::new(format!(
                    "invalid log option {name}: {value:?} is not a size"
                ))
            })
        };
        match name.to_ascii_lowercase().as_str() {
            "driver" => options.driver = LogDriver::parse(value).map_err(Failure::new)?,
            "path" => options.path = Some(absolute(Path::new(value))?),
            "max-size" => options.max_size = Some(size()?),
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

fn health(args: &ContainerArgs) -> Result<(Health, HealthChanges), Failure> {
    let said = args.health_cmd.as_deref();
    if args.no_healthcheck && said.is_some() {
        return Err(Failure::new(
            "cannot specify both --no-healthcheck and --health-cmd",
        ));
    }
    let mut changes = HealthChanges {
        none: args.no_healthcheck,
        interval: args
            .health_interval
            .as_deref()
            .map(|word| interval("interval", word))
            .transpose()?,
        timeout: args
            .health_timeout
            .as_deref()
            .map(|word| limit("timeout", word))
            .transpose()?,
        start_period: args
            .health_start_period
            .as_deref()
            .map(|word| length("start-period", word))
            .transpose()?,
        retries: args.health_retries,
    };
    if changes.retries == Some(0) {
        return Err(Failure::new("healthcheck-retries must be greater than 0"));
    }
    let mut health = Health {
        on_unhealthy: OnUnhealthy::parse(args.health_on_failure.as_deref().unwrap_or_default())
            .map_err(Failure::new)?,
        max_log_count: args.health_max_log_count,
        max_log_size: args.health_max_log_size,
        ..Health::default()
    };
    if let Some(text) = said {
        match HealthCheck::parse_test(text).map_err(Failure::new)? {
            Some(test) => health.check = Some(HealthCheck::new(test)),
            None => changes.none = true,
        }
    }
    if let Some(text) = args.health_startup_cmd.as_deref() {
        let test = HealthCheck::parse_test(text).map_err(Failure::new)?;
        let mut check = HealthCheck::new(test.ok_or_else(|| {
            Failure::new("must define a healthcheck command for all healthchecks")
        })?);
        if let Some(word) = args.health_startup_interval.as_deref() {
            check.interval = interval("startup-interval", word)?;
        }
        if let Some(word) = args.health_startup_timeout.as_deref() {
            check.timeout = limit("startup-timeout", word)?;
        }
        check.retries = args.health_startup_retries.unwrap_or(0);
        health.startup = Some(StartupCheck {
            check,
            successes: args.health_startup_success.unwrap_or(0),
        });
    } else if args.health_startup_interval.is_some()
        || args.health_startup_timeout.is_some()
        || args.health_startup_retries.is_some()
        || args.health_startup_success.is_some()
    {
        return Err(Failure::new(
            "must define a startup healthcheck command (--health-startup-cmd) for the other options of it",
        ));
    }
    Ok((health, changes))
}

/// A length of time; `disable` is none.
fn interval(name: &str, word: &str) -> Result<Duration, Failure> {
    match word {
        "disable" | "0" => Ok(Duration::ZERO),
        word => length(name, word),
    }
}

fn limit(name: &str, word: &str) -> Result<Duration, Failure> {
    match length(name, word)? {
        Duration::ZERO => Err(Failure::new(format!(
            "healthcheck-{name} must be at least 1 second"
        ))),
        time => Ok(time),
    }
}

fn length(name: &str, word: &str) -> Result<Duration, Failure> {
    let time = match word {
        "0" => Some(Duration::ZERO),
        word => times::duration(word).and_then(|time| time.to_std().ok()),
    };
    time.ok_or_else(|| {
        Failure::new(format!(
            "invalid healthcheck-{name}: time: invalid duration {word:?}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

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
    }
}
