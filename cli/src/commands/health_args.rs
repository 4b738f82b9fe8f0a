//! Health checks, as `run`, `create` and `update` take them.

use std::time::Duration;

use clap::Args;
use rcon_engine::{Health, HealthChanges, HealthCheck, OnUnhealthy, StartupCheck};

use crate::failure::Failure;
use crate::times;

/// What is run to see how a container does, and what becomes of it.
#[derive(Args, Debug, Default)]
pub struct HealthArgs {
    /// Set a healthcheck command for the container ('none' disables the existing healthcheck)
    #[arg(long)]
    pub health_cmd: Option<String>,
    /// Set an interval for the healthchecks (a value of disable results in no automatic timer setup) (default "30s")
    #[arg(long)]
    pub health_interval: Option<String>,
    /// Set maximum number of attempts in the HealthCheck log file ('0' value means an infinite number) (default 5)
    #[arg(long, value_name = "uint")]
    pub health_max_log_count: Option<u32>,
    /// Set maximum length in characters of stored HealthCheck log ('0' value means an infinite log length) (default 500)
    #[arg(long, value_name = "uint")]
    pub health_max_log_size: Option<u32>,
    /// Action to take once the container turns unhealthy ("kill"|"none"|"restart"|"stop") (default "none")
    #[arg(long)]
    pub health_on_failure: Option<String>,
    /// The number of retries allowed before a healthcheck is considered to be unhealthy (default 3)
    #[arg(long, value_name = "uint")]
    pub health_retries: Option<u32>,
    /// The initialization time needed for a container to bootstrap (default "0s")
    #[arg(long)]
    pub health_start_period: Option<String>,
    /// Set a startup healthcheck command for the container
    #[arg(long)]
    pub health_startup_cmd: Option<String>,
    /// Set an interval for the startup healthcheck (default "30s")
    #[arg(long)]
    pub health_startup_interval: Option<String>,
    /// Set the maximum number of retries before the startup healthcheck will restart the container
    #[arg(long, value_name = "uint")]
    pub health_startup_retries: Option<u32>,
    /// Set the number of consecutive successes before the startup healthcheck is marked as successful (default 0)
    #[arg(long, value_name = "uint")]
    pub health_startup_success: Option<u32>,
    /// Set the maximum amount of time that the startup healthcheck may take (default "30s")
    #[arg(long)]
    pub health_startup_timeout: Option<String>,
    /// The maximum time allowed to complete the healthcheck before an interval is considered failed (default "30s")
    #[arg(long)]
    pub health_timeout: Option<String>,
    /// Disable healthchecks on container
    #[arg(long)]
    pub no_healthcheck: bool,
}

impl HealthArgs {
    /// What is said, over what there is; and what the engine has still to say of a check that the image brings.
    ///
    /// # Errors
    /// For what cannot be, in podman's words.
    pub fn overlay(&self, before: &Health) -> Result<(Health, HealthChanges), Failure> {
        if self.no_healthcheck && self.health_cmd.is_some() {
            return Err(Failure::new(
                "cannot specify both --no-healthcheck and --health-cmd",
            ));
        }
        let said =
            |word: &Option<String>, read: fn(&str, &str) -> Result<Duration, Failure>, name| {
                let word = word.as_deref();
                word.map(|word| read(name, word)).transpose()
            };
        let mut changes = HealthChanges {
            none: self.no_healthcheck,
            interval: said(&self.health_interval, interval, "interval")?,
            timeout: said(&self.health_timeout, limit, "timeout")?,
            start_period: said(&self.health_start_period, length, "start-period")?,
            retries: self.health_retries,
        };
        if changes.retries == Some(0) {
            return Err(Failure::new("healthcheck-retries must be greater than 0"));
        }
        let mut check = before.check.clone();
        if let Some(text) = self.health_cmd.as_deref() {
            match HealthCheck::parse_test(text).map_err(Failure::new)? {
                Some(test) => check.get_or_insert(HealthCheck::new(Vec::new())).test = test,
                None => changes.none = true,
            }
        }
        let kept = Health {
            max_log_count: before.max_log_count,
            max_log_size: before.max_log_size,
            ..Health::default()
        };
        let before = if changes.none { &kept } else { before };
        let mut startup = before.startup.clone();
        if let Some(text) = self.health_startup_cmd.as_deref() {
            let test = HealthCheck::parse_test(text).map_err(Failure::new)?;
            let test = test.ok_or_else(|| {
                Failure::new("must define a healthcheck command for all healthchecks")
            })?;
            let new = || StartupCheck {
                check: HealthCheck {
                    retries: 0,
                    ..HealthCheck::new(Vec::new())
                },
                successes: 0,
            };
            startup.get_or_insert_with(new).check.test = test;
        }
        let every = said(&self.health_startup_interval, interval, "startup-interval")?;
        let longest = said(&self.health_startup_timeout, limit, "startup-timeout")?;
        let (retries, successes) = (self.health_startup_retries, self.health_startup_success);
        match &mut startup {
            Some(StartupCheck {
                check,
                successes: n,
            }) => {
                check.interval = every.unwrap_or(check.interval);
                check.timeout = longest.unwrap_or(check.timeout);
                check.retries = retries.unwrap_or(check.retries);
                *n = successes.unwrap_or(*n);
            }
            None if every.is_none() && longest.is_none() && retries.or(successes).is_none() => {}
            None => {
                return Err(Failure::new(
                    "must define a startup healthcheck command (--health-startup-cmd) for the other options of it",
                ));
            }
        }
        let action = self.health_on_failure.as_deref();
        let action = action.map(OnUnhealthy::parse).transpose();
        let health = Health {
            check: check.filter(|_| !changes.none),
            startup,
            on_unhealthy: action.map_err(Failure::new)?.unwrap_or(before.on_unhealthy),
            max_log_count: self.health_max_log_count.or(before.max_log_count),
            max_log_size: self.health_max_log_size.or(before.max_log_size),
        };
        Ok((health, changes))
    }

    /// Changes the checks that a container has.
    ///
    /// # Errors
    /// As `overlay`; for changes of a check that it does not have.
    pub fn change(&self, health: &mut Health) -> Result<(), Failure> {
        let (mut now, changes) = self.overlay(health)?;
        let details = changes != HealthChanges::default() && !changes.none;
        if details && now.check.is_none() {
            return Err(Failure::new("the container has no healthcheck to change")
                .hint("--health-cmd gives it one"));
        }
        changes.apply(&mut now, None)?;
        *health = now;
        Ok(())
    }
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
