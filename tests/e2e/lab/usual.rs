//! What many scenarios do: a script in a container, a container that only sleeps, a web server, a host of one's own.

use std::sync::Arc;

use super::host::Host;
use super::{Mode, Output, Rcon, lab};

impl Rcon {
    /// `run --rm OPTIONS IMAGE sh -c SCRIPT`
    #[track_caller]
    pub fn sh(&self, options: &[&str], image: &str, script: &str) -> Output {
        self.run(&[&["run", "--rm"], options, &[image, "sh", "-c", script]].concat())
    }

    /// `run --name NAME IMAGE sh -c SCRIPT`, to its end
    #[track_caller]
    pub fn named_sh(&self, name: &str, image: &str, script: &str) -> Output {
        self.run(&["run", "--name", name, image, "sh", "-c", script])
    }

    /// `run -d --name NAME OPTIONS IMAGE sleep 1000`; the container's id.
    #[track_caller]
    pub fn sleeper(&self, name: &str, options: &[&str], image: &str) -> String {
        self.detached(name, options, &[image, "sleep", "1000"])
    }

    /// A detached container with busybox's web server for `/var/www` on its port 80; its id.
    #[track_caller]
    pub fn web(&self, name: &str, options: &[&str], image: &str) -> String {
        self.detached(
            name,
            options,
            &[image, "httpd", "-f", "-p", "80", "-h", "/var/www"],
        )
    }

    #[track_caller]
    fn detached(&self, name: &str, options: &[&str], what: &[&str]) -> String {
        self.ok(&[&["run", "-d", "--name", name], options, what].concat())
    }

    /// Moves to a host of its own, with an image of the lab's there; its name. `None` where a host cannot be made.
    #[track_caller]
    pub fn on_host(&mut self, image: &str) -> Option<(Arc<Host>, String)> {
        let host = Host::new()?;
        self.move_to(&host);
        let image = host.image(image);
        self.ok(&["pull", "-q", &image]);
        Some((host, image))
    }

    /// Whether root may do here what only root can, once for both kinds of users.
    pub fn is_roots(&self) -> bool {
        lab().root && self.mode == Mode::ManyIds
    }
}
