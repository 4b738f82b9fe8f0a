//! `--filter` of the commands that list containers.
//!
//! As in podman, filters of different keys must all hold, of several with the same key one must; labels must all hold.

use chrono::{DateTime, Utc};

use crate::error::{Error, Result};
use crate::lifecycle::RestartPolicy;
use crate::record::{Container, Network, Status};

/// The conditions a container must meet.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    conditions: Vec<(Key, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Id,
    Name,
    Label,
    NoLabel,
    Status,
    Exited,
    Ancestor,
    Before,
    Since,
    Until,
    Volume,
    Network,
    Publish,
    Health,
    RestartPolicy,
    StartsOnBoot,
    Command,
}

impl Filters {
    /// Reads `key=value` texts: `id`, `name`, `label`, `label!`, `status`, `exited`, `ancestor`, `before`, `since`, `until`,
    /// `volume`, `network`, `publish` (or `expose`), `health`, `restart-policy`, `should-start-on-boot`, `command`.
    ///
    /// # Errors
    /// For an unknown key or a value that cannot be.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Filters> {
        let mut conditions = Vec::new();
        for text in texts {
            let text = text.as_ref();
            let (key, value) = text.split_once('=').ok_or_else(|| {
                Error::Invalid(format!(
                    "invalid filter {text:?}: it must have the form key=value"
                ))
            })?;
            let (key, value) = match key {
                "label!" => ("label!", value),
                _ => match key.strip_suffix('!') {
                    Some(_) => return Err(unknown(key)),
                    None => (key, value),
                },
            };
            let key = match key {
                "id" => Key::Id,
                "name" => Key::Name,
                "label" => Key::Label,
                "label!" => Key::NoLabel,
                "status" => Key::Status,
                "exited" => Key::Exited,
                "ancestor" => Key::Ancestor,
                "before" => Key::Before,
                "since" => Key::Since,
                "until" => Key::Until,
                "volume" => Key::Volume,
                "network" => Key::Network,
                "publish" | "expose" => Key::Publish,
                "health" => Key::Health,
                "restart-policy" => Key::RestartPolicy,
                "should-start-on-boot" => Key::StartsOnBoot,
                "command" => Key::Command,
                other => return Err(unknown(other)),
            };
            check(key, value)?;
            conditions.push((key, value.to_string()));
        }
        Ok(Filters { conditions })
    }

    /// Whether a condition speaks of states, so that containers that do not run are to be looked at too.
    pub fn names_states(&self) -> bool {
        self.conditions
            .iter()
            .any(|(key, _)| matches!(key, Key::Status | Key::Exited))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Looks up the containers that `before` and `since` name.
    pub(crate) fn prepare(&self, all: &[Container]) -> Result<Prepared<'_>> {
        let mut prepared = Prepared {
            filters: self,
            before: None,
            since: None,
            until: None,
        };
        for (key, value) in &self.conditions {
            match key {
                Key::Before => prepared.before = Some(created(all, value)?),
                Key::Since => prepared.since = Some(created(all, value)?),
                Key::Until => prepared.until = moment(value),
                _ => {}
            }
        }
        Ok(prepared)
    }
}

fn unknown(key: &str) -> Error {
    Error::Invalid(format!("{key} is an invalid filter"))
}

fn check(key: Key, value: &str) -> Result<()> {
    match key {
        Key::Status if status(value).is_none() && !FLEETING.contains(&value) => {
            Err(Error::Invalid(format!(
                "unknown container state: {value}: invalid argument"
            )))
        }
        Key::Exited if value.parse::<i32>().is_err() => Err(Error::Invalid(format!(
            "exited code out of range: {value:?}: it must be a number"
        ))),
        Key::Until if moment(value).is_none() => Err(Error::Invalid(format!(
            "{value:?} is neither a time nor seconds since 1970"
        ))),
        Key::Health if !["starting", "healthy", "unhealthy", "none"].contains(&value) => {
            Err(Error::Invalid(format!(
                "{value:?} is not a valid health: use starting, healthy, unhealthy or none"
            )))
        }
        Key::StartsOnBoot if truth(value).is_none() => Err(Error::Invalid(format!(
            "{value:?} is neither true nor false"
        ))),
        _ => Ok(()),
    }
}

fn truth(value: &str) -> Option<bool> {
    match value {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// States that podman has and that no container is ever seen in here.
const FLEETING: [&str; 2] = ["unknown", "removing"];

fn status(value: &str) -> Option<Status> {
    Some(match value.to_ascii_lowercase().as_str() {
        "created" | "configured" => Status::Created,
        "initialized" => Status::Initialized,
        "running" => Status::Running,
        "paused" => Status::Paused,
        "stopping" => Status::Stopping,
        "stopped" | "exited" => Status::Exited,
        _ => return None,
    })
}

fn moment(value: &str) -> Option<DateTime<Utc>> {
    match value.parse::<i64>() {
        Ok(seconds) => DateTime::from_timestamp(seconds, 0),
        Err(_) => DateTime::parse_from_rfc3339(value)
            .ok()
            .map(|t| t.with_timezone(&Utc)),
    }
}

fn created(all: &[Container], value: &str) -> Result<DateTime<Utc>> {
    all.iter()
        .find(|c| c.config.name == value)
        .or_else(|| {
            all.iter()
                .find(|c| !value.is_empty() && c.config.id.starts_with(value))
        })
        .map(|c| c.config.created)
        .ok_or_else(|| Error::NoSuchContainer(value.to_string()))
}

/// Filters that know the containers they speak of.
pub(crate) struct Prepared<'a> {
    filters: &'a Filters,
    before: Option<DateTime<Utc>>,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
}

impl Prepared<'_> {
    /// Whether the container meets all conditions.
    pub fn accept(&self, container: &Container) -> bool {
        let conditions = &self.filters.conditions;
        conditions.iter().all(|(key, value)| match key {
            // All labels must be there.
            Key::Label => self.holds(*key, value, container),
            Key::NoLabel => !self.holds(Key::Label, value, container),
            // Of other keys it is enough if one holds.
            key => conditions
                .iter()
                .any(|(other, value)| other == key && self.holds(*key, value, container)),
        })
    }

    fn holds(&self, key: Key, value: &str, container: &Container) -> bool {
        let (config, state) = (&container.config, &container.state);
        match key {
            Key::Id => matches_pattern(&config.id, value),
            Key::Name => matches_pattern(&config.name, value),
            Key::Label | Key::NoLabel => {
                let labels = config.labels();
                match value.split_once('=') {
                    Some((name, text)) => labels.get(name).is_some_and(|l| l == text),
                    None => labels.contains_key(value),
                }
            }
            Key::Status => match status(value) {
                Some(status) => status == state.status,
                None => false,
            },
            Key::Exited => state.status == Status::Exited && value.parse() == Ok(state.exit_code),
            Key::Ancestor => is_ancestor(&config.image_name, &config.image_id, value),
            Key::Before => self.before.is_some_and(|t| config.created < t),
            Key::Since => self.since.is_some_and(|t| config.created > t),
            Key::Until => self.until.is_some_and(|t| config.created < t),
            Key::Volume => config
                .volumes
                .iter()
                .any(|v| v.name == value || v.destination == value),
            Key::Network => match &config.network {
                Network::None => value == "none",
                Network::Host => value == "host",
                Network::Container(id) => value.strip_prefix("container:") == Some(id),
                Network::Path(path) => value.strip_prefix("ns:") == path.to_str(),
                Network::Slirp(_) => matches!(value, "slirp4netns" | "slirp" | "pasta"),
            },
            Key::Health => match state.health {
                Some(health) => health.status.as_str() == value,
                None => value == "none",
            },
            Key::RestartPolicy => {
                let policy = config.restart;
                policy.name() == value || RestartPolicy::parse(value) == Ok(policy)
            }
            Key::StartsOnBoot => {
                let starts = match config.restart {
                    RestartPolicy::Always => true,
                    RestartPolicy::UnlessStopped => !state.stopped_by_user,
                    RestartPolicy::No | RestartPolicy::OnFailure(_) => false,
                };
                truth(value) == Some(starts)
            }
            Key::Command => {
                let first = config.argv().into_iter().next();
                first.is_some_and(|first| matches_pattern(&first, value))
            }
            Key::Publish => {
                let number = value.split('/').next().unwrap_or_default();
                let number = number.parse::<u16>().ok();
                let within = |first: u16, range: u16| {
                    let ahead = number.and_then(|number| number.checked_sub(first));
                    ahead.is_some_and(|ahead| ahead < range.max(1))
                };
                let port = |p: &rcon_net::PortMapping| {
                    let host = p.host_port != 0 && within(p.host_port, p.range);
                    host || within(p.container_port, p.range)
                };
                container.ports().iter().any(port)
            }
        }
    }
}

/// A part of the text; `^` and `$` tie it to the ends.
pub fn matches_pattern(text: &str, pattern: &str) -> bool {
    let (start, pattern) = pattern
        .strip_prefix('^')
        .map_or((false, pattern), |p| (true, p));
    let (end, pattern) = pattern
        .strip_suffix('$')
        .map_or((false, pattern), |p| (true, p));
    match (start, end) {
        (true, true) => text == pattern,
        (true, false) => text.starts_with(pattern),
        (false, true) => text.ends_with(pattern),
        (false, false) => text.contains(pattern),
    }
}

/// Whether `value` names the image: its id or a prefix of it, its name with or without tag, registry and path.
fn is_ancestor(image_name: &str, image_id: &str, value: &str) -> bool {
    if value.len() >= 12 && image_id.starts_with(value.strip_prefix("sha256:").unwrap_or(value)) {
        return true;
    }
    let tagged = |name: &str| {
        name.rsplit('/')
            .next()
            .is_some_and(|last| last.contains([':', '@']))
    };
    let image = if tagged(value) {
        image_name
    } else {
        image_name.split('@').next().unwrap_or_default()
    };
    let image = if tagged(value) || !tagged(image) {
        image
    } else {
        &image[..image.rfind(':').unwrap_or(image.len())]
    };
    image == value
        || image
            .strip_suffix(value)
            .is_some_and(|before| before.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in [
            "",
            "name",
            "foo=1",
            "status=asleep",
            "exited=x",
            "until=soon",
            "name!=x",
        ] {
            assert!(Filters::parse(&[text]).is_err(), "{text}");
        }
        let filters = Filters::parse(&[
            "name=a",
            "label=b=c",
            "status=exited",
            "exited=0",
            "label!=x",
            "until=10",
        ])
        .unwrap();
        assert!(filters.names_states() && !filters.is_empty());
        assert!(!Filters::parse(&["id=a"]).unwrap().names_states());
    }

    #[test]
    fn patterns() {
        assert!(
            matches_pattern("web-1", "eb")
                && matches_pattern("web-1", "^web")
                && matches_pattern("web-1", "^web-1$")
        );
        assert!(!matches_pattern("web-1", "^eb") && !matches_pattern("web-1", "web$"));
    }

    #[test]
    fn images_by_name() {
        let name = "docker.io/library/alpine:3.20";
        for value in [
            "alpine",
            "alpine:3.20",
            "library/alpine",
            "docker.io/library/alpine:3.20",
            "abcdefabcdef",
        ] {
            assert!(is_ancestor(name, "abcdefabcdef0123", value), "{value}");
        }
        for value in ["alp", "pine", "alpine:3.2", "abc", "ry/alpine"] {
            assert!(!is_ancestor(name, "abcdefabcdef0123", value), "{value}");
        }
    }
}
