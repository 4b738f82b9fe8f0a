//! An archive or a folder as a set of named files, readable in any order and by several at once.

use super::source::{Cancel, Cancellable, damaged};
use crate::{Error, Result};
use rcon_store::{Digest, Store};
use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// An archive does not hold more files: each layer is one.
const FILES_MAX: usize = 20_000;
/// Nor does one of them have a longer name, or more said about it: the library keeps that in memory, whatever its length.
const HEADERS_MAX: u64 = 4 << 20;
/// Links to links are followed so far.
const LINKS_MAX: usize = 8;

/// The files.
pub(crate) struct Files {
    /// For messages.
    pub name: String,
    cancel: Cancel,
    place: Place,
}

enum Place {
    Folder(PathBuf),
    Tar {
        file: File,
        index: HashMap<String, Entry>,
    },
}

enum Entry {
    File { offset: u64, size: u64 },
    Link(String),
}

impl Files {
    /// A folder.
    pub fn folder(path: &Path, cancel: &Cancel) -> Files {
        Files {
            name: path.display().to_string(),
            cancel: cancel.clone(),
            place: Place::Folder(path.to_owned()),
        }
    }

    /// A tar in a regular file, perhaps compressed (then it is written out first).
    pub fn from_file(mut file: File, store: &Store, name: &str, cancel: &Cancel) -> Result<Files> {
        let mut start = [0; 6];
        let count = file.read_at(&mut start, 0).map_err(|e| damaged(name, &e))?;
        if rcon_store::Compression::sniff(&start[..count]) == Ok(rcon_store::Compression::None) {
            return Files::index(file, name, cancel);
        }
        file.seek(SeekFrom::Start(0))
            .map_err(|e| damaged(name, &e))?;
        Files::from_stream(file, store, name, cancel)
    }

    /// A tar that comes as a stream.
    pub fn from_stream(
        stream: impl Read,
        store: &Store,
        name: &str,
        cancel: &Cancel,
    ) -> Result<Files> {
        let stream = Cancellable(stream, cancel.clone());
        let mut plain = rcon_store::decompress(stream).map_err(|e| damaged(name, &e))?;
        let dir = store.root().join("tmp");
        let mut file = tempfile::tempfile_in(&dir).map_err(Error::io("making a file in", &dir))?;
        let mut piece = vec![0; 256 * 1024];
        loop {
            let count = match plain.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(damaged(name, &e)),
            };
            io::Write::write_all(&mut file, &piece[..count])
                .map_err(Error::io("writing to a file in", &dir))?;
        }
        file.seek(SeekFrom::Start(0))
            .map_err(|e| damaged(name, &e))?;
        Files::index(file, name, cancel)
    }

    fn index(file: File, name: &str, cancel: &Cancel) -> Result<Files> {
        // What the library says of a header that is none quotes the file, line breaks and all.
        let bad = |e: io::Error| match e.kind() {
            io::ErrorKind::Other | io::ErrorKind::InvalidData if cancel.check().is_ok() => {
                Error::Archive {
                    archive: name.to_owned(),
                    why: "it is not a tar archive, or a damaged one".to_owned(),
                }
            }
            _ => damaged(name, &e),
        };
        let mut index = HashMap::new();
        let left = Cell::new(HEADERS_MAX);
        let mut archive = tar::Archive::new(Headers {
            file: &file,
            left: &left,
        });
        for entry in archive.entries_with_seek().map_err(bad)? {
            cancel.check().map_err(bad)?;
            let entry = entry.map_err(bad)?;
            left.set(HEADERS_MAX);
            let Some(path) = plain_name(&entry.path_bytes()) else {
                continue;
            };
            let kind = entry.header().entry_type();
            let found = if kind.is_file() || kind.is_contiguous() {
                Entry::File {
                    offset: entry.raw_file_position(),
                    size: entry.size(),
                }
            } else if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = String::from_utf8_lossy(&target).into_owned();
                let from = if kind.is_symlink() { parent(&path) } else { "" };
                match joined(from, &target) {
                    Some(target) => Entry::Link(target),
                    None => continue,
                }
            } else {
                continue;
            };
            if index.len() >= FILES_MAX {
                return Err(Error::Archive {
                    archive: name.to_owned(),
                    why: format!("it holds more than {FILES_MAX} files"),
                });
            }
            index.insert(path, found);
        }
        Ok(Files {
            name: name.to_owned(),
            cancel: cancel.clone(),
            place: Place::Tar { file, index },
        })
    }

    /// Is it a folder?
    pub fn is_folder(&self) -> bool {
        matches!(self.place, Place::Folder(_))
    }

    /// Is nothing in it?
    pub fn is_empty(&self) -> bool {
        matches!(&self.place, Place::Tar { index, .. } if index.is_empty())
    }

    /// Open a file by its name in the archive, and its size.
    pub fn open(&self, path: &str) -> Result<Option<(Box<dyn Read + Send>, u64)>> {
        let reader: (Box<dyn Read + Send>, u64) = match &self.place {
            Place::Folder(dir) => {
                let path = dir.join(path);
                let meta = match std::fs::metadata(&path) {
                    Err(e)
                        if matches!(
                            e.kind(),
                            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                        ) =>
                    {
                        return Ok(None);
                    }
                    other => other.map_err(Error::io("opening", &path))?,
                };
                if !meta.is_file() {
                    return Err(self.damaged(format!("{} is no regular file", path.display())));
                }
                let file = File::open(&path).map_err(Error::io("opening", &path))?;
                (Box::new(file), meta.len())
            }
            Place::Tar { file, index } => {
                let Some((offset, size)) = find(index, path) else {
                    return Ok(None);
                };
                let file = file.try_clone().map_err(|e| damaged(&self.name, &e))?;
                (
                    Box::new(Slice {
                        file,
                        offset,
                        left: size,
                    }),
                    size,
                )
            }
        };
        let (reader, size) = reader;
        Ok(Some((
            Box::new(Cancellable(reader, self.cancel.clone())),
            size,
        )))
    }

    /// A small file whole; `None` if it is not there.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some((reader, size)) = self.open(path)? else {
            return Ok(None);
        };
        if size > limit {
            return Err(Error::TooLarge {
                what: format!("{path} in {}", self.name),
                limit,
            });
        }
        let mut bytes = Vec::new();
        reader
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| damaged(&self.name, &e))?;
        Ok(Some(bytes))
    }

    /// A small file that must be there, and be what its digest says.
    pub fn read_blob(&self, path: &str, expected: &Digest, limit: u64) -> Result<Vec<u8>> {
        let bytes = self
            .read(path, limit)?
            .ok_or_else(|| self.damaged(format!("{path} is missing")))?;
        let actual = Digest::of(expected.algorithm(), &bytes);
        if actual != *expected {
            return Err(Error::DigestMismatch {
                what: format!("loading {}", self.name),
                expected: expected.clone(),
                actual,
            });
        }
        Ok(bytes)
    }

    /// An error about this archive.
    pub fn damaged(&self, why: impl Into<String>) -> Error {
        Error::Archive {
            archive: self.name.clone(),
            why: why.into(),
        }
    }
}

fn find(index: &HashMap<String, Entry>, path: &str) -> Option<(u64, u64)> {
    let mut path = plain_name(path.as_bytes())?;
    for _ in 0..LINKS_MAX {
        match index.get(&path)? {
            Entry::File { offset, size } => return Some((*offset, *size)),
            Entry::Link(target) => path.clone_from(target),
        }
    }
    None
}

/// A name without `./`, doubled slashes and the like; `None` if it leads out.
fn plain_name(bytes: &[u8]) -> Option<String> {
    joined("", std::str::from_utf8(bytes).ok()?)
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn joined(dir: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in dir.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// An archive of which only what is in front of each file is read, and no more than [`HEADERS_MAX`] of that at once.
struct Headers<'a> {
    file: &'a File,
    left: &'a Cell<u64>,
}

impl Read for Headers<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buf)?;
        let left = self.left.get().checked_sub(count as u64);
        self.left.set(left.ok_or(io::ErrorKind::InvalidData)?);
        Ok(count)
    }
}

impl Seek for Headers<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// A part of a file, read without moving anybody else's position.
struct Slice {
    file: File,
    offset: u64,
    left: u64,
}

impl Read for Slice {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let wanted = buf
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.file.read_at(&mut buf[..wanted], self.offset)?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive ends in the middle of a file",
            ));
        }
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(plain_name(b"./a//b/").as_deref(), Some("a/b"));
        assert_eq!(plain_name(b"../a"), None);
        assert_eq!(
            joined("x/y", "../z/layer.tar").as_deref(),
            Some("x/z/layer.tar")
        );
        assert_eq!(joined("x", "../../etc"), None);
    }

    #[test]
    fn links_are_followed_within() {
        let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, "a/layer.tar", &b"hello"[..])
            .unwrap();
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        builder
            .append_link(&mut link, "b/layer.tar", "../a/layer.tar")
            .unwrap();
        builder.append_link(&mut link, "loop", "loop").unwrap();
        let file = builder.into_inner().unwrap();
        let files = Files::index(reopen(file), "test", &Cancel::default()).unwrap();
        assert_eq!(files.read("./b/layer.tar", 10).unwrap().unwrap(), b"hello");
        assert!(files.read("b/layer.tar", 2).is_err());
        assert!(files.read("loop", 2).unwrap().is_none());
        assert!(files.read("none", 2).unwrap().is_none());
    }

    #[test]
    fn names_without_end_are_not_kept_in_memory() {
        let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(2 * HEADERS_MAX);
        let name = io::repeat(b'a').take(2 * HEADERS_MAX);
        builder.append_data(&mut header, "long", name).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        builder.append_data(&mut header, "x", io::empty()).unwrap();
        let file = reopen(builder.into_inner().unwrap());
        assert!(Files::index(file, "test", &Cancel::default()).is_err());
    }

    fn reopen(mut file: File) -> File {
        file.seek(SeekFrom::Start(0)).unwrap();
        file
    }
}
