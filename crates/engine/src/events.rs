//! What happened to containers, images and volumes, one line of JSON each, in the order it happened.
//!
//! The log is `events.log` in the run directory: it is gone after a reboot, as the containers' processes are. Whoever does
//! something appends to it with one `write`, which the kernel keeps in one piece (`O_APPEND`); nobody waits for anybody, and
//! nothing fails because an event could not be written. A line that a full disk cut off is passed over by readers. A log that
//! has grown is put aside as `events.log.1`, in place of the one before.

mod follow;
mod select;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use chrono::{DateTime, Utc};
use rcon_store::ImageRecord;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::record::Container;

pub use follow::EventRequest;
pub use select::EventFilters;

/// The log's name in the run directory.
pub(crate) const FILE: &str = "events.log";
/// The log before.
pub(crate) const OLD: &str = "events.log.1";
/// How large a log may get.
const LIMIT: u64 = 4 * 1024 * 1024;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A volume.
    Volume,
    /// A secret.
    Secret,
    /// All of it, as `system reset`.
    System,
}

impl Kind {
    /// podman's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Container => "container",
            Kind::Image => "image",
            Kind::Volume => "volume",
            Kind::Secret => "secret",
            Kind::System => "system",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Makes [`Action`] and its words.
macro_rules! actions {
    ($($name:ident $word:literal $about:literal),+ $(,)?) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Action {
            $(#[doc = $about] #[serde(rename = $word)] $name),+
        }

        impl Action {
            /// podman's word for it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Action::$name => $word),+
                }
            }

            /// The action of that name; Docker's names for some of them are understood too.
            pub fn parse(word: &str) -> Option<Action> {
                match word {
                    $($word => Some(Action::$name),)+
                    "die" => Some(Action::Died),
                    "destroy" | "delete" => Some(Action::Remove),
                    "exec_die" => Some(Action::ExecDied),
                    _ => None,
                }
            }
        }
    };
}

actions! {
    Attach "attach" "Somebody connected to its streams.",
    Cleanup "cleanup" "What it left was cleared away.",
    Commit "commit" "An image was made of it.",
    Create "create" "It was made.",
    Died "died" "Its process has ended.",
    Exec "exec" "A command was started in it.",
    ExecDied "exec_died" "A command in it has ended.",
    Export "export" "Its files were written out.",
    HealthStatus "health_status" "Its health was looked at.",
    Import "import" "An image was made of a tarball.",
    Init "init" "Its namespaces and mounts were made.",
    Kill "kill" "It was sent a signal.",
    Load "loadfromarchive" "An image came from an archive.",
    Mount "mount" "Its files were mounted.",
    Pause "pause" "Its processes were stopped.",
    Prune "prune" "What nobody used was removed.",
    Pull "pull" "An image came from a registry.",
    Push "push" "An image went to a registry.",
    Remove "remove" "It was removed.",
    Rename "rename" "It got another name.",
    Restart "restart" "It was ended and started.",
    Save "save" "An image was written to an archive.",
    Start "start" "Its program runs.",
    Stop "stop" "It was asked to end, and has.",
    Tag "tag" "An image got a name.",
    Unmount "unmount" "Its files were unmounted.",
    Unpause "unpause" "Its processes go on.",
    Untag "untag" "An image lost a name.",
    Update "update" "Its limits, or what else `update` changes, were changed.",
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub time: DateTime<Utc>,
    /// To what kind of thing.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What.
    pub action: Action,
    /// The full id of the container or image; empty for what has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The name of the container, volume or secret; the name under which an image was meant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The name of a container's image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// With `died` and `exec_died`: how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// With `health_status`: `starting`, `healthy` or `unhealthy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_status: Option<String>,
    /// A container's labels, and what else there is to say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    fn new(kind: Kind, action: Action, id: &str, name: &str) -> Event {
        Event {
            time: Utc::now(),
            kind,
            action,
            id: id.into(),
            name: name.into(),
            image: String::new(),
            exit_code: None,
            health_status: None,
            attributes: BTreeMap::new(),
        }
    }

    /// Something happened to a container.
    pub fn container(container: &Container, action: Action) -> Event {
        Event {
            image: container.config.image_name.clone(),
            attributes: container.config.labels(),
            ..Event::new(
                Kind::Container,
                action,
                container.id(),
                &container.config.name,
            )
        }
    }

    /// Something happened to an image; `name` is how it was meant.
    pub fn image(image: &ImageRecord, action: Action, name: &str) -> Event {
        Event::image_id(&image.id, action, name)
    }

    /// As [`Event::image`], for one of which only the id is left.
    pub fn image_id(id: &str, action: Action, name: &str) -> Event {
        Event::new(Kind::Image, action, id, name)
    }

    /// Something happened to a volume.
    pub fn volume(name: &str, action: Action) -> Event {
        Event::new(Kind::Volume, action, "", name)
    }

    /// Something happened to a secret.
    pub fn secret(id: &str, name: &str, action: Action) -> Event {
        Event::new(Kind::Secret, action, id, name)
    }

    /// Something happened to everything.
    pub fn system(action: Action) -> Event {
        Event::new(Kind::System, action, "", "")
    }

    /// The same event, with how a process ended.
    pub fn exited(self, code: i32) -> Event {
        Event {
            exit_code: Some(code),
            ..self
        }
    }

    /// The same event, with what was found of its health.
    pub fn health(self, status: &str) -> Event {
        Event {
            health_status: Some(status.into()),
            ..self
        }
    }

    /// The same event, with one thing more said about it.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Event {
        self.attributes.insert(name.into(), value.into());
        self
    }
}

impl Engine {
    /// Notes what happened. Never fails: what is done is done, whether it can be noted or not.
    pub fn emit(&self, event: &Event) {
        self.emit_all(std::slice::from_ref(event));
    }

    /// Notes what happened, all of it in one piece.
    pub fn emit_all(&self, events: &[Event]) {
        let mut text = Vec::with_capacity(512 * events.len());
        for event in events {
            if serde_json::to_writer(&mut text, event).is_ok() {
                text.push(b'\n');
            }
        }
        let _ = append(&self.paths.runroot, &text);
    }

    /// Notes what happened to a container.
    pub fn emit_container(&self, container: &Container, action: Action) {
        self.emit(&Event::container(container, action));
    }
}

fn append(runroot: &Path, text: &[u8]) -> io::Result<()> {
    let path = runroot.join(FILE);
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)?;
    if file.metadata()?.len() >= LIMIT {
        put_aside(runroot, &file)?;
        file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)?;
    }
    match file.write(text)? {
        all if all == text.len() => Ok(()),
        // A full disk: what was cut off shall not run into the next line.
        _ => file.write_all(b"\n"),
    }
}

/// Renames the log that is too large, unless somebody else is at it or has done so.
fn put_aside(runroot: &Path, file: &File) -> io::Result<()> {
    if rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    let path = runroot.join(FILE);
    let (ours, now) = (file.metadata()?, fs::metadata(&path)?);
    match (ours.ino(), ours.dev()) == (now.ino(), now.dev()) {
        true => fs::rename(&path, runroot.join(OLD)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_back() {
        let event = Event::image_id("ab", Action::Pull, "localhost/x:latest").with("a", "b");
        let text = serde_json::to_string(&event).unwrap();
        assert!(text.contains("\"type\":\"image\",\"action\":\"pull\""));
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
        assert_eq!(Action::parse("die"), Some(Action::Died));
        assert_eq!(Action::parse("nothing"), None);
    }

    #[test]
    fn a_log_that_has_grown_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let line = [b'x'; 1024];
        for _ in 0..LIMIT / 1024 + 1 {
            append(dir.path(), &line).unwrap();
        }
        assert_eq!(fs::metadata(dir.path().join(OLD)).unwrap().len(), LIMIT);
        assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().len(), 1024);
    }
}
