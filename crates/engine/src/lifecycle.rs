//! What a user may say about what happens *around* a container's process: when it is started again, how its health is
//! looked at, where its output goes, who is told.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::health::{HealthCheck, OnUnhealthy, StartupCheck};

/// `--restart`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// Whenever it has ended, unless somebody stopped it.
    Always,
    /// The same; after a reboot only if nobody had stopped it.
    UnlessStopped,
    /// When it has failed, at most so many times in a row (0: without end).
    OnFailure(u32),
}

impl RestartPolicy {
    /// Reads `no`, `always`, `unless-stopped`, `on-failure`, `on-failure:3`.
    ///
    /// # Errors
    /// In podman's words.
    pub fn parse(text: &str) -> Result<RestartPolicy, String> {
        let (name, count) = match text.split_once(':') {
            Some((name, count)) => (name, Some(count)),
            None => (text, None),
        };
        if count.is_some() && name != "on-failure" {
            return Err(
                "restart policy retries can only be specified with on-failure restart policy: invalid argument"
                    .into(),
            );
        }
        match name {
            "no" | "" => Ok(RestartPolicy::No),
            "always" => Ok(RestartPolicy::Always),
            "unless-stopped" => Ok(RestartPolicy::UnlessStopped),
            "on-failure" => match count.map_or(Ok(0), str::parse) {
                Ok(retries) => Ok(RestartPolicy::OnFailure(retries)),
                Err(_) => Err(format!(
                    "parsing restart policy retry count: {:?} is not a number",
                    count.unwrap_or_default()
                )),
            },
            _ => Err(format!(
                "{text:?} is not a valid restart policy: must be one of \"always\", \"no\", \"on-failure\", or \"unless-stopped\""
            )),
        }
    }

    /// Its name without the number.
    pub fn name(self) -> &'static str {
        match self {
            RestartPolicy::No => "no",
            RestartPolicy::Always => "always",
            RestartPolicy::UnlessStopped => "unless-stopped",
            RestartPolicy::OnFailure(_) => "on-failure",
        }
    }

    /// How often a container that fails is started again; 0 is without end.
    pub fn retries(self) -> u32 {
        match self {
            RestartPolicy::OnFailure(retries) => retries,
            _ => 0,
        }
    }

    /// Whether a container that ended by itself with `code`, after `restarts` restarts, is to be started again.
    pub(crate) fn wants(self, code: i32, restarts: u32) -> bool {
        match self {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure(retries) => code != 0 && (retries == 0 || restarts < retries),
        }
    }
}

/// `--log-driver`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// A file of lines as Kubernetes has them.
    #[default]
    K8sFile,
    /// The same file; podman's other name for it.
    JsonFile,
    /// The journal of systemd.
    Journald,
    /// Nowhere.
    None,
    /// Nowhere: the program has the standard streams of the command that starts it.
    Passthrough,
}

impl LogDriver {
    /// Reads the driver's name.
    ///
    /// # Errors
    /// In podman's words.
    pub fn parse(text: &str) -> Result<LogDriver, String> {
        Ok(match text {
            "" | "k8s-file" => LogDriver::K8sFile,
            "json-file" => LogDriver::JsonFile,
            "journald" => LogDriver::Journald,
            "none" => LogDriver::None,
            "passthrough" => LogDriver::Passthrough,
            _ => {
                return Err(format!(
                    "invalid log driver {text:?}: must be one of k8s-file, json-file, journald, none, or passthrough: invalid argument"
                ));
            }
        })
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            LogDriver::K8sFile => "k8s-file",
            LogDriver::JsonFile => "json-file",
            LogDriver::Journald => "journald",
            LogDriver::None => "none",
            LogDriver::Passthrough => "passthrough",
        }
    }
}

/// `--log-driver` and `--log-opt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogOptions {
    /// Where it goes.
    pub driver: LogDriver,
    /// `path`: the file; `None` is `log` in the container's directory.
    pub path: Option<PathBuf>,
    /// `max-size`: how many bytes a file may have; `None` is without end.
    pub max_size: Option<u64>,
    /// `max-file`: how many files there may be, the one that is written among them; at least one.
    pub max_file: u32,
    /// `tag`: goes with each message to the journal.
    pub tag: Option<String>,
}

/// `--sdnotify`: who tells systemd that the service is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SdNotify {
    /// The program in the container; its monitor says who the main process is.
    #[default]
    Container,
    /// The monitor, once the program runs.
    Conmon,
    /// The monitor, once the program is healthy.
    Healthy,
    /// Nobody.
    Ignore,
}

impl SdNotify {
    /// Reads the mode.
    ///
    /// # Errors
    /// In podman's words.
    pub fn parse(text: &str) -> Result<SdNotify, String> {
        Ok(match text {
            "container" => SdNotify::Container,
            "conmon" => SdNotify::Conmon,
            "healthy" => SdNotify::Healthy,
            "ignore" => SdNotify::Ignore,
            _ => {
                return Err(format!(
                    "invalid sdnotify value {text:?}: must be container, conmon, healthy, or ignore"
                ));
            }
        })
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            SdNotify::Container => "container",
            SdNotify::Conmon => "conmon",
            SdNotify::Healthy => "healthy",
            SdNotify::Ignore => "ignore",
        }
    }
}

/// Health checks, the image's under the user's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// What is run to see whether the container is healthy.
    pub check: Option<HealthCheck>,
    /// What is run until the container has come up.
    pub startup: Option<StartupCheck>,
    /// `--health-on-failure`.
    pub on_unhealthy: OnUnhealthy,
    /// `--health-max-log-count`: how many results are kept; 0 keeps all.
    pub max_log_count: Option<u32>,
    /// `--health-max-log-size`: how many bytes of output a result keeps; 0 keeps all.
    pub max_log_size: Option<u32>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lifecycle {
    /// `--log-driver` and `--log-opt`.
    pub log: LogOptions,
    /// `--health-*`.
    pub health: Health,
    /// `--timeout`: the most seconds that it may run; 0 is without end.
    pub timeout: u32,
    /// `--sdnotify`.
    pub sdnotify: SdNotify,
    /// `--pidfile`: where the number of the container's process is written at each start.
    pub pidfile: Option<PathBuf>,
    /// `--conmon-pidfile`: where the number of the monitor is written.
    pub conmon_pidfile: Option<PathBuf>,
    /// `--cidfile`.
    pub cidfile: Option<PathBuf>,
}

impl Lifecycle {
    /// Whether its parts go together.
    pub(crate) fn coherent(&self) -> Result<(), Error> {
        match (self.sdnotify, &self.health.check) {
            (SdNotify::Healthy, None) => Err(Error::Invalid(
                "sdnotify policy \"healthy\" requires a healthcheck to be set".into(),
            )),
            _ => Ok(()),
        }
    }
}

/// How long to wait before a container is started again: twice as long each time, up to a minute, and from the beginning
/// once it has lasted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(60);
    /// A container that has run so long has come up.
    const LASTED: Duration = Duration::from_secs(10);

    /// The pause after a run of this length.
    pub fn after(&mut self, ran: Duration) -> Duration {
        if ran >= Backoff::LASTED {
            self.0 = 0;
        }
        let pause = Backoff::FIRST.saturating_mul(1 << self.0.min(16));
        self.0 += 1;
        pause.min(Backoff::LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_podmans() {
        assert_eq!(RestartPolicy::parse("no"), Ok(RestartPolicy::No));
        assert_eq!(
            RestartPolicy::parse("on-failure:3"),
            Ok(RestartPolicy::OnFailure(3))
        );
        assert_eq!(
            RestartPolicy::parse("on-failure"),
            Ok(RestartPolicy::OnFailure(0))
        );
        for bad in ["foo", "always:3", "on-failure:x", "on-failure:-1"] {
            assert!(RestartPolicy::parse(bad).is_err(), "{bad}");
        }
        assert!(RestartPolicy::Always.wants(0, 99) && !RestartPolicy::No.wants(1, 0));
        let twice = RestartPolicy::OnFailure(2);
        assert!(twice.wants(1, 1) && !twice.wants(1, 2) && !twice.wants(0, 0));
    }

    #[test]
    fn policies_are_stored_as_before() {
        let text = |policy| serde_json::to_string(&policy).unwrap();
        assert_eq!(text(RestartPolicy::No), "\"no\"");
        assert_eq!(text(RestartPolicy::UnlessStopped), "\"unless-stopped\"");
        let back: RestartPolicy = serde_json::from_str(&text(RestartPolicy::OnFailure(3))).unwrap();
        assert_eq!(back, RestartPolicy::OnFailure(3));
    }

    #[test]
    fn pauses_grow_and_end() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        let pauses: Vec<u128> = (0..12).map(|_| backoff.after(short).as_millis()).collect();
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[11], 60_000);
        assert_eq!(backoff.after(Duration::from_secs(11)).as_millis(), 100);
    }
}
