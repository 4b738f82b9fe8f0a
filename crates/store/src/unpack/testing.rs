//! Archives for tests, written byte by byte so that they can be wrong in any way.

use super::header::BLOCK;

/// A record of an extended header.
pub(super) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    let mut record = format!("{len} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// Builds an archive.
#[derive(Clone, Default)]
pub(super) struct Tar {
    bytes: Vec<u8>,
}

/// What goes into a header.
#[derive(Clone)]
pub(super) struct Item<'a> {
    pub(super) kind: u8,
    pub(super) name: &'a [u8],
    pub(super) link: &'a [u8],
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
    pub(super) data: &'a [u8],
    /// What the header says instead of the length of the data.
    pub(super) size: Option<u64>,
    /// Bytes written over the header from an offset, before the checksum.
    pub(super) patch: Option<(usize, &'a [u8])>,
}

impl<'a> Item<'a> {
    pub(super) fn new(kind: u8, name: &'a str) -> Self {
        Self {
            kind,
            name: name.as_bytes(),
            link: b"",
            mode: if kind == b'5' { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            mtime: 1_000_000_000,
            data: b"",
            size: None,
            patch: None,
        }
    }
}

impl Tar {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn add(mut self, item: &Item<'_>) -> Self {
        assert!(item.name.len() <= 100 && item.link.len() <= 100);
        let mut block = [0; BLOCK];
        block[..item.name.len()].copy_from_slice(item.name);
        let octal = |block: &mut [u8; BLOCK], at: usize, digits: usize, value: u64| {
            let text = format!("{value:0digits$o}");
            block[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        octal(&mut block, 100, 7, item.mode.into());
        octal(&mut block, 108, 7, item.uid.into());
        octal(&mut block, 116, 7, item.gid.into());
        octal(
            &mut block,
            124,
            11,
            item.size.unwrap_or(item.data.len() as u64),
        );
        if item.mtime >= 0 {
            octal(&mut block, 136, 11, item.mtime.unsigned_abs());
        } else {
            block[136..140].fill(0xff);
            block[140..148].copy_from_slice(&item.mtime.to_be_bytes());
        }
        block[156] = item.kind;
        block[157..157 + item.link.len()].copy_from_slice(item.link);
        block[257..265].copy_from_slice(b"ustar  \0");
        if let Some((at, bytes)) = item.patch {
            block[at..at + bytes.len()].copy_from_slice(bytes);
        }
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        octal(&mut block, 148, 6, sum);
        block[154] = 0;
        self.bytes.extend_from_slice(&block);
        self.raw(item.data)
    }

    /// Data, filled up to whole blocks.
    pub(super) fn raw(mut self, data: &[u8]) -> Self {
        self.bytes.extend_from_slice(data);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        self
    }

    pub(super) fn file(self, name: &str, data: &str) -> Self {
        self.add(&Item {
            data: data.as_bytes(),
            ..Item::new(b'0', name)
        })
    }

    pub(super) fn dir(self, name: &str) -> Self {
        self.add(&Item::new(b'5', name))
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.add(&Item {
            link: target.as_bytes(),
            ..Item::new(b'2', name)
        })
    }

    pub(super) fn link(self, name: &str, target: &str) -> Self {
        self.add(&Item {
            link: target.as_bytes(),
            ..Item::new(b'1', name)
        })
    }

    /// An extended header for the next entry.
    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let data: Vec<u8> = records
            .iter()
            .flat_map(|(key, value)| record(key, value))
            .collect();
        self.add(&Item {
            data: &data,
            ..Item::new(b'x', "pax")
        })
    }

    /// A long name for the next entry.
    pub(super) fn long_name(self, name: &[u8]) -> Self {
        self.add(&Item {
            data: name,
            ..Item::new(b'L', "././@LongLink")
        })
    }

    /// A long target for the next entry.
    pub(super) fn long_link(self, target: &[u8]) -> Self {
        self.add(&Item {
            data: target,
            ..Item::new(b'K', "././@LongLink")
        })
    }

    /// The archive without an end.
    pub(super) fn open(self) -> Vec<u8> {
        self.bytes
    }

    /// The whole archive.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }
}
