//! What a list shows of a container. It is read without the rest of its configuration, which is most of it: lists are
//! asked for often, and of many.

use chrono::{DateTime, Utc};
use rcon_bundle::shown;
use rcon_net::PortMapping;
use serde::Deserialize;

use crate::record::{Container, State};

/// A container as one line.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The full id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: DateTime<Utc>,
    /// The image's full name at the time.
    pub image_name: String,
    /// The user's words after the image or the image's own, without the entry point.
    pub words: Vec<String>,
    /// What has become of it.
    pub state: State,
    /// As they are to be.
    ports: Vec<PortMapping>,
}

impl Overview {
    /// The ports as they are while it runs, else as they are to be.
    pub fn ports(&self) -> &[PortMapping] {
        if self.state.status.has_process() {
            &self.state.ports
        } else {
            &self.ports
        }
    }

    /// What is read of the files of container `id`.
    pub(crate) fn new(id: String, config: Part, state: State) -> Overview {
        let Part { image, options, .. } = config;
        Overview {
            id,
            name: config.name,
            created: config.created,
            image_name: config.image_name,
            words: shown(options.entrypoint.as_deref(), options.command, image.cmd),
            state,
            ports: config.ports,
        }
    }
}

impl From<&Container> for Overview {
    fn from(container: &Container) -> Overview {
        let config = &container.config;
        let (options, image) = (&config.options, &config.image_config);
        Overview {
            id: config.id.clone(),
            name: config.name.clone(),
            created: config.created,
            image_name: config.image_name.clone(),
            words: shown(
                options.entrypoint.as_deref(),
                options.command.clone(),
                image.cmd.clone(),
            ),
            state: container.state.clone(),
            ports: config.ports.clone(),
        }
    }
}

/// Of [`Config`](crate::Config), what this needs, and what tells how to read the rest.
#[derive(Deserialize)]
pub(crate) struct Part {
    pub format: u32,
    name: String,
    created: DateTime<Utc>,
    image_name: String,
    #[serde(rename = "image_config")]
    image: PartOfImage,
    options: PartOfOptions,
    #[serde(default)]
    ports: Vec<PortMapping>,
    #[serde(default)]
    pub by_run: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PartOfImage {
    cmd: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PartOfOptions {
    entrypoint: Option<Vec<String>>,
    command: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compact::compact;
    use crate::record::test_config;

    #[test]
    fn it_is_the_same_by_both_ways() {
        let mut config = test_config("c");
        config.ports = PortMapping::parse("8080:80").unwrap();
        config.image_config.cmd = vec!["serve".into()];
        config.by_run = Some(true);
        let mut all = vec![config.clone()];
        config.options.entrypoint = Some(vec!["sh".into()]);
        all.push(config.clone());
        config.options.command = vec!["-c".into(), "\u{e9}".into()];
        all.push(config);
        for config in all {
            let text = compact(&config).to_string();
            let part: Part = serde_json::from_str(&text).unwrap();
            assert_eq!((part.format, part.by_run), (config.format, config.by_run));
            let read = Overview::new(config.id.clone(), part, State::default());
            let container = Container {
                config,
                state: State::default(),
            };
            let made = Overview::from(&container);
            assert_eq!(format!("{read:?}"), format!("{made:?}"));
        }
    }
}
