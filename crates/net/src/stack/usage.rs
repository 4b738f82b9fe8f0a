//! How many flows of a kind there are, and were.

use crate::slab::Slab;

/// Numbers of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Now.
    pub(crate) now: u64,
    /// Since the start.
    pub(crate) opened: u64,
    /// Not made, or ended to make room.
    pub(crate) turned_away: u64,
}

impl Usage {
    /// The numbers of a table.
    pub(crate) fn of<T>(table: &Slab<T>, turned_away: u64) -> Usage {
        Usage {
            now: table.len() as u64,
            opened: table.inserted(),
            turned_away,
        }
    }
}
