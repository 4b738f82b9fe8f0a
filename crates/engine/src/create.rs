//! Making a container.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chrono::Utc;
use rcon_bundle::{ImageConfig, Source};
use rcon_store::Snapshot;

use crate::compact::compact;
use crate::error::{Context, Error, Result};
use crate::events::Action;
use crate::files::{self, Durable};
use crate::joining::Joined;
use crate::record::{Config, Container, FORMAT, Network, ProcessRef, State};
use crate::records::{self, Lock};
use crate::{Arrangement, CreateRequest, Engine, accounts, bundling, limits, names, volumes};

impl Engine {
    /// Makes a container; it is there wholly or not at all, also after a crash of the machine.
    ///
    /// # Errors
    /// [`Error::NameInUse`], options that do not go together, no space.
    pub fn create(&self, request: CreateRequest) -> Result<Container> {
        self.create_as(request, State::default(), Durable::Yes)
            .map(|(container, ..)| container)
    }

    /// [`Engine::create`], for one who starts the container too, and has its lock and its root file system for that: nobody
    /// hears of it before it runs, and if we are killed until then, it is removed by the next command that comes along.
    pub(crate) fn create_to_run(
        &self,
        request: CreateRequest,
    ) -> Result<(Container, Lock, Snapshot)> {
        let state = State {
            creator: ProcessRef::of(rustix::process::getpid().as_raw_nonzero().get()),
            boot_id: rcon_sys::process::boot_id().to_owned(),
            ..State::default()
        };
        self.create_as(request, state, Durable::No)
    }

    fn create_as(
        &self,
        request: CreateRequest,
        state: State,
        durable: Durable,
    ) -> Result<(Container, Lock, Snapshot)> {
        let (mut config, special, _ids) = self.checked(&request)?;
        config.by_run = Some(state.creator.is_some());
        let engine = special.as_ref().unwrap_or(self);
        let (unborn, lock) = self.make_place(&config.id)?;
        engine.make(&request, config, state, &unborn, lock, durable)
    }

    /// Refuses, before the container is removed whose name the new one is to have, what making it would refuse; and what
    /// starting it would, with `start`, as far as that can be known.
    ///
    /// # Errors
    /// As [`Engine::create`]; when the new one needs what is to be removed.
    pub fn check_replacement(&self, request: &CreateRequest, start: bool) -> Result<()> {
        let with_usual_ids;
        let request = match request.arrangement {
            // Those of its own are looked for when the old one has given its back.
            Arrangement::Auto { .. } => {
                with_usual_ids = CreateRequest {
                    arrangement: Arrangement::Usual,
                    ..request.clone()
                };
                &with_usual_ids
            }
            _ => request,
        };
        let (config, ..) = self.checked(request)?;
        let name = request.name.as_deref().unwrap_or_default();
        let old = records::name_holder(&self.paths, name);
        if let Some(old) = old.and_then(|id| self.current(&id).ok().flatten()) {
            let id = old.config.id.as_str();
            let joins = matches!(&config.network, Network::Container(other) if other == id)
                || config.sharing.dependencies().contains(&id);
            // Those it has alone go with it.
            let mut lost = old.config.volumes.iter();
            let inherits = old.config.auto_remove
                && lost.any(|v| v.anonymous && request.volumes_from.contains(&v.name));
            if joins || inherits {
                return Err(Error::Invalid(format!(
                    "container {name} cannot be replaced by one that needs {} of it",
                    if joins { "a namespace" } else { "a volume" }
                )));
            }
        }
        if start {
            Joined::find(self, &config)?;
        }
        Ok(())
    }

    /// What the request comes to; all that is wrong with it has been looked for. With it, what [`Engine::arranged_for`] gives,
    /// and the lock that keeps others from the same ids.
    fn checked(&self, request: &CreateRequest) -> Result<(Config, Option<Engine>, Option<Lock>)> {
        if let Some(path) = &request.cidfile
            && path.symlink_metadata().is_ok()
        {
            return Err(Error::Invalid(format!(
                "container ID file {} exists: another container may use it, or delete the file",
                path.display()
            )));
        }
        let (config, ids) = self.config(request)?;
        let special = self.arranged_for(&config)?;
        let engine = special.as_ref().unwrap_or(self);
        // What cannot be started shall not be made either.
        bundling::check(engine, &config)?;
        accounts::check(&config)?;
        limits::settings(&config, false)?;
        Ok((config, special, ids))
    }

    /// The directory a container is made in, and its lock. Whoever looks between the two takes it for what a killed creator
    /// left and sweeps it away; then it is made again.
    pub(crate) fn make_place(&self, id: &str) -> Result<(PathBuf, Lock)> {
        let unborn = records::unborn(&self.paths, id);
        for _ in 0..64 {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(&unborn)
                .on("create", &unborn)?;
            if let Some(lock) = Lock::take(&unborn)? {
                return Ok((unborn, lock));
            }
        }
        Err(Error::Invalid(
            "the new container is swept away again and again".into(),
        ))
    }

    /// Fills the directory, takes the name, and lets the container be seen.
    fn make(
        &self,
        request: &CreateRequest,
        mut config: Config,
        state: State,
        unborn: &Path,
        lock: Lock,
        durable: Durable,
    ) -> Result<(Container, Lock, Snapshot)> {
        let mut cidfile = None;
        let result = (|| {
            self.take_name(request, &mut config)?;
            let snapshot = self.make_snapshot(&config.id, &request.image)?;
            let snapshot = self.put_together(snapshot)?;
            files::write_new(unborn, "config.json", &compact(&config))?;
            let has_own = config.volumes.iter().any(|volume| volume.anonymous);
            if has_own {
                // Should we be killed, they are nobody's.
                files::write_new(unborn, records::MAKING, &true)?;
            }
            let held = self.make_volumes(&config, &request.volumes_from, &snapshot)?;
            self.copy_secrets(&config, unborn)?;
            if state.creator.is_some() {
                files::write_new(unborn, records::CREATOR, &state)?;
            }
            if let Some(path) = &request.cidfile {
                write_cidfile(path, &config.id)?;
                cidfile = Some(path);
            }
            let dir = self.paths.container(&config.id);
            fs::rename(unborn, &dir).on("create", &dir)?;
            drop(held);
            if has_own {
                files::remove_file(&dir.join(records::MAKING))?;
            }
            match durable {
                Durable::Yes => files::sync(&dir, "config.json").on("write", &dir)?,
                Durable::No => {}
            }
            Ok(snapshot)
        })();
        let snapshot = result.inspect_err(|_: &Error| {
            records::drop_name(&self.paths, &config.name, &config.id);
            // The first failure is what matters; what stays is swept by the next command.
            let _ = self.discard_snapshot(&config.id);
            let _ = self.discard_anonymous_volumes(&config, None);
            let _ = files::remove_tree(unborn);
            let _ = files::remove_tree(&self.paths.container(&config.id));
            if let Some(path) = cidfile {
                let _ = files::remove_file(path);
            }
        })?;
        let container = Container { config, state };
        self.emit_container(&container, Action::Create);
        Ok((container, lock, snapshot))
    }

    fn take_name(&self, request: &CreateRequest, config: &mut Config) -> Result<()> {
        if let Some(name) = &request.name {
            config.name.clone_from(name);
            if records::claim_name(&self.paths, name, &config.id)? {
                return Ok(());
            }
            let id = records::name_holder(&self.paths, name).unwrap_or_default();
            // The holder may be one that nobody is going to start, and gone once it is looked at.
            if matches!(self.current(&id), Ok(None))
                && records::claim_name(&self.paths, name, &config.id)?
            {
                return Ok(());
            }
            return Err(Error::NameInUse {
                name: name.clone(),
                id,
            });
        }
        for attempt in 0..64 {
            config.name = names::random(attempt)?;
            if records::claim_name(&self.paths, &config.name, &config.id)? {
                return Ok(());
            }
        }
        Err(Error::Invalid("no free name was found".into()))
    }

    /// The network that is asked for, another container by its id.
    fn network(&self, request: &CreateRequest) -> Result<Network> {
        let Network::Container(name) = &request.network else {
            return Ok(request.network.clone());
        };
        let other = self.container(name)?.config;
        Ok(match other.network {
            // The host's is nobody's to be joined.
            Network::Host => Network::Host,
            _ => Network::Container(other.id),
        })
    }

    /// What the request comes to.
    fn config(&self, request: &CreateRequest) -> Result<(Config, Option<Lock>)> {
        if let Some(name) = request
            .name
            .as_deref()
            .filter(|name| !records::valid_name(name))
        {
            return Err(Error::BadName(name.to_string()));
        }
        let image_config = ImageConfig::parse(&request.image.config()?)?;
        let mut options = request.options.clone();
        for mount in &mut options.mounts {
            if let Source::Image(name) = &mut mount.source {
                // Whatever becomes of its names.
                *name = self.find_image(name)?.id;
            }
        }
        let network = self.network(request)?;
        options.network = match network {
            Network::Host => rcon_bundle::Network::Host,
            Network::None | Network::Slirp(_) => rcon_bundle::Network::Private,
            Network::Container(_) | Network::Path(_) => rcon_bundle::Network::Joined,
        };
        let sharing = self.share(&request.sharing, &mut options)?;
        let (arranged, lock) = self.arrange(&request.arrangement, &mut options)?;
        let mut config = Config {
            format: FORMAT,
            id: names::random_id()?,
            name: String::new(),
            created: Utc::now(),
            image_id: request.image.id.clone(),
            image_name: request.image_name.clone(),
            image_digest: request.image.manifest_digest.to_string(),
            image_config,
            options,
            network,
            sharing,
            arranged,
            ports: Vec::new(),
            names: request.names.clone(),
            auto_remove: request.auto_remove,
            restart: request.restart,
            lifecycle: request.lifecycle.clone(),
            cgroup: request.cgroup.clone(),
            volumes: Vec::new(),
            secrets: self.find_secrets(&request.secrets)?,
            create_command: request.create_command.clone(),
            by_run: None,
        };
        let lifecycle = &mut config.lifecycle;
        request.health.apply(
            &mut lifecycle.health,
            config.image_config.healthcheck.as_ref(),
        )?;
        lifecycle.coherent()?;
        config.lifecycle.cidfile.clone_from(&request.cidfile);
        // Without a network of its own there is nothing to publish, as podman sees it too.
        if matches!(config.network, Network::Slirp(_)) {
            config.ports = bundling::ports(&config, &request.publish, request.publish_all)?;
        }
        config.volumes =
            volumes::uses(rcon_bundle::volumes(&config.image_config, &config.options))?;
        Ok((config, lock))
    }
}

fn write_cidfile(path: &Path, id: &str) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
        .on("create", path)?;
    let written = file.write_all(id.as_bytes()).on("write", path);
    // Half of it would only keep the next container from being made.
    written.inspect_err(|_| {
        let _ = files::remove_file(path);
    })
}
