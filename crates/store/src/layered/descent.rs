//! The way down into layers, however deep: what [`rcon_sys::folders::Descent`] is for one tree, for all of them at once.
//!
//! A directory of a layer can be opened again from the one below it. The layers that do not have the directory below have
//! nothing to come back from; there the one they had last stays open, which are never more than there are layers.

use std::collections::VecDeque;

use rcon_sys::folders::FolderId;
use rustix::io::{Errno, Result};

use super::{Layered, Part};

/// How many descriptors of directories above the innermost stay open: no ordinary image needs more.
const OPEN: usize = 128;

/// Where one is in layers, and the way back up.
#[derive(Debug)]
pub struct LayeredDescent {
    here: Layered,
    /// The directories above, the innermost at the end.
    open: VecDeque<Layered>,
    /// Descriptors in these.
    held: usize,
    /// The directories above these.
    closed: Vec<Vec<Left>>,
}

/// What one layer has of a directory that lies far above.
#[derive(Debug)]
enum Left {
    /// The last that the layer has on the way down.
    Last(Part),
    /// It is above what the layer has further down.
    Above {
        id: FolderId,
        layer: usize,
        marked: bool,
        by_name: bool,
    },
}

impl LayeredDescent {
    /// At the root of layers.
    pub fn new(root: Layered) -> Self {
        Self {
            here: root,
            open: VecDeque::new(),
            held: 0,
            closed: Vec::new(),
        }
    }

    /// The directory one is in.
    pub fn here(&self) -> &Layered {
        &self.here
    }

    /// Go on into `inner`, which was entered from the directory that one is in ([`Layered::enter`]), or has nothing.
    ///
    /// # Errors
    /// As fstat(2); then there is no way back.
    pub fn enter(&mut self, inner: Layered) -> Result<()> {
        let above = std::mem::replace(&mut self.here, inner);
        self.held += above.dirs.len();
        self.open.push_back(above);
        while self.held > OPEN
            && let Some(outer) = self.open.pop_front()
        {
            self.held -= outer.dirs.len();
            let below = self.open.front().unwrap_or(&self.here);
            let left = outer.dirs.into_iter().map(|part| {
                Ok(match below.dirs.iter().any(|b| b.layer == part.layer) {
                    true => Left::Above {
                        id: FolderId::of(&part.dir)?,
                        layer: part.layer,
                        marked: part.marked,
                        by_name: part.by_name,
                    },
                    false => Left::Last(part),
                })
            });
            self.closed.push(left.collect::<Result<_>>()?);
        }
        Ok(())
    }

    /// Go back up; the directory that was left. `None`, and nothing happens, at the root.
    ///
    /// # Errors
    /// `ESTALE` when it has been moved somewhere else meanwhile.
    pub fn leave(&mut self) -> Result<Option<Layered>> {
        let above = match self.open.pop_back() {
            Some(above) => {
                self.held -= above.dirs.len();
                above
            }
            None => match self.closed.pop() {
                Some(left) => self.opened_again(left)?,
                None => return Ok(None),
            },
        };
        Ok(Some(std::mem::replace(&mut self.here, above)))
    }

    fn opened_again(&self, left: Vec<Left>) -> Result<Layered> {
        let dirs = left.into_iter().map(|left| match left {
            Left::Last(part) => Ok(part),
            Left::Above {
                id,
                layer,
                marked,
                by_name,
            } => {
                let below = self.here.dirs.iter().find(|part| part.layer == layer);
                Ok(Part {
                    dir: id.above(&below.ok_or(Errno::STALE)?.dir)?,
                    layer,
                    marked,
                    by_name,
                })
            }
        });
        Ok(Layered {
            dirs: dirs.collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::Path;

    use rustix::fs::Mode;

    use super::*;

    /// A chain of as many directories, with a file in each.
    fn chain(top: &Path, depth: usize, file: &str) {
        let mut dir = rcon_sys::folders::open(rustix::fs::CWD, top).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
            dir = rcon_sys::folders::open(&dir, "d").unwrap();
            rustix::fs::mkdirat(&dir, file, Mode::RWXU).unwrap();
        }
    }

    #[test]
    fn layers_of_different_depths_come_back() {
        let temp = tempfile::tempdir().unwrap();
        let depths = [(0, "a", 1500), (1, "b", 3), (2, "c", 1200), (3, "e", 0)];
        let layers: Vec<_> = depths
            .iter()
            .map(|(n, file, depth)| {
                let layer = temp.path().join(n.to_string());
                std::fs::create_dir(&layer).unwrap();
                chain(&layer, *depth, file);
                layer
            })
            .collect();
        let root = Layered::open(layers.iter().map(AsRef::as_ref)).unwrap();
        let mut way = LayeredDescent::new(root);
        let expected = |depth: usize| {
            let mut names: Vec<&str> = depths
                .iter()
                .filter(|(_, _, deepest)| depth > 0 && depth <= *deepest)
                .map(|(_, file, _)| *file)
                .collect();
            names.push("d");
            names
        };
        for depth in 0..1500 {
            assert_eq!(way.here().names().unwrap(), expected(depth), "{depth}");
            way.enter(way.here().enter(OsStr::new("d")).unwrap())
                .unwrap();
        }
        assert!(way.held <= OPEN && way.closed.len() > 1000);
        for depth in (0..1500).rev() {
            assert!(way.leave().unwrap().is_some());
            assert_eq!(way.here().names().unwrap(), expected(depth), "{depth}");
        }
        assert!(way.leave().unwrap().is_none());
    }
}
