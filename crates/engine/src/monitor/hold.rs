//! A container that is set up, and whose program waits to be started (`container init`).
//!
//! Who starts it holds the container's lock and asks us; the record is ours to write, as while the container runs. Should
//! we be killed first, the process that waits ends, and the next command puts the record back (`crate::recovery`).

use chrono::Utc;

use super::serve::Monitor;
use super::setup;
use crate::error::{Error, Result};
use crate::files::{self, Durable};
use crate::health::HealthState;
use crate::protocol::{Reply, Report};
use crate::record::{ProcessRef, State, Status};
use crate::{limits, records};

impl Monitor {
    /// Starts the program for the client `at`, and says what came of it.
    pub(super) fn begin_program(&mut self, at: usize) {
        let report = match self.begin_held() {
            Ok(process) => Report::Started {
                process,
                streams: Vec::new(),
            },
            Err(error) => Report::failed(&error),
        };
        let text = serde_json::to_vec(&report).unwrap_or_default();
        self.clients[at].send(&Reply::Begun(&text));
    }

    fn begin_held(&mut self) -> Result<ProcessRef> {
        let process = self.process().ok_or(Error::ExecNotRunning)?;
        let Some(waiting) = self.started.held.take() else {
            // Somebody else was quicker.
            return Ok(process);
        };
        let dir = self.engine.paths.container(self.container.id());
        let before = self.container.state.clone();
        let health = &self.container.config.lifecycle.health;
        self.container.state = State {
            status: Status::Running,
            started: Some(Utc::now()),
            finished: None,
            exit_code: 0,
            oom_killed: false,
            stopped_by_user: false,
            error: String::new(),
            health: health.check.as_ref().map(|_| HealthState::default()),
            ..before.clone()
        };
        // Before it does anything, as with any start.
        if let Err(error) = records::save_state(&dir, &self.container.state, Durable::No) {
            self.container.state = before;
            self.started.held = Some(waiting);
            return Err(error);
        }
        match waiting.start() {
            Ok(()) => {
                self.begin();
                self.note_start(&[]);
                Ok(process)
            }
            Err(error) => {
                self.take_back(before.before_it_was_set_up());
                Err(error.into())
            }
        }
    }

    /// Leaves nothing of a container that could not be started.
    fn take_back(&mut self, before: State) {
        self.taken_back = true;
        // Nothing of it was ever sent.
        self.started.net = None;
        limits::finish(&self.engine.paths, self.container.id());
        let _ = files::remove_tree(&self.engine.paths.runtime(self.container.id()));
        self.container.state = before;
        setup::unwrite(&self.engine, &self.container);
    }
}
