//! How containers get one tree of the layers here: the best way that works, or the one that is asked for.

use crate::error::Result;
use crate::store::Store;

/// What the user asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Copies, whatever else works (podman's driver `vfs`).
    pub copies: bool,
}

/// How it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The kernel's overlay.
    Overlay,
    /// Copies of all layers, for each container.
    Copy {
        /// Why it is nothing better; for people. Nothing where it was asked for.
        why: Option<String>,
    },
}

impl Store {
    /// The way that works. Tried once ([`Store::probe_overlay`]), so the caller must have one thread.
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
        let found = self.find_driver()?;
        Ok(self.driver.get_or_init(|| found).clone())
    }

    fn find_driver(&self) -> Result<Driver> {
        let overlay = self.probe_overlay()?;
        Ok(match overlay.works {
            true => Driver::Overlay,
            false => Driver::Copy {
                why: Some(overlay.reason.unwrap_or_default()),
            },
        })
    }
}
