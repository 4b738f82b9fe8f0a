//! `cp`: files and directories between a container and here, or between two containers.
//!
//! Whoever has the source sends a line about it and then an archive; whoever has the destination decides by that line where
//! it goes, as podman does. The two are joined by a pipe. The side of a container is a child that is root over its ids.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rcon_sys::owner::TrueOwner;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawMode, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::error::{Context, Error, Result};
use crate::record::Container;
use crate::rootfs::View;
use crate::rootfs::notes::Notes;
use crate::rootfs::pack::{is_dir, pack};
use crate::rootfs::place::Place;
use crate::rootfs::users::{open_inside, user_ids};

/// One end of a copy.
#[derive(Clone, Debug)]
pub enum CopyEnd {
    /// A path here.
    Here(PathBuf),
    /// A path in a container.
    In {
        /// Name or id.
        container: String,
        /// The path, as it was said.
        path: String,
    },
    /// An archive on standard input or output.
    Stream,
}

/// How to copy.
#[derive(Clone, Copy, Debug)]
pub struct CopyRequest {
    /// `-a`: what is copied into a container belongs to the container's user.
    pub archive: bool,
    /// `--overwrite`: directories may take the place of files, and files that of directories.
    pub overwrite: bool,
}

/// What the destination must know of the source.
#[derive(Debug, Serialize, Deserialize)]
struct Source {
    /// It is a directory.
    dir: bool,
    /// Its content is meant (`dir/.`).
    content: bool,
    /// Its last name.
    name: String,
}

/// A place in a container that is written to.
struct Inside<'a> {
    view: &'a View,
    container: &'a Container,
    path: &'a str,
    /// The container whose user gets the files.
    owner: Option<&'a Container>,
    notes: Option<Notes>,
}

/// The one name all entries of the archive begin with.
const TOP: &str = "top";

impl Engine {
    /// Copies files.
    ///
    /// # Errors
    /// In podman's words, for what is not there, or cannot go where it is to.
    pub fn copy(&self, from: &CopyEnd, to: &CopyEnd, request: &CopyRequest) -> Result<()> {
        let (reader, writer) = io::pipe().context(|| "cannot make a pipe".into())?;
        // A child closes the end it has no use for, else the other side would not see it go.
        let (reader, writer) = (Cell::new(Some(reader)), Cell::new(Some(writer)));
        let source = self.side(from)?;
        let target = self.side(to)?;
        let bare = matches!(to, CopyEnd::Stream);
        let sender = source.as_ref().map(|(container, view, path)| {
            self.beside(container, view, |out| {
                drop(reader.take());
                let result = match writer.take() {
                    Some(writer) => self.notes(container).and_then(|notes| {
                        send_inside(view, container, path, bare, notes.as_ref(), &writer)
                    }),
                    None => Ok(()),
                };
                tell(out, result)
            })
        });
        let sender = sender.transpose()?;
        let receiver = target.as_ref().map(|(container, view, path)| {
            self.beside(container, view, |out| {
                drop(writer.take());
                let owner = request.archive.then_some(container);
                let result = self.notes(container).and_then(|notes| {
                    let to = Inside {
                        view,
                        container,
                        path,
                        owner,
                        notes,
                    };
                    match (from, reader.take()) {
                        (CopyEnd::Stream, _) => receive_archive(to, request, io::stdin()),
                        (_, Some(reader)) => receive_inside(to, request, &reader),
                        (_, None) => Ok(()),
                    }
                });
                tell(out, result)
            })
        });
        let receiver = receiver.transpose()?;
        let (reader, writer) = (reader.take(), writer.take());
        let here = match (from, to, reader, writer) {
            (CopyEnd::Here(path), _, reader, Some(writer)) => {
                drop(reader);
                send_here(path, &self.maps, &writer)
            }
            (_, CopyEnd::Here(path), Some(reader), writer) => {
                drop(writer);
                receive_here(path, request, &reader)
            }
            (_, CopyEnd::Stream, Some(mut reader), writer) => {
                drop(writer);
                io::copy(&mut reader, &mut io::stdout())
                    .map(drop)
                    .context(|| "cannot write the archive".into())
                    .map_err(Error::or_gone_reader)
            }
            _ => Ok(()),
        };
        // Who reads and fails lets the writer fail too, with nothing to say but that.
        let quiet = |child: Option<rcon_sys::userns::Worker>| match child.map_or(Ok(()), finish) {
            Err(Error::Remote { message, .. }) if message.is_empty() => Ok(()),
            other => other,
        };
        let (sent, received) = (quiet(sender), quiet(receiver));
        sent?;
        received?;
        here
    }

    /// The notes on the owners of a container's files, where it takes them.
    fn notes(&self, container: &Container) -> Result<Option<Notes>> {
        if !self.maps.is_single() {
            return Ok(None);
        }
        let beside = self.store.owners_file(container.id());
        Notes::open(&beside).on("open", &beside).map(Some)
    }

    fn side<'e>(&self, end: &'e CopyEnd) -> Result<Option<(Container, View, &'e str)>> {
        match end {
            CopyEnd::In { container, path } => {
                let container = self.container(container)?;
                let view = self.view(&container)?;
                Ok(Some((container, view, path)))
            }
            _ => Ok(None),
        }
    }
}

fn is_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// What a child says at its end: nothing, or why it failed. A pipe that nobody reads any more is the other's story.
fn tell(out: &mut dyn Write, result: Result<()>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(Error::Io { source, .. }) if is_pipe(&source) => 1,
        Err(error) => {
            let _ = out.write_all(error.to_string().as_bytes());
            1
        }
    }
}

fn finish(child: rcon_sys::userns::Worker) -> Result<()> {
    let (status, said) = child
        .finish()
        .context(|| "cannot reach the files of the container".into())?;
    match status.success() {
        true => Ok(()),
        false if said.is_empty() && status.code() != Some(1) => Err(crate::worker::powerless()),
        false => Err(Error::Remote {
            message: String::from_utf8_lossy(&said).into_owned(),
            code: 125,
            hint: None,
        }),
    }
}

fn announce(source: &Source, mut out: impl Write) -> Result<()> {
    let mut line = serde_json::to_vec(source).unwrap_or_default();
    line.push(b'\n');
    out.write_all(&line).context(|| "cannot copy".into())
}

fn heard(from: &mut impl BufRead) -> Result<Option<Source>> {
    let mut line = String::new();
    from.read_line(&mut line).context(|| "cannot copy".into())?;
    match line.is_empty() {
        // The other side says why.
        true => Ok(None),
        false => serde_json::from_str(&line)
            .map(Some)
            .map_err(|e| Error::Invalid(format!("cannot copy: {e}"))),
    }
}

/// The last name of a path as it was said; of what has none (`/`, `.`) the path's own.
fn last_name(path: &Path) -> String {
    let name = path.file_name().map(OsStr::to_os_string);
    let name = name.or_else(|| {
        let full = path.canonicalize().ok()?;
        full.file_name().map(OsStr::to_os_string)
    });
    name.map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

/// Whether the content of a directory is meant.
fn means_content(path: &str) -> bool {
    path == "." || path == "/" || path.ends_with("/.")
}

fn send_here(path: &Path, maps: &rcon_sys::ids::IdMaps, out: &io::PipeWriter) -> Result<()> {
    let text = path.to_string_lossy();
    let missing = |error: Errno| {
        Error::Invalid(format!(
            "{text:?} could not be found on the host: {}",
            rcon_sys::errors::in_words(&error.into())
        ))
    };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(missing)?;
    let dir = is_dir(&file).map_err(missing)?;
    announce(
        &Source {
            dir,
            content: means_content(&text),
            name: last_name(path),
        },
        out,
    )
    .or_else(ignored)?;
    let inside = |ranges: &[rcon_sys::ids::IdRange], id: u32| {
        let range = ranges.iter().find(|r| id >= r.host && id - r.host < r.len);
        range.map_or(0, |r| r.container + (id - r.host))
    };
    let owner = |_: BorrowedFd<'_>, _: Option<&OsStr>, stat: &Stat| {
        let (uid, gid) = (stat.st_uid, stat.st_gid);
        Some((inside(&maps.uid, uid), inside(&maps.gid, gid)))
    };
    pack(file, Path::new(TOP), &owner, out)
        .context(|| format!("cannot copy {text}"))
        .or_else(ignored)
}

/// Whoever reads has gone, and says why.
fn ignored(error: Error) -> Result<()> {
    match error {
        Error::Io { source, .. } if is_pipe(&source) => Ok(()),
        error => Err(error),
    }
}

/// A path of a container as podman takes it: from its root.
fn from_root(path: &str) -> PathBuf {
    Path::new("/").join(path)
}

fn missing(path: &str, container: &Container, error: Errno) -> Error {
    Error::Invalid(format!(
        "{path:?} could not be found on container {}: {}",
        container.config.name,
        rcon_sys::errors::in_words(&error.into())
    ))
}

fn send_inside(
    view: &View,
    container: &Container,
    path: &str,
    bare: bool,
    notes: Option<&Notes>,
    out: &io::PipeWriter,
) -> Result<()> {
    let root = view.open(false)?;
    let full = from_root(path);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = open_inside(&root, &full, flags).map_err(|e| missing(path, container, e))?;
    let dir = is_dir(&file).map_err(|e| missing(path, container, e))?;
    if path.ends_with('/') && !dir {
        return Err(missing(path, container, Errno::NOTDIR));
    }
    let name = last_name_inside(&full);
    let top = match bare {
        true if means_content(path) => PathBuf::new(),
        true => PathBuf::from(&name),
        false => {
            announce(
                &Source {
                    dir,
                    content: means_content(path),
                    name,
                },
                out,
            )?;
            PathBuf::from(TOP)
        }
    };
    let owner = |at: BorrowedFd<'_>, name: Option<&OsStr>, stat: &Stat| {
        let plain = TrueOwner::new(stat.st_uid, stat.st_gid);
        let owner = notes.map_or(plain, |notes| notes.of(at, name, stat));
        // What stands for a device means nothing elsewhere.
        owner.device.is_none().then_some((owner.uid, owner.gid))
    };
    pack(file, &top, &owner, out).context(|| format!("cannot copy {path}"))
}

fn last_name_inside(path: &Path) -> String {
    let name = path.file_name();
    name.map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

fn receive_here(path: &Path, request: &CopyRequest, from: &io::PipeReader) -> Result<()> {
    let mut from = BufReader::new(from);
    let Some(source) = heard(&mut from)? else {
        return Ok(());
    };
    let text = path.to_string_lossy();
    let not_found = || {
        Error::Invalid(format!(
            "{text:?} could not be found on the host: no such file or directory"
        ))
    };
    let is_there = path.metadata();
    let (base, name) = match &is_there {
        Ok(meta) if meta.is_dir() => match source.content {
            true => (path.to_path_buf(), String::new()),
            false => (path.to_path_buf(), source.name.clone()),
        },
        Ok(_) if source.dir && !request.overwrite => return Err(no_directory()),
        _ if text.ends_with('/') && !source.dir => return Err(not_found()),
        _ => {
            let name = path.file_name().ok_or_else(not_found)?;
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            (
                parent.unwrap_or(Path::new(".")).to_path_buf(),
                name.to_string_lossy().into_owned(),
            )
        }
    };
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, &base, flags, Mode::empty()).map_err(|_| not_found())?;
    let place = Place {
        root,
        base: PathBuf::new(),
        inside: false,
        owner: None,
        notes: None,
        overwrite: request.overwrite,
    };
    place
        .unpack(&mut from, Some(OsStr::new(&name)))
        .context(|| format!("cannot copy to {text}"))
}

fn no_directory() -> Error {
    Error::Invalid("destination must be a directory when copying a directory".into())
}

fn receive_inside(to: Inside<'_>, request: &CopyRequest, from: &io::PipeReader) -> Result<()> {
    let mut from = BufReader::new(from);
    let Some(source) = heard(&mut from)? else {
        return Ok(());
    };
    let (path, container) = (to.path, to.container);
    let root = to.view.open(true)?;
    let (base, name) = target(&root, path, &source, container, request)?;
    place(root, base, to, request)
        .unpack(&mut from, Some(&name))
        .context(|| {
            format!(
                "cannot copy to {path} in container {}",
                container.config.name
            )
        })
}

fn receive_archive(to: Inside<'_>, request: &CopyRequest, from: impl Read) -> Result<()> {
    let (path, container) = (to.path, to.container);
    let root = to.view.open(true)?;
    let base = from_root(path);
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    if open_inside(&root, &base, flags).is_err() {
        return Err(Error::Invalid(
            "destination must be a directory when copying from stdin".into(),
        ));
    }
    let from = rcon_store::decompress(from).context(|| "cannot read the archive".into())?;
    place(root, base, to, request)
        .unpack(from, None)
        .context(|| {
            format!(
                "cannot copy to {path} in container {}",
                container.config.name
            )
        })
}

fn place(root: OwnedFd, base: PathBuf, to: Inside<'_>, request: &CopyRequest) -> Place {
    let owner = to.owner.map(|container| {
        let user = container.config.options.user.clone();
        let user = user.or_else(|| container.config.image_config.user.clone());
        user_ids(&root, user.as_deref().unwrap_or_default())
    });
    Place {
        root,
        base,
        inside: true,
        owner,
        notes: to.notes,
        overwrite: request.overwrite,
    }
}

/// The directory to write to and the name to give, in a container.
fn target(
    root: &OwnedFd,
    path: &str,
    source: &Source,
    container: &Container,
    request: &CopyRequest,
) -> Result<(PathBuf, OsString)> {
    const MAX_LINKS: usize = 40;
    let mut full = from_root(path);
    for _ in 0..MAX_LINKS {
        if open_inside(root, &full, OFlags::PATH | OFlags::DIRECTORY).is_ok() {
            return Ok(match source.content {
                true => (full, OsString::new()),
                false => (full, OsString::from(&source.name)),
            });
        }
        let name = match full.components().next_back() {
            Some(Component::Normal(name)) => name.to_os_string(),
            _ => return Err(missing(path, container, Errno::NOENT)),
        };
        let parent = full.parent().unwrap_or(Path::new("/")).to_path_buf();
        let above = open_inside(root, &parent, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(|_| missing(path, container, Errno::NOENT))?;
        let there = rustix::fs::statat(&above, &name, AtFlags::SYMLINK_NOFOLLOW);
        match there.map(|stat| FileType::from_raw_mode(stat.st_mode as RawMode)) {
            // A link to a file, or to nothing: what it points to is meant.
            Ok(FileType::Symlink) => {
                let to = rustix::fs::readlinkat(&above, &name, Vec::new())
                    .map_err(|e| missing(path, container, e))?;
                full = parent.join(to.to_string_lossy().as_ref());
            }
            Ok(_) if source.dir && !request.overwrite => return Err(no_directory()),
            Err(_) if path.ends_with('/') && !source.dir => {
                return Err(missing(path, container, Errno::NOENT));
            }
            _ => return Ok((parent, name)),
        }
    }
    Err(missing(path, container, Errno::LOOP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_they_are_said() {
        for path in [".", "/", "a/.", "/a/b/."] {
            assert!(means_content(path), "{path}");
        }
        assert!(!means_content("a/") && !means_content("a.") && !means_content("/a"));
        assert_eq!(last_name(Path::new("a/b/")), "b");
        assert_eq!(from_root("tmp/x"), Path::new("/tmp/x"));
    }
}
