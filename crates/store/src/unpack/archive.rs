//! The sequence of entries in an archive.
//!
//! Not the iterator of the tar crate: that one keeps names and attributes of any length in
//! memory, takes a line feed in an attribute's value for its end, does not know POSIX sparse
//! files, and gives some entries data that Go's archive/tar does not give them.

use std::collections::BTreeMap;
use std::io::BufRead;

use tar::Header;

use super::header::{self, BLOCK, Fields, Kind};
use super::pax::{self, Extended, Time};
use super::recipe::Recorder;
use super::sparse::{self, Region};
use super::{bad, shown};
use crate::error::{Error, Result};

/// The most that a name or the attributes of one entry may take, in bytes (Go's limit, too).
const SPECIAL_LIMIT: u64 = 1 << 20;

/// One entry, everything that is said about it put together.
#[derive(Debug)]
pub(super) struct Entry {
    /// Never one of the kinds that only describe another entry, nor `Sparse`.
    pub(super) kind: Kind,
    /// As written.
    pub(super) name: Vec<u8>,
    /// Target of a link, as written.
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mtime: Time,
    /// Bytes of the file, with its holes.
    pub(super) size: u64,
    /// Where the data in the archive belongs, for a file with holes.
    pub(super) map: Option<Vec<Region>>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// An archive that is being read.
pub(super) struct Archive<R> {
    source: R,
    /// Data of the current entry that was not read yet.
    left: u64,
    /// What fills up its last block.
    padding: u64,
    /// Notes what is needed to make the archive again.
    recorder: Option<Recorder>,
}

impl<R: BufRead> Archive<R> {
    pub(super) fn new(source: R, recorder: Option<Recorder>) -> Self {
        Self {
            source,
            left: 0,
            padding: 0,
            recorder,
        }
    }

    /// Read what comes after the last entry; whether there is a recipe of the archive.
    pub(super) fn finish(mut self) -> Result<bool> {
        let Some(mut recorder) = self.recorder.take() else {
            return Ok(false);
        };
        loop {
            let rest = self.source.fill_buf().map_err(Error::Stream)?;
            let count = rest.len();
            if count == 0 {
                return recorder.finish().map_err(unrecorded);
            }
            recorder.literal(rest).map_err(unrecorded)?;
            self.source.consume(count);
        }
    }

    /// The next entry; `None` at the end. Data of the one before that was not read is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        let (mut long_name, mut long_link, mut extended) = (None, None, None);
        loop {
            let Some(block) = self.header()? else {
                if long_name.is_some() || long_link.is_some() || extended.is_some() {
                    return Err(cut_off());
                }
                return Ok(None);
            };
            let fields = header::parse(&block).map_err(|why| {
                let name = header::until_zero(&Header::from_byte_slice(&block).as_old().name);
                bad(name, why)
            })?;
            match fields.kind {
                Kind::LongName => long_name = Some(self.special_text(&fields)?),
                Kind::LongLink => long_link = Some(self.special_text(&fields)?),
                Kind::Extended => {
                    let text = self.special(&fields)?;
                    extended = Some(pax::parse(&text).map_err(|why| bad(&fields.name, why))?);
                }
                Kind::Global => {
                    self.special(&fields)?;
                }
                _ => {
                    let extended = extended.unwrap_or_default();
                    return self
                        .entry(&block, fields, long_name, long_link, extended)
                        .map(Some);
                }
            }
        }
    }

    /// Read exactly `len` bytes of the data of the current entry, in pieces as they come.
    fn data(&mut self, len: u64, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut recorder = self.recorder.take();
        let done = self.take(len, |piece| {
            if let Some(recorder) = &mut recorder {
                recorder.literal(piece).map_err(unrecorded)?;
            }
            each(piece)
        });
        self.recorder = recorder;
        done
    }

    /// The same for data that goes to `offset` in the file `name` of the tree.
    pub(super) fn content(
        &mut self,
        name: &[u8],
        offset: u64,
        len: u64,
        each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        if let Some(recorder) = &mut self.recorder {
            recorder.content(name, offset, len).map_err(unrecorded)?;
        }
        self.take(len, each)
    }

    fn take(&mut self, mut len: u64, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while len > 0 {
            let available = self.source.fill_buf().map_err(Error::Stream)?;
            let count = (available.len() as u64).min(len).min(self.left);
            if count == 0 {
                return Err(cut_off());
            }
            // Not more than a buffer has.
            each(&available[..count as usize])?;
            self.source.consume(count as usize);
            self.left -= count;
            len -= count;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        fields: Fields,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        extended: Extended,
    ) -> Result<Entry> {
        // Where both are given all readers take GNU's.
        let name = long_name.or(extended.path).unwrap_or(fields.name);
        let link = long_link.or(extended.link).unwrap_or(fields.link);
        let not_negative = |value: i64, what: &str| {
            u64::try_from(value).map_err(|_| bad(&name, format!("its {what} is negative")))
        };
        let stored = match fields.kind {
            Kind::File | Kind::Sparse => {
                not_negative(extended.size.unwrap_or(fields.size), "size")?
            }
            _ => 0,
        };
        let uid = not_negative(extended.uid.unwrap_or(fields.uid), "owner")?;
        let gid = not_negative(extended.gid.unwrap_or(fields.gid), "group")?;
        self.begin_data(stored);
        let (kind, size, map) = match fields.kind {
            Kind::Sparse => {
                let (size, map) = self.old_sparse(block).map_err(|why| bad(&name, why))?;
                (Kind::File, size, Some(map))
            }
            Kind::File => {
                let (size, map) = self
                    .pax_sparse(extended.sparse, stored)
                    .map_err(|why| bad(&name, why))?;
                (Kind::File, size, map)
            }
            kind => (kind, 0, None),
        };
        if let Some(map) = &map {
            sparse::check(map, size, self.left).map_err(|why| bad(&name, why))?;
        }
        Ok(Entry {
            kind,
            name,
            link,
            mode: fields.mode,
            uid,
            gid,
            mtime: extended.mtime.unwrap_or(fields.mtime),
            size,
            map,
            xattrs: extended.xattrs,
        })
    }

    /// The map in GNU's own header, which may go on in blocks after it.
    fn old_sparse(&mut self, block: &[u8; BLOCK]) -> Result<(u64, Vec<Region>), String> {
        let header = Header::from_byte_slice(block);
        let gnu = header
            .as_gnu()
            .ok_or("it has holes, but not GNU's header")?;
        let size = header::number(&gnu.realsize)
            .and_then(|size| u64::try_from(size).ok())
            .ok_or("its size is not a number")?;
        let mut map = Vec::new();
        sparse::regions(&gnu.sparse, &mut map)?;
        let mut more = gnu.is_extended();
        while more {
            // These blocks are not part of what the header counts.
            let block = self.inner_block()?;
            more = sparse::continued(&block, &mut map)?;
        }
        Ok((size, map))
    }

    /// The map in POSIX attributes, or in front of the data.
    fn pax_sparse(
        &mut self,
        attributes: pax::Sparse,
        stored: u64,
    ) -> Result<(u64, Option<Vec<Region>>), String> {
        let map = if attributes.in_data {
            Some(self.map_in_data()?)
        } else {
            attributes.map
        };
        let Some(map) = map else {
            return Ok((stored, None));
        };
        let size = attributes.real_size.ok_or("it has holes, but no size")?;
        let size = u64::try_from(size).map_err(|_| "its size is negative")?;
        Ok((size, Some(map)))
    }

    /// Version 1.0 of GNU's sparse files: decimal numbers, one a line, in whole blocks. First how
    /// many regions there are, then offset and length of each.
    fn map_in_data(&mut self) -> Result<Vec<Region>, String> {
        let wrong = "its map of holes is wrong";
        let mut numbers = Numbers::default();
        let mut map = Vec::new();
        loop {
            self.left = self.left.checked_sub(BLOCK as u64).ok_or(wrong)?;
            let block = self.inner_block()?;
            for &byte in &block {
                numbers.take(byte).ok_or(wrong)?;
                if numbers.count == Some(0) {
                    // The rest of the block is filling.
                    return Ok(map);
                }
                if let Some(region) = numbers.region.take() {
                    sparse::push(&mut map, region)?;
                    if Some(map.len() as u64) == numbers.count {
                        return Ok(map);
                    }
                }
            }
        }
    }

    /// The data of an entry that describes another one.
    fn special(&mut self, fields: &Fields) -> Result<Vec<u8>> {
        let size =
            u64::try_from(fields.size).map_err(|_| bad(&fields.name, "its size is negative"))?;
        if size > SPECIAL_LIMIT {
            return Err(bad(
                &fields.name,
                format!("its name or attributes take {size} bytes (at most {SPECIAL_LIMIT})"),
            ));
        }
        self.begin_data(size);
        let mut text = Vec::with_capacity(size as usize);
        self.data(size, |piece| {
            text.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(text)
    }

    fn special_text(&mut self, fields: &Fields) -> Result<Vec<u8>> {
        let mut text = self.special(fields)?;
        text.truncate(header::until_zero(&text).len());
        Ok(text)
    }

    fn begin_data(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// The next header; `None` at the end, which is two blocks of zeros, or nothing.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        self.left = self.left.saturating_add(self.padding);
        self.padding = 0;
        self.data(self.left, |_| Ok(()))?;
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        match self.block()? {
            Some(second) if second != [0; BLOCK] => Err(Error::Archive {
                entry: "archive".to_owned(),
                why: "it goes on after its end: it is damaged".to_owned(),
            }),
            _ => Ok(None),
        }
    }

    /// A block of a map of holes.
    fn inner_block(&mut self) -> Result<[u8; BLOCK], String> {
        match self.block() {
            Ok(Some(block)) => Ok(block),
            _ => Err("the archive ends in the middle of it".to_owned()),
        }
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut len = 0;
        while len < BLOCK {
            match self.source.read(&mut block[len..]).map_err(Error::Stream)? {
                0 if len == 0 => return Ok(None),
                0 => return Err(cut_off()),
                count => len += count,
            }
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.literal(&block).map_err(unrecorded)?;
        }
        Ok(Some(block))
    }
}

/// Reads numbers of a map in the data, byte by byte.
#[derive(Default)]
struct Numbers {
    digits: Vec<u8>,
    count: Option<u64>,
    offset: Option<u64>,
    region: Option<Region>,
}

impl Numbers {
    fn take(&mut self, byte: u8) -> Option<()> {
        if byte != b'\n' {
            self.digits.push(byte);
            return (self.digits.len() <= 20).then_some(());
        }
        let value = u64::try_from(pax::decimal(&self.digits)?).ok()?;
        self.digits.clear();
        if self.count.is_none() {
            self.count = Some(value);
        } else if let Some(offset) = self.offset.take() {
            self.region = Some(Region { offset, len: value });
        } else {
            self.offset = Some(value);
        }
        Some(())
    }
}

fn unrecorded(error: std::io::Error) -> Error {
    Error::io("cannot note how the layer's archive was written", error)
}

fn cut_off() -> Error {
    Error::Archive {
        entry: "archive".to_owned(),
        why: "it ends too early: it is damaged".to_owned(),
    }
}

impl Entry {
    /// Its name for people.
    pub(super) fn shown(&self) -> String {
        shown(&self.name)
    }

    /// An error about it.
    pub(super) fn bad(&self, why: impl Into<String>) -> Error {
        bad(&self.name, why)
    }
}
