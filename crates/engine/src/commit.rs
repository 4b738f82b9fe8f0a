//! `commit` and `export`: an image, or an archive, of a container's files.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use rcon_image::commit::CommitOptions;
use rcon_image::{Format, Progress, Reference};
use rcon_store::{ImageRecord, TreeForm};
use serde_json::{Map, Value, json};

use crate::Engine;
use crate::error::{Context, Error, Result};
use crate::events::Action;
use crate::record::Config;
use crate::rootfs;

/// How a container becomes an image.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    /// Its name, if it is to have one.
    pub name: Option<Reference>,
    /// `--change`
    pub changes: Vec<String>,
    /// `--message`
    pub message: Option<String>,
    /// `--author`
    pub author: Option<String>,
    /// `--format`
    pub format: Format,
    /// `--squash`: one layer of all.
    pub squash: bool,
    /// `--include-volumes`: the container's volumes are declared by the image.
    pub include_volumes: bool,
}

impl Engine {
    /// Makes an image of a container.
    ///
    /// # Errors
    /// A bad `--change`, files that cannot be read, a full disk.
    pub fn commit(
        &self,
        name_or_id: &str,
        request: &CommitRequest,
        progress: &dyn Progress,
    ) -> Result<ImageRecord> {
        let container = self.container(name_or_id)?;
        if let (Some(engine), None) = (self.arranged_for(&container.config)?, &self.special) {
            return engine.commit(name_or_id, request, progress);
        }
        let id = container.id().to_string();
        let snapshot = self.store.snapshot(&id)?.ok_or_else(|| {
            Error::Invalid(format!("the root file system of container {id} is missing"))
        })?;
        let config = &container.config;
        let form = match request.squash {
            true => TreeForm::Whole,
            false => TreeForm::Changes,
        };
        let image = self
            .store
            .image_by_id(&config.image_id)?
            .ok_or_else(|| Error::NoSuchImage(config.image_id.clone()))?;
        let options = CommitOptions {
            tree: PathBuf::new(),
            form,
            leave_out: rootfs::mount_places(config),
            config: Some(image_config(
                &image.config()?,
                config,
                request.include_volumes,
            )),
            changes: request.changes.clone(),
            message: request.message.clone(),
            author: request.author.clone(),
            created_by: config.argv().join(" "),
            name: request.name.clone(),
            format: request.format,
        };
        let view = match request.squash {
            true => Some(self.layers(&container)?),
            false => None,
        };
        let made: String = self.in_worker(|store| -> Result<String> {
            let mut options = options;
            let root = view.as_ref().map(|view| view.open(false)).transpose()?;
            let written = match &root {
                Some(_) => None,
                None => Some(store.written(&snapshot)?),
            };
            options.tree = match (&root, &written) {
                (Some(root), _) => format!("/proc/self/fd/{}", root.as_raw_fd()).into(),
                (None, Some(written)) => written.path().to_owned(),
                (None, None) => snapshot.upper.clone(),
            };
            let image = rcon_image::commit::commit(store, &config.image_id, &options, progress)?;
            Ok(image.id)
        })?;
        self.emit_container(&container, Action::Commit);
        self.store
            .image_by_id(&made)?
            .ok_or(Error::NoSuchImage(made))
    }

    /// Writes all files of a container to `out` as an archive, without what is mounted over them.
    ///
    /// # Errors
    /// Files that cannot be read; an `out` that cannot be written.
    pub fn export(&self, name_or_id: &str, out: impl AsFd) -> Result<()> {
        let container = self.container(name_or_id)?;
        if let (Some(engine), None) = (self.arranged_for(&container.config)?, &self.special) {
            return engine.export(name_or_id, out);
        }
        let view = self.layers(&container)?;
        let out = out
            .as_fd()
            .try_clone_to_owned()
            .context(|| "cannot write the archive".into())?;
        self.in_worker(|store| -> Result<()> {
            let root = view.open(false)?;
            let mut out = std::io::BufWriter::with_capacity(128 * 1024, std::fs::File::from(out));
            rcon_store::write_tree_of(&root, TreeForm::Whole, &[], store.shift(), &mut out)
                .map_err(Error::from)
                .and_then(|()| {
                    out.flush()
                        .context(|| "cannot write the archive".to_string())
                })
                .map_err(Error::or_gone_reader)
        })?;
        self.emit_container(&container, Action::Export);
        Ok(())
    }
}

/// The `config` object of an image that starts what the container starts.
fn image_config(image: &[u8], config: &Config, volumes: bool) -> Map<String, Value> {
    let document: Value = serde_json::from_slice(image).unwrap_or_default();
    let mut map = match document.get("config") {
        Some(Value::Object(map)) => map.clone(),
        _ => Map::new(),
    };
    let options = &config.options;
    let mut set = |key: &str, value: Value| {
        map.insert(key.into(), value);
    };
    if let Some(entrypoint) = &options.entrypoint {
        set("Entrypoint", json!(entrypoint));
        // The image's own command was meant for its own entry point.
        set("Cmd", json!(options.command));
    } else if !options.command.is_empty() {
        set("Cmd", json!(options.command));
    }
    if let Some(user) = &options.user {
        set("User", json!(user));
    }
    if let Some(dir) = &options.workdir {
        set("WorkingDir", json!(dir));
    }
    if let Some(number) = options.stop_signal {
        set("StopSignal", json!(number.to_string()));
    }
    let labels = config.labels();
    if !labels.is_empty() {
        set("Labels", json!(labels));
    }
    let mut env: Vec<String> = config.image_config.env.clone();
    for (name, value) in &options.env {
        let prefix = format!("{name}=");
        env.retain(|entry| !entry.starts_with(&prefix));
        env.push(format!("{name}={value}"));
    }
    if !env.is_empty() {
        set("Env", json!(env));
    }
    let mut exposed: BTreeMap<String, Value> = config
        .image_config
        .exposed_ports
        .iter()
        .map(|port| (port.clone(), json!({})))
        .collect();
    exposed.extend(options.expose.iter().map(|p| (p.to_string(), json!({}))));
    for port in config.ports.iter().flat_map(rcon_net::PortMapping::singles) {
        exposed.insert(
            format!("{}/{}", port.container_port, port.protocol),
            json!({}),
        );
    }
    if !exposed.is_empty() {
        set("ExposedPorts", json!(exposed));
    }
    if volumes && !config.volumes.is_empty() {
        let all: BTreeMap<&str, Value> = config
            .volumes
            .iter()
            .map(|v| (v.destination.as_str(), json!({})))
            .collect();
        set("Volumes", json!(all));
    }
    map
}
