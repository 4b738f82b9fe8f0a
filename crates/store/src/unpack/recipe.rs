//! What an archive has besides the content of its files, so that it can be made again.
//!
//! An unpacked layer does not remember how its archive was written: the order of the entries, the
//! kinds of headers, owners that could not be had, devices that were left out. But only the archive
//! to the last bit has the layer's diff id. So while a layer is unpacked everything that is not the
//! content of a file is noted in a small compressed file beside its tree, and each content by the
//! name and the place where it went: the recipe (the idea is tar-split's, the form is our own).
//!
//! ```text
//! "rcon recipe 1\n", then, all of it in zstd:
//!   0 LEN BYTES     these bytes as they are
//!   1 LEN NAME      what follows is in this file of the tree
//!   2 OFFSET LEN    so many bytes of it
//!   3               the end
//! ```
//!
//! Numbers are in base 128, the lowest digit first, all but the last with the highest bit set. A
//! header takes some 40 bytes like this. What an archive has in it that is no file can be as large as
//! its sender likes: beyond [`LIMIT`] no recipe is kept, and the layer cannot be pushed or saved.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::name::split_last;
use super::shown;
use super::tree::Tree;

/// Bytes that a recipe may take on disk.
pub(crate) const LIMIT: u64 = 128 << 20;

const MAGIC: &[u8] = b"rcon recipe 1\n";

/// Literal bytes gathered before they are written.
const GATHER: usize = 64 * 1024;

/// Longest name that is read back.
const NAME_MAX: u64 = 1 << 20;

const LITERAL: u8 = 0;
const NAME: u8 = 1;
const CONTENT: u8 = 2;
const END: u8 = 3;

/// Writes a recipe.
pub(crate) struct Recorder {
    /// Nothing once it has become too large.
    out: Option<zstd::stream::write::Encoder<'static, Limited>>,
    literal: Vec<u8>,
    name: Vec<u8>,
}

/// A file that takes no more than so much.
struct Limited {
    file: File,
    left: u64,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let count = self.file.write(bytes)?;
        self.left -= count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Recorder {
    /// Write into `file`, at most `limit` bytes.
    pub(crate) fn new(file: File, limit: u64) -> io::Result<Self> {
        // The lowest level: it is done while a pull waits for it.
        let mut out = zstd::stream::write::Encoder::new(Limited { file, left: limit }, 1)?;
        out.write_all(MAGIC)?;
        Ok(Self {
            out: Some(out),
            literal: Vec::with_capacity(GATHER),
            name: Vec::new(),
        })
    }

    /// These bytes are in the archive.
    pub(super) fn literal(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.out.is_none() {
            return Ok(());
        }
        self.literal.extend_from_slice(bytes);
        if self.literal.len() >= GATHER {
            return self.flush();
        }
        Ok(())
    }

    /// Then come `len` bytes that went to `offset` in the file `name`.
    pub(super) fn content(&mut self, name: &[u8], offset: u64, len: u64) -> io::Result<()> {
        if self.out.is_none() || len == 0 {
            return Ok(());
        }
        self.flush()?;
        let mut step = Vec::with_capacity(name.len() + 32);
        if self.name != name {
            step.push(NAME);
            number(&mut step, name.len() as u64);
            step.extend_from_slice(name);
            self.name = name.to_vec();
        }
        step.push(CONTENT);
        number(&mut step, offset);
        number(&mut step, len);
        self.write(&step)
    }

    /// That was all; whether there is a recipe.
    pub(super) fn finish(mut self) -> io::Result<bool> {
        self.flush()?;
        self.write(&[END])?;
        match self.out.take().map(zstd::stream::write::Encoder::finish) {
            None => Ok(false),
            Some(Err(error)) if error.kind() == io::ErrorKind::FileTooLarge => Ok(false),
            Some(done) => done.map(|_| true),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.literal.is_empty() {
            return Ok(());
        }
        let mut head = vec![LITERAL];
        number(&mut head, self.literal.len() as u64);
        self.write(&head)?;
        let literal = std::mem::take(&mut self.literal);
        self.write(&literal)?;
        self.literal = literal;
        self.literal.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.out.as_mut().map(|out| out.write_all(bytes)) {
            Some(Err(error)) if error.kind() == io::ErrorKind::FileTooLarge => {
                self.out = None;
                self.literal = Vec::new();
                Ok(())
            }
            other => other.unwrap_or(Ok(())),
        }
    }
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_number(source: &mut impl Read) -> io::Result<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let digit = read_byte(source)?;
        value |= u64::from(digit & 0x7f) << shift;
        if digit & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(damaged("it has a number that is too long"))
}

fn read_byte(source: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    source.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// Make the archive again: what `recipe` says, with contents from the tree at `root`.
///
/// Whether it is the same archive only its digest can tell; an error of the kind `InvalidData`
/// says that it cannot be.
pub(crate) fn follow(recipe: File, root: &OwnedFd, out: &mut dyn Write) -> io::Result<()> {
    let decoder = zstd::stream::read::Decoder::new(recipe)?;
    let mut steps = BufReader::with_capacity(GATHER, decoder);
    let mut magic = [0; MAGIC.len()];
    steps.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(damaged("it is of another kind"));
    }
    let mut tree = Tree::new(root.as_fd());
    let mut buffer = vec![0; 2 * GATHER];
    let mut current: Option<(Vec<u8>, File)> = None;
    loop {
        match read_byte(&mut steps)? {
            LITERAL => {
                let mut left = read_number(&mut steps)?;
                while left > 0 {
                    let available = steps.fill_buf()?;
                    let count = (available.len() as u64).min(left) as usize;
                    if count == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    out.write_all(&available[..count])?;
                    steps.consume(count);
                    left -= count as u64;
                }
            }
            NAME => {
                let len = read_number(&mut steps)?;
                if len > NAME_MAX {
                    return Err(damaged("it has a name that is too long"));
                }
                let mut name = vec![0; len as usize];
                steps.read_exact(&mut name)?;
                let file = open(&mut tree, &name)?;
                current = Some((name, file));
            }
            CONTENT => {
                let mut offset = read_number(&mut steps)?;
                let mut left = read_number(&mut steps)?;
                let Some((name, file)) = &current else {
                    return Err(damaged("it names no file"));
                };
                while left > 0 {
                    let want = (buffer.len() as u64).min(left) as usize;
                    let count =
                        std::os::unix::fs::FileExt::read_at(file, &mut buffer[..want], offset)?;
                    if count == 0 {
                        return Err(damaged(&format!("{} is shorter than it was", shown(name))));
                    }
                    out.write_all(&buffer[..count])?;
                    offset += count as u64;
                    left -= count as u64;
                }
            }
            END => return Ok(()),
            _ => return Err(damaged("it has an unknown step")),
        }
    }
}

fn open(tree: &mut Tree<'_>, name: &[u8]) -> io::Result<File> {
    let (dir, last) = split_last(name);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = tree
        .existing(dir)
        .and_then(|dir| rustix::fs::openat(&*dir, last, flags, Mode::empty()));
    match opened {
        Ok(fd) => {
            let file = File::from(fd);
            if file.metadata()?.is_file() {
                return Ok(file);
            }
            Err(damaged(&format!("{} is no file any more", shown(name))))
        }
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            Err(damaged(&format!("{} is not there any more", shown(name))))
        }
        Err(error) => Err(error.into()),
    }
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;

    fn rewound(file: &File) -> File {
        let mut file = file.try_clone().unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn numbers_come_back() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            number(&mut bytes, value);
            assert_eq!(read_number(&mut &bytes[..]).unwrap(), value);
        }
        assert!(read_number(&mut &[0xff_u8; 11][..]).is_err());
        assert!(read_number(&mut &[0x80_u8][..]).is_err());
    }

    #[test]
    fn a_recipe_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/f"), "0123456789").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let root = OwnedFd::from(File::open(dir.path()).unwrap());
        let made = |steps: &dyn Fn(&mut Recorder)| {
            let file = tempfile::tempfile().unwrap();
            let mut recorder = Recorder::new(file.try_clone().unwrap(), LIMIT).unwrap();
            steps(&mut recorder);
            assert!(recorder.finish().unwrap());
            let mut out = Vec::new();
            follow(rewound(&file), &root, &mut out).map(|()| out)
        };
        let out = made(&|r| {
            r.literal(b"<").unwrap();
            r.literal(b"<").unwrap();
            r.content(b"d/f", 0, 4).unwrap();
            r.content(b"d/f", 8, 2).unwrap();
            r.literal(&[b'x'; 200_000]).unwrap();
        });
        let expected = [&b"<<012389"[..], &[b'x'; 200_000]].concat();
        assert_eq!(out.unwrap(), expected);
        for (name, len) in [(&b"d/f"[..], 11), (b"d/g", 1), (b"link", 1), (b"d", 1)] {
            let error = made(&|r| r.content(name, 0, len).unwrap()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
    }

    #[test]
    fn too_large_ones_are_not_kept() {
        let file = tempfile::tempfile().unwrap();
        let mut recorder = Recorder::new(file, 1000).unwrap();
        let mut state = 1_u64;
        for _ in 0..100_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            recorder.literal(&state.to_le_bytes()).unwrap();
        }
        assert!(!recorder.finish().unwrap());
    }

    #[test]
    fn damaged_ones_are_refused() {
        let root = OwnedFd::from(File::open("/").unwrap());
        let packed = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&zstd::encode_all(bytes, 1).unwrap())
                .unwrap();
            follow(rewound(&file), &root, &mut io::sink())
        };
        assert!(packed(b"rcon recipe 1\n\x03").is_ok());
        for bad in [
            &b""[..],
            b"rcon recipe 2\n\x03",
            b"rcon recipe 1\n",
            b"rcon recipe 1\n\x09",
            b"rcon recipe 1\n\x02\x00\x01\x03",
            b"rcon recipe 1\n\x00\x05abc",
            b"rcon recipe 1\n\x01\xff\xff\xff\xff\xff\xff\x7f",
        ] {
            assert!(packed(bad).is_err(), "{bad:?}");
        }
    }
}
