//! Health checks: what is run, what becomes of its results, and what is remembered of them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::files;
use crate::lifecycle::Health;
use crate::record::{Container, Status};
use crate::{Engine, protocol};

/// The results, in the container's directory.
pub(crate) const FILE: &str = "health.json";

/// Results that are kept unless something else is said.
const LOG_COUNT: u32 = 5;
/// Bytes of output that a result keeps unless something else is said.
const LOG_SIZE: u32 = 500;

/// What is run to see whether a container is healthy, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// `["CMD", program, …]` or `["CMD-SHELL", line]`.
    pub test: Vec<String>,
    /// Between two checks; zero for none but those asked for.
    pub interval: Duration,
    /// A check that takes longer has failed.
    pub timeout: Duration,
    /// Failures in this time after the start do not count.
    pub start_period: Duration,
    /// So many failures in a row make it unhealthy.
    pub retries: u32,
}

/// What is run until a container has come up (`--health-startup-*`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartupCheck {
    /// What is run.
    pub check: HealthCheck,
    /// So many successes end it; 0 is 1.
    pub successes: u32,
}

/// `--health-on-failure`: what is done to a container that has become unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnhealthy {
    /// Nothing.
    #[default]
    None,
    /// It is killed.
    Kill,
    /// It is stopped and started.
    Restart,
    /// It is stopped.
    Stop,
}

impl OnUnhealthy {
    /// Reads the action.
    ///
    /// # Errors
    /// In podman's words.
    pub fn parse(text: &str) -> std::result::Result<OnUnhealthy, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "" | "none" => OnUnhealthy::None,
            "kill" => OnUnhealthy::Kill,
            "restart" => OnUnhealthy::Restart,
            "stop" => OnUnhealthy::Stop,
            _ => {
                return Err(format!(
                    "invalid on-failure action {text:?} for health check: supported actions are kill,none,restart,stop"
                ));
            }
        })
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            OnUnhealthy::None => "none",
            OnUnhealthy::Kill => "kill",
            OnUnhealthy::Restart => "restart",
            OnUnhealthy::Stop => "stop",
        }
    }
}

/// What the user says about the health check, the image's or their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthChanges {
    /// `--no-healthcheck`: there is none.
    pub none: bool,
    /// `--health-interval`.
    pub interval: Option<Duration>,
    /// `--health-timeout`.
    pub timeout: Option<Duration>,
    /// `--health-start-period`.
    pub start_period: Option<Duration>,
    /// `--health-retries`.
    pub retries: Option<u32>,
}

impl HealthChanges {
    /// The checks of a container with this check in its image.
    ///
    /// # Errors
    /// When something is said that only goes with a check, and there is none.
    pub fn apply(&self, health: &mut Health, images: Option<&Value>) -> Result<()> {
        if health.check.is_none() && !self.none {
            health.check = images.and_then(HealthCheck::of_image);
        }
        if let Some(check) = &mut health.check {
            check.interval = self.interval.unwrap_or(check.interval);
            check.timeout = self.timeout.unwrap_or(check.timeout);
            check.start_period = self.start_period.unwrap_or(check.start_period);
            check.retries = self.retries.unwrap_or(check.retries);
            return Ok(());
        }
        if health.on_unhealthy != OnUnhealthy::None {
            return Err(Error::Invalid(format!(
                "cannot set on-failure action to {} without a health check",
                health.on_unhealthy.as_str()
            )));
        }
        match health.startup {
            Some(_) => Err(Error::Invalid(
                "cannot set a startup healthcheck when there is no regular healthcheck".into(),
            )),
            None => Ok(()),
        }
    }
}

/// How a container does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Nothing is known yet.
    #[default]
    Starting,
    /// The last check succeeded.
    Healthy,
    /// Too many checks failed in a row.
    Unhealthy,
}

impl HealthStatus {
    /// podman's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }
}

/// What is known of the health of a running container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthState {
    /// How it does.
    pub status: HealthStatus,
    /// Checks that failed in a row.
    pub failing_streak: u32,
}

/// One check that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthResult {
    /// When it began.
    pub start: DateTime<Utc>,
    /// When it was over.
    pub end: DateTime<Utc>,
    /// 0 for success; -1 when it took too long.
    pub exit_code: i32,
    /// The beginning of what it printed.
    pub output: String,
}

impl HealthCheck {
    /// podman's defaults for a check.
    pub fn new(test: Vec<String>) -> HealthCheck {
        HealthCheck {
            test,
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(30),
            start_period: Duration::ZERO,
            retries: 3,
        }
    }

    /// What an image says (`Healthcheck` of its configuration); `None` for none, or for what is none.
    pub fn of_image(value: &Value) -> Option<HealthCheck> {
        let words = value.get("Test")?.as_array()?.iter();
        let test: Option<Vec<String>> = words.map(|w| w.as_str().map(str::to_owned)).collect();
        let test = test.filter(|t| t.len() > 1 && matches!(t[0].as_str(), "CMD" | "CMD-SHELL"))?;
        let mut check = HealthCheck::new(test);
        let length = |name: &str| {
            let nanoseconds = value.get(name)?.as_u64().filter(|n| *n > 0)?;
            Some(Duration::from_nanos(nanoseconds))
        };
        check.interval = length("Interval").unwrap_or(check.interval);
        check.timeout = length("Timeout").unwrap_or(check.timeout);
        check.start_period = length("StartPeriod").unwrap_or(check.start_period);
        if let Some(retries) = value.get("Retries").and_then(Value::as_u64) {
            check.retries = u32::try_from(retries).unwrap_or(u32::MAX).max(1);
        }
        Some(check)
    }

    /// Reads `--health-cmd`: a line for the shell, or a JSON list of words; `None` for `none`.
    ///
    /// # Errors
    /// For an empty one.
    pub fn parse_test(text: &str) -> std::result::Result<Option<Vec<String>>, String> {
        let own = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let fields: Vec<&str> = text.split_whitespace().collect();
        let words: Vec<String> = match serde_json::from_str(text) {
            Ok(words) => words,
            Err(_) => match fields.first().map(|w| w.to_ascii_uppercase()).as_deref() {
                None => Vec::new(),
                Some("NONE" | "CMD") => own(&fields),
                Some("CMD-SHELL") => own(&["CMD-SHELL", fields[1..].join(" ").as_str()]),
                Some(_) => own(&["CMD-SHELL", text]),
            },
        };
        let first = words.first().map(|w| w.to_ascii_uppercase());
        match first.as_deref() {
            None => Err("must define a healthcheck command for all healthchecks".into()),
            Some("NONE") => Ok(None),
            Some("CMD" | "CMD-SHELL") if words.len() < 2 => {
                Err("must define a healthcheck command for all healthchecks".into())
            }
            Some(kind @ ("CMD" | "CMD-SHELL")) => {
                let mut words = words;
                words[0] = kind.to_owned();
                Ok(Some(words))
            }
            Some(_) if words.len() > 1 => Ok(Some([own(&["CMD"]), words].concat())),
            Some(_) => Ok(Some([own(&["CMD-SHELL"]), words].concat())),
        }
    }

    /// The program to run, with its arguments.
    pub fn command(&self) -> Vec<String> {
        match self.test.split_first() {
            Some((kind, line)) if kind == "CMD-SHELL" => {
                vec!["/bin/sh".into(), "-c".into(), line.join(" ")]
            }
            Some((_, words)) => words.to_vec(),
            None => Vec::new(),
        }
    }
}

impl Health {
    /// How many results are kept.
    pub(crate) fn log_count(&self) -> usize {
        match self.max_log_count.unwrap_or(LOG_COUNT) {
            0 => usize::MAX,
            count => count as usize,
        }
    }

    /// How many bytes of output a result keeps.
    pub(crate) fn log_size(&self) -> usize {
        match self.max_log_size.unwrap_or(LOG_SIZE) {
            // As much as anybody will read.
            0 => 1 << 20,
            size => size as usize,
        }
    }
}

impl Engine {
    /// The last results of a container's health checks, oldest first.
    pub fn health_log(&self, container: &Container) -> Vec<HealthResult> {
        let path = self.paths.container(container.id()).join(FILE);
        files::read(&path).ok().flatten().unwrap_or_default()
    }

    /// Has the health of a running container checked now.
    ///
    /// # Errors
    /// When it has no health check, or does not run.
    pub fn check_health(&self, name_or_id: &str) -> Result<HealthStatus> {
        let container = self.container(name_or_id)?;
        if container.config.lifecycle.health.check.is_none() {
            return Err(Error::Invalid(format!(
                "container {} has no defined healthcheck",
                container.id()
            )));
        }
        if container.state.status != Status::Running {
            return Err(Error::StateImproper(format!(
                "container {} is not running",
                container.id()
            )));
        }
        container.state.wake_monitor();
        protocol::ask_health(&self.paths.runtime(container.id()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn images_say_what_they_like() {
        let check = HealthCheck::of_image(&json!({
            "Test": ["CMD-SHELL", "wget -q localhost"], "Interval": 5_000_000_000_u64, "Retries": 7
        }))
        .unwrap();
        assert_eq!(check.command(), ["/bin/sh", "-c", "wget -q localhost"]);
        assert_eq!((check.interval.as_secs(), check.timeout.as_secs()), (5, 30));
        assert_eq!(check.retries, 7);
        for none in [
            json!({}),
            json!({"Test": []}),
            json!({"Test": ["NONE"]}),
            json!({"Test": ["CMD"]}),
            json!({"Test": ["CMD", 3]}),
            json!({"Test": "true"}),
        ] {
            assert_eq!(HealthCheck::of_image(&none), None, "{none}");
        }
    }

    #[test]
    fn commands_are_read_as_podman_does() {
        let of = |text: &str| HealthCheck::parse_test(text).unwrap().unwrap();
        assert_eq!(
            of("curl -f x || exit 1"),
            ["CMD-SHELL", "curl -f x || exit 1"]
        );
        assert_eq!(of("CMD curl x"), ["CMD", "curl", "x"]);
        assert_eq!(of("CMD-SHELL curl x"), ["CMD-SHELL", "curl x"]);
        assert_eq!(of("[\"curl\", \"x\"]"), ["CMD", "curl", "x"]);
        assert_eq!(of("[\"curl x\"]"), ["CMD-SHELL", "curl x"]);
        assert_eq!(HealthCheck::parse_test("none"), Ok(None));
        assert!(HealthCheck::parse_test("").is_err());
        assert!(HealthCheck::parse_test("CMD").is_err());
    }
}
