//! How containers get one tree of the layers here: the best way that works, or the one that is asked for.

use std::path::PathBuf;

use crate::error::Result;
use crate::store::Store;

/// What the user asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Copies, whatever else works (podman's driver `vfs`).
    pub copies: bool,
    /// fuse-overlayfs, whatever else works.
    pub fuse: bool,
    /// Where that is, if not in the usual places.
    pub program: Option<PathBuf>,
}

/// How it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The kernel's overlay.
    Overlay,
    /// fuse-overlayfs.
    Fuse {
        /// The program.
        program: PathBuf,
        /// Why it is nothing better; for people. Nothing where it was asked for.
        why: Option<String>,
    },
    /// Copies of all layers, for each container.
    Copy {
        /// Why it is nothing better; for people. Nothing where it was asked for.
        why: Option<String>,
    },
}

impl Store {
    /// The way that works. What is best is tried once ([`Store::probe_overlay`]), what is less each time until
    /// it is not needed any more; so the caller must have one thread.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn driver(&self, wish: &Wish) -> Result<Driver> {
        if wish.copies {
            return Ok(Driver::Copy { why: None });
        }
        if let Some(known) = self.driver.get() {
            return Ok(known.clone());
        }
        let found = self.find_driver(wish)?;
        Ok(self.driver.get_or_init(|| found).clone())
    }

    fn find_driver(&self, wish: &Wish) -> Result<Driver> {
        let program = || wish.program.clone().or_else(rcon_sys::fuse::program);
        if let Some(program) = wish.fuse.then(program).flatten() {
            return Ok(Driver::Fuse { program, why: None });
        }
        let overlay = self.probe_overlay()?;
        if overlay.works {
            return Ok(Driver::Overlay);
        }
        let why = overlay.reason.unwrap_or_default();
        let Some(program) = program() else {
            return Ok(Driver::Copy { why: Some(why) });
        };
        Ok(match self.try_fuse(&program)? {
            None => Driver::Fuse {
                program,
                why: Some(why),
            },
            Some(reason) => {
                // The remedy stays at the end.
                let why = match why.split_once("; ") {
                    Some((why, help)) => format!("{why}, and {reason}; {help}"),
                    None => format!("{why}, and {reason}"),
                };
                Driver::Copy { why: Some(why) }
            }
        })
    }
}
