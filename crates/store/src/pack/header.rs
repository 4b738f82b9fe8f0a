//! The blocks in front of each entry: POSIX ustar, with extended headers for what does not fit.

use std::io::{self, Write};

/// Size of a header, and what all data is filled up to.
pub(super) const BLOCK: usize = 512;

/// What an entry says of itself.
pub(super) struct Head<'a> {
    /// The kind, in ustar's letters.
    pub(super) kind: u8,
    pub(super) name: &'a [u8],
    /// Target of a link.
    pub(super) link: &'a [u8],
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// Bytes of data that follow.
    pub(super) size: u64,
    /// Whole seconds, as all engines write them.
    pub(super) mtime: i64,
    pub(super) device: (u32, u32),
    pub(super) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl Head<'_> {
    /// Write the header, and one with attributes before it if need be.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut block = Ustar([0; BLOCK]);
        let mut extended = Vec::new();
        let mut number = |block: &mut Ustar, at: (usize, usize), value: i64, key: &str| {
            if !block.octal(at, value) {
                block.octal(at, 0);
                record(&mut extended, key.as_bytes(), value.to_string().as_bytes());
            }
        };
        number(&mut block, (100, 8), i64::from(self.mode), "mode");
        number(&mut block, (108, 8), signed(self.uid), "uid");
        number(&mut block, (116, 8), signed(self.gid), "gid");
        number(&mut block, (124, 12), signed(self.size), "size");
        number(&mut block, (136, 12), self.mtime, "mtime");
        for (field, text, key) in [
            ((0, 100), self.name, "path"),
            ((157, 100), self.link, "linkpath"),
        ] {
            if text.len() > field.1 || !text.is_ascii() {
                record(&mut extended, key.as_bytes(), text);
            }
            block.text(field.0, &text[..text.len().min(field.1)]);
        }
        for (name, value) in self.xattrs {
            record(
                &mut extended,
                &[b"SCHILY.xattr.", &name[..]].concat(),
                value,
            );
        }
        block.octal((329, 8), i64::from(self.device.0));
        block.octal((337, 8), i64::from(self.device.1));
        if !extended.is_empty() {
            let mut before = Ustar([0; BLOCK]);
            let name = [b"PaxHeaders.0/", self.name].concat();
            before.text(0, &name[..name.len().min(100)]);
            before.octal((100, 8), 0o644);
            for at in [(108, 8), (116, 8), (136, 12)] {
                before.octal(at, 0);
            }
            before.octal((124, 12), extended.len() as i64);
            out.write_all(before.finish(b'x'))?;
            out.write_all(&extended)?;
            fill(out, extended.len() as u64)?;
        }
        out.write_all(block.finish(self.kind))
    }
}

/// Zeros up to the next block after `size` bytes of data.
pub(super) fn fill(out: &mut dyn Write, size: u64) -> io::Result<()> {
    let count = (size.wrapping_neg() % BLOCK as u64) as usize;
    out.write_all(&[0; BLOCK][..count])
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    out.extend_from_slice(format!("{len} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

struct Ustar([u8; BLOCK]);

impl Ustar {
    fn text(&mut self, at: usize, text: &[u8]) {
        self.0[at..at + text.len()].copy_from_slice(text);
    }

    /// A number in octal digits and a zero; whether it fits.
    fn octal(&mut self, (at, len): (usize, usize), value: i64) -> bool {
        let text = format!("{value:0width$o}", width = len - 1);
        if value < 0 || text.len() >= len {
            return false;
        }
        self.text(at, text.as_bytes());
        true
    }

    fn finish(&mut self, kind: u8) -> &[u8; BLOCK] {
        self.0[156] = kind;
        self.text(257, b"ustar\x0000");
        self.text(148, b"        ");
        let sum: u32 = self.0.iter().map(|&byte| u32::from(byte)).sum();
        self.text(148, format!("{sum:06o}\0 ").as_bytes());
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_themselves() {
        for len in 1..1200 {
            let mut out = Vec::new();
            record(&mut out, b"path", &vec![b'x'; len]);
            let said = std::str::from_utf8(&out)
                .unwrap()
                .split(' ')
                .next()
                .unwrap();
            assert_eq!(said.parse::<usize>().unwrap(), out.len());
        }
    }
}
