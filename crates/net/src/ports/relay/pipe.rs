//! Pipes for splice(2), lent to whoever is moving bytes at the moment.
//!
//! The kernel grants a user so many pages for pipes in all (pipe(7): pipe-user-pages-soft); beyond
//! that a new pipe holds two pages, and splicing through it is slower than copying. So few pipes
//! are kept, each is looked at, and who gets none copies.

use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

/// The size that is asked for, in bytes.
const WANTED: usize = 256 * 1024;
/// The size that is worth it, in bytes.
const ENOUGH: usize = 64 * 1024;
/// How many pipes are kept for the next.
const KEPT: usize = 4;
/// After a pipe was refused, how often it is not tried again: making a short one and closing it is
/// a tenth of what copying costs.
const REFUSALS: u32 = 256;

/// A pipe, and how much is in it.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) reader: OwnedFd,
    pub(super) writer: OwnedFd,
    /// How much it holds, in bytes.
    pub(super) size: usize,
    /// How much is in it, in bytes.
    pub(super) filled: usize,
}

/// The pipes that nobody uses at the moment.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    idle: Vec<Pipe>,
    /// How often more there is none without asking.
    refusals: u32,
}

impl Pipes {
    /// As where the user's pipes hold all they may.
    #[cfg(test)]
    pub(super) fn refused() -> Pipes {
        Pipes {
            refusals: u32::MAX,
            ..Pipes::default()
        }
    }

    /// An empty pipe that is large enough, if there is one to be had.
    pub(super) fn get(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.idle.pop() {
            return Some(pipe);
        }
        if self.refusals > 0 {
            self.refusals -= 1;
            return None;
        }
        let pipe = Self::make();
        if pipe.is_none() {
            self.refusals = REFUSALS;
        }
        pipe
    }

    fn make() -> Option<Pipe> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let size = fcntl_setpipe_size(&writer, WANTED)
            .or_else(|_| fcntl_getpipe_size(&writer))
            .ok()?;
        (size >= ENOUGH).then_some(Pipe {
            reader,
            writer,
            size,
            filled: 0,
        })
    }

    /// Takes a pipe back; one with something in it is of no use to others.
    pub(super) fn put(&mut self, pipe: Pipe) {
        if pipe.filled == 0 && self.idle.len() < KEPT {
            self.idle.push(pipe);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_used_again_unless_something_is_left_in_them() {
        let mut pipes = Pipes::default();
        let Some(mut pipe) = pipes.get() else {
            // This user has pipes without end elsewhere: then we would copy.
            return;
        };
        assert!(pipe.size >= ENOUGH);
        pipe.filled = 1;
        pipes.put(pipe);
        assert!(pipes.idle.is_empty());
        if let Some(pipe) = pipes.get() {
            pipes.put(pipe);
            assert_eq!(pipes.idle.len(), 1);
        }
        // After a refusal those that are there are lent, and others not asked for so soon.
        pipes.refusals = 2;
        pipes.idle.clear();
        assert!(pipes.get().is_none() && pipes.get().is_none());
        assert_eq!(pipes.refusals, 0);
    }
}
