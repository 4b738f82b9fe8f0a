//! `--filter` of `events`: as in podman, filters of different keys must all hold, of several with the same key one must;
//! labels must all hold.

use super::{Action, Event, Kind};
use crate::error::{Error, Result};

/// The conditions an event must meet.
#[derive(Clone, Debug, Default)]
pub struct EventFilters {
    conditions: Vec<(Key, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Container,
    Event,
    Image,
    Label,
    Type,
    Volume,
}

impl EventFilters {
    /// Reads `key=value` texts: `container`, `event`, `image`, `label`, `type`, `volume`.
    ///
    /// # Errors
    /// For an unknown key.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<EventFilters> {
        let mut conditions = Vec::new();
        for text in texts {
            let text = text.as_ref();
            let (key, value) = text
                .split_once('=')
                .filter(|(_, value)| !value.is_empty())
                .ok_or_else(|| Error::Invalid(format!("{text:?} is an invalid filter")))?;
            let key = match key.to_ascii_lowercase().as_str() {
                "container" => Key::Container,
                "event" | "status" => Key::Event,
                "image" => Key::Image,
                "label" => Key::Label,
                "type" => Key::Type,
                "volume" => Key::Volume,
                _ => return Err(Error::Invalid(format!("{key} is an invalid filter"))),
            };
            conditions.push((key, value.to_string()));
        }
        Ok(EventFilters { conditions })
    }

    /// Whether the event meets all conditions.
    pub fn accept(&self, event: &Event) -> bool {
        self.conditions.iter().all(|(key, value)| match key {
            Key::Label => holds(*key, value, event),
            key => self
                .conditions
                .iter()
                .any(|(other, value)| other == key && holds(*key, value, event)),
        })
    }
}

fn holds(key: Key, value: &str, event: &Event) -> bool {
    match key {
        Key::Container => {
            event.kind == Kind::Container && (event.id.starts_with(value) || event.name == value)
        }
        Key::Event => {
            Action::parse(value).map_or(event.action.as_str() == value, |a| a == event.action)
        }
        Key::Image => match event.kind {
            Kind::Image => event.id.starts_with(value) || is_name(&event.name, value),
            Kind::Container => is_name(&event.image, value),
            _ => false,
        },
        Key::Label => match value.split_once('=') {
            Some((name, text)) => event.attributes.get(name).is_some_and(|l| l == text),
            None => event.attributes.contains_key(value),
        },
        Key::Type => event.kind.as_str() == value,
        Key::Volume => event.kind == Kind::Volume && event.name.starts_with(value),
    }
}

/// Whether the user who says `value` means the image `name`: whole, or its last parts, with or without the tag.
fn is_name(name: &str, value: &str) -> bool {
    let tail = |name: &str| {
        name.strip_suffix(value)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    };
    let (repository, tag) = name.rsplit_once(':').unwrap_or((name, ""));
    tail(name) || (!tag.contains('/') && tail(repository))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(filters: &[&str], event: &Event) -> bool {
        EventFilters::parse(filters).unwrap().accept(event)
    }

    #[test]
    fn filters_are_podmans() {
        let mut event = Event::new(Kind::Container, Action::Died, "abcdef", "web").with("k", "v");
        event.image = "docker.io/library/alpine:3.20".into();
        for good in [
            &[][..],
            &["container=web"],
            &["container=abc"],
            &["event=die"],
            &["event=start", "event=died"],
            &["type=container", "label=k=v"],
            &["image=alpine"],
            &["image=library/alpine:3.20"],
        ] {
            assert!(accepts(good, &event), "{good:?}");
        }
        for bad in [
            &["container=we"][..],
            &["event=start"],
            &["type=image"],
            &["label=k=w"],
            &["label=k", "label=z"],
            &["image=pine"],
            &["type=container", "event=start"],
            &["volume=web"],
        ] {
            assert!(!accepts(bad, &event), "{bad:?}");
        }
        assert!(EventFilters::parse(&["nosuch=1"]).is_err());
        assert!(EventFilters::parse(&["container"]).is_err());
    }
}
