//! What is shown of a pull, a load or an import: bars on a terminal, lines elsewhere, all on standard error.
//!
//! The events come in another process than the one that made the [`Reporter`] (images are unpacked in a user namespace), so
//! that everything it knows, it knows from them.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rcon_engine::image::BlobKind;
use rcon_engine::store::Digest;
use rcon_engine::{Progress, PullEvent};

use crate::context::{Context, Level};

/// How often a bar is drawn, whether anything happens or not.
const REDRAWN: Duration = Duration::from_millis(250);

/// Draws what happens.
pub struct Reporter<'a> {
    quiet: bool,
    context: &'a Context,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    started: bool,
    /// Only on a terminal, and only once there is something to draw.
    bars: Option<MultiProgress>,
    blobs: HashMap<Digest, ProgressBar>,
}

impl<'a> Reporter<'a> {
    /// A reporter; a quiet one says nothing but warnings.
    pub fn new(quiet: bool, context: &'a Context) -> Reporter<'a> {
        Reporter {
            quiet,
            context,
            state: Mutex::default(),
        }
    }
}

impl State {
    fn line(&self, text: &str) {
        // Nobody is left to tell when this fails.
        let _ = match &self.bars {
            Some(bars) => bars.println(text),
            None => io::stderr().write_all(format!("{text}\n").as_bytes()),
        };
    }

    fn head(&mut self) {
        if !std::mem::replace(&mut self.started, true) {
            self.line("Getting image source signatures");
            self.bars = io::stderr().is_terminal().then(MultiProgress::new);
        }
    }

    fn start(&mut self, digest: &Digest, kind: BlobKind, size: Option<u64>) {
        self.head();
        let what = match kind {
            BlobKind::Layer => "blob",
            BlobKind::Config => "config",
        };
        let Some(bars) = &self.bars else {
            return self.line(&format!("Copying {what} {digest}"));
        };
        let bar = match size {
            Some(size) => ProgressBar::new(size),
            None => ProgressBar::no_length(),
        };
        let template = match size {
            Some(_) => {
                "{prefix} [{wide_bar}] {bytes} / {total_bytes} | {bytes_per_sec}, {eta} left"
            }
            None => "{prefix} {bytes} | {bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=>-"));
        }
        bar.set_prefix(format!("Copying {what} {}", short(digest)));
        // So that nobody believes the old rate while nothing comes.
        bar.enable_steady_tick(REDRAWN);
        self.blobs.insert(digest.clone(), bars.add(bar));
    }

    fn done(&mut self, digest: &Digest) {
        if let Some(bar) = self.blobs.remove(digest) {
            // A line that stays, in place of the bar.
            let line = format!("{} done", bar.prefix());
            bar.finish_and_clear();
            self.line(&line);
        }
    }
}

fn short(digest: &Digest) -> String {
    let text = digest.to_string();
    let hex = text.split(':').nth(1).unwrap_or(&text);
    hex.chars().take(12).collect()
}

impl Progress for Reporter<'_> {
    fn event(&self, event: PullEvent) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &event {
            PullEvent::Retry {
                reason,
                after,
                attempt,
                of,
            } => {
                let message = format!(
                    "Failed, retrying in {}s ... ({attempt}/{of}). Error: {reason}",
                    after.as_secs().max(1)
                );
                return self.warn(&state, message);
            }
            PullEvent::Warning(text) => return self.warn(&state, text.clone()),
            _ if self.quiet => return,
            _ => {}
        }
        match event {
            PullEvent::Alias { name, file } => {
                state.line(&format!("Resolved {name:?} as an alias ({file})"))
            }
            PullEvent::Unqualified { name, file } => {
                state.line(&format!(
                    "Resolving {name:?} using unqualified-search registries ({file})"
                ));
            }
            PullEvent::Trying { reference } => {
                state.line(&format!("Trying to pull {reference}..."))
            }
            PullEvent::Manifest { .. } => state.head(),
            PullEvent::Start { digest, kind, size } => state.start(&digest, kind, size),
            PullEvent::Exists { digest, .. } => {
                state.head();
                match state.bars.is_some() {
                    true => state.line(&format!(
                        "Copying blob {} skipped: already exists",
                        short(&digest)
                    )),
                    false => state.line(&format!("Copying blob {digest} skipped: already exists")),
                }
            }
            PullEvent::Bytes { digest, done } => {
                if let Some(bar) = state.blobs.get(&digest) {
                    bar.set_position(done);
                }
            }
            PullEvent::Done { digest, .. } => state.done(&digest),
            PullEvent::Writing => state.line("Writing manifest to image destination"),
            // Events that a later version of the image part may have.
            _ => {}
        }
    }
}

impl Reporter<'_> {
    fn warn(&self, state: &State, message: String) {
        match &state.bars {
            // Above the bars, not through them.
            Some(bars) => bars.suspend(|| self.context.log(Level::Warn, || message)),
            None => self.context.log(Level::Warn, || message),
        }
    }
}
