//! An archive or a folder that files are put into, one after the other.

use super::Output;
use crate::archive::source::Cancel;
use crate::{Error, Result};
use rcon_sys::errors::in_words;
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// What writes the content of a file.
pub(crate) type Content<'a> = dyn FnMut(&mut dyn Write) -> Result<()> + 'a;

/// Takes files.
pub(crate) trait Place {
    /// Is it there already, by that name? Only asked of names that say what is in the file.
    fn has(&self, name: &str, size: u64) -> bool;
    /// Put a file there, of exactly that size.
    fn put(&mut self, name: &str, size: u64, content: &mut Content<'_>) -> Result<()>;
    /// That was all: make it visible.
    fn finish(self: Box<Self>) -> Result<()>;
    /// For messages.
    fn shown(&self) -> String;
}

/// Put bytes there.
pub(crate) fn put_bytes(place: &mut dyn Place, name: &str, bytes: &[u8]) -> Result<()> {
    let shown = place.shown();
    place.put(name, bytes.len() as u64, &mut |out| {
        out.write_all(bytes).map_err(|e| writing(&shown, e))
    })
}

/// What could not be written.
pub(crate) fn writing(name: &str, source: io::Error) -> Error {
    Error::Io {
        what: format!("writing {name}"),
        source,
    }
}

/// Refuses to write more once it is cancelled, and counts.
struct Counted<'a> {
    out: &'a mut dyn Write,
    cancel: &'a Cancel,
    count: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.cancel.check()?;
        let count = self.out.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn write_exactly(
    out: &mut dyn Write,
    size: u64,
    cancel: &Cancel,
    name: &str,
    content: &mut Content<'_>,
) -> Result<()> {
    let mut counted = Counted {
        out,
        cancel,
        count: 0,
    };
    content(&mut counted)?;
    if counted.count != size {
        return Err(Error::SizeMismatch {
            what: format!("writing {name}"),
            expected: size,
            actual: counted.count,
        });
    }
    Ok(())
}

/// A tar.
pub(crate) struct Archive {
    out: BufWriter<Box<dyn Write>>,
    /// The file that becomes the archive in the end.
    staged: Option<(NamedTempFile, PathBuf)>,
    names: HashSet<String>,
    name: String,
    cancel: Cancel,
}

impl Archive {
    pub fn create(output: &Output, cancel: &Cancel) -> Result<Archive> {
        let (out, staged, name): (Box<dyn Write>, _, _) = match output {
            Output::Stdout => {
                // Not through the standard library's buffer, which would keep a part of it.
                let out = unbuffered_stdout().map_err(|e| writing("standard output", e))?;
                (Box::new(out), None, "standard output".to_owned())
            }
            Output::Path(path) => {
                let name = path.display().to_string();
                let failed = |e| writing(&name, e);
                match std::fs::metadata(path) {
                    // A pipe or a device is written into.
                    Ok(meta) if !meta.is_file() => {
                        let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
                        (Box::new(file), None, name)
                    }
                    _ => {
                        let file = staged(path).map_err(failed)?;
                        let out = file.as_file().try_clone().map_err(failed)?;
                        (Box::new(out), Some((file, path.clone())), name)
                    }
                }
            }
        };
        Ok(Archive {
            out: BufWriter::with_capacity(256 * 1024, out),
            staged,
            names: HashSet::new(),
            name,
            cancel: cancel.clone(),
        })
    }
}

fn unbuffered_stdout() -> io::Result<File> {
    use std::os::fd::AsFd;
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// An unfinished file beside `path`.
fn staged(path: &Path) -> io::Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    tempfile::Builder::new()
        .prefix(".rcon-")
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(dir)
        // The name that was made up is nobody's business.
        .map_err(|e| e.raw_os_error().map_or(e, io::Error::from_raw_os_error))
}

impl Place for Archive {
    fn has(&self, name: &str, _size: u64) -> bool {
        self.names.contains(name)
    }

    fn put(&mut self, name: &str, size: u64, content: &mut Content<'_>) -> Result<()> {
        let failed = |e| writing(&self.name, e);
        let mut header = tar::Header::new_ustar();
        header.set_path(name).map_err(failed)?;
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(failed)?;
        write_exactly(&mut self.out, size, &self.cancel, &self.name, content)?;
        let padding = size.wrapping_neg() % 512;
        let zeros = [0; 512];
        self.out
            .write_all(&zeros[..padding as usize])
            .map_err(|e| writing(&self.name, e))?;
        self.names.insert(name.to_owned());
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let name = self.name.clone();
        let failed = |e| writing(&name, e);
        self.out.write_all(&[0; 1024]).map_err(failed)?;
        self.out.flush().map_err(failed)?;
        if let Some((file, path)) = self.staged.take() {
            file.persist(path).map_err(|e| failed(e.error))?;
        }
        Ok(())
    }

    fn shown(&self) -> String {
        self.name.clone()
    }
}

/// A folder.
pub(crate) struct Folder {
    path: PathBuf,
    cancel: Cancel,
}

impl Folder {
    /// Make it. One that is there must be empty, or have a file `mark`.
    pub fn create(path: &Path, mark: &str, cancel: &Cancel) -> Result<Folder> {
        let name = path.display().to_string();
        std::fs::create_dir_all(path).map_err(|e| writing(&name, e))?;
        let mut inside = std::fs::read_dir(path).map_err(|e| writing(&name, e))?;
        if inside.next().is_some() && !path.join(mark).exists() {
            return Err(Error::Unsupported(format!(
                "writing {name}: there is something in it that is no image, and that is left alone"
            )));
        }
        Ok(Folder {
            path: path.to_owned(),
            cancel: cancel.clone(),
        })
    }

    /// A file that is there already.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::Unsupported(format!(
                "reading {}: {}",
                path.display(),
                in_words(&e)
            ))),
        }
    }
}

impl Place for Folder {
    fn has(&self, name: &str, size: u64) -> bool {
        std::fs::metadata(self.path.join(name)).is_ok_and(|m| m.is_file() && m.len() == size)
    }

    fn put(&mut self, name: &str, size: u64, content: &mut Content<'_>) -> Result<()> {
        let path = self.path.join(name);
        let shown = path.display().to_string();
        let failed = |e| writing(&shown, e);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let file = staged(&path).map_err(failed)?;
        let mut out = BufWriter::with_capacity(256 * 1024, file.as_file());
        write_exactly(&mut out, size, &self.cancel, &shown, content)?;
        out.flush().map_err(failed)?;
        drop(out);
        file.persist(&path).map_err(|e| failed(e.error))?;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }
}
