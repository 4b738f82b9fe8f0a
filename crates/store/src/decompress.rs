//! Layers come plain, in gzip (RFC 1952) or in zstd (RFC 8878). What they are is told by their
//! first bytes, not by their media type, which is wrong often enough.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

/// Bytes asked for at once from the source.
const BUFFER: usize = 64 * 1024;

/// How a stream is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, of one or more members.
    Gzip,
    /// Zstandard, of one or more frames; skippable frames are skipped.
    Zstd,
}

impl Compression {
    /// How a stream is packed that begins with `start`; four bytes tell.
    ///
    /// The error names a packing that is known but not supported.
    pub fn sniff(start: &[u8]) -> Result<Self, &'static str> {
        match start {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Zstd),
            // A skippable frame in front, as zstd:chunked and pzstd write it.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            // A tar may begin with a name like this.
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Err("bzip2"),
            [0xfd, b'7', b'z', b'X', ..] => Err("xz"),
            _ => Ok(Self::None),
        }
    }
}

/// A stream may unpack to so much whatever it is.
const FREE: u64 = 1 << 30;
/// Beyond that, to so many times its size: more than gzip can, and more than files that somebody
/// made for their content do.
const RATIO: u64 = 1100;

type Sniffed<R> = Chain<Cursor<Vec<u8>>, Counted<R>>;

/// How much has come from a source.
struct Counted<R> {
    source: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buf)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// A reader of what a stream unpacks to.
///
/// The stream is read to its very end, so that a digest computed on the way covers all of it.
pub struct Decompressor<R: Read> {
    inner: Inner<R>,
    came: Arc<AtomicU64>,
    out: u64,
    free: u64,
}

enum Inner<R: Read> {
    None(Sniffed<R>),
    Gzip(Box<MultiGzDecoder<BufReader<Sniffed<R>>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Sniffed<R>>>>),
}

impl<R: Read> std::fmt::Debug for Decompressor<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Decompressor")
            .field(&self.compression())
            .finish()
    }
}

/// Look at the first bytes of `source` and unpack it accordingly.
///
/// Fails if the source does, and for packings that are known but not supported.
///
/// Reading fails where it unpacks to so much more than it is (1100 times its size, beyond 1 GiB) that
/// it was made to fill disks.
pub fn decompress<R: Read>(source: R) -> io::Result<Decompressor<R>> {
    decompress_with(source, FREE)
}

fn decompress_with<R: Read>(mut source: R, free: u64) -> io::Result<Decompressor<R>> {
    let mut start = Vec::with_capacity(4);
    source.by_ref().take(4).read_to_end(&mut start)?;
    let compression = Compression::sniff(&start).map_err(|name| {
        io::Error::new(
            io::ErrorKind::Unsupported,
            format!("compression {name} is not supported (gzip, zstd and none are)"),
        )
    })?;
    let came = Arc::new(AtomicU64::new(start.len() as u64));
    let counted = Counted {
        source,
        count: Arc::clone(&came),
    };
    let whole = Cursor::new(start).chain(counted);
    let inner = match compression {
        Compression::None => Inner::None(whole),
        Compression::Gzip => Inner::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(
            BUFFER, whole,
        )))),
        Compression::Zstd => {
            let buffered = BufReader::with_capacity(BUFFER, whole);
            Inner::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(
                buffered,
            )?))
        }
    };
    Ok(Decompressor {
        inner,
        came,
        out: 0,
        free,
    })
}

impl<R: Read> Decompressor<R> {
    /// How the stream is packed.
    pub fn compression(&self) -> Compression {
        match self.inner {
            Inner::None(_) => Compression::None,
            Inner::Gzip(_) => Compression::Gzip,
            Inner::Zstd(_) => Compression::Zstd,
        }
    }

    /// Read the rest of the source, whatever it is, and give the source back.
    ///
    /// After the end of the unpacked stream nothing of the source should be left; this makes
    /// sure that a reader below has seen its own end.
    pub fn into_source(self) -> io::Result<R> {
        fn drain<R: Read>(mut buffered: BufReader<Sniffed<R>>) -> io::Result<R> {
            loop {
                match buffered.fill_buf()?.len() {
                    0 => break,
                    count => buffered.consume(count),
                }
            }
            Ok(buffered.into_inner().into_inner().1.source)
        }
        match self.inner {
            Inner::None(mut source) => {
                io::copy(&mut source, &mut io::sink())?;
                Ok(source.into_inner().1.source)
            }
            Inner::Gzip(decoder) => drain(decoder.into_inner()),
            Inner::Zstd(decoder) => drain(decoder.finish()),
        }
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.inner {
            Inner::None(source) => return source.read(buf),
            Inner::Gzip(decoder) => decoder.read(buf)?,
            Inner::Zstd(decoder) => decoder.read(buf)?,
        };
        self.out += count as u64;
        if self.out > self.free && self.out / RATIO > self.came.load(Ordering::Relaxed) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it unpacks to more than {RATIO} times its size: a decompression bomb"),
            ));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(bytes: &[u8]) -> io::Result<(Compression, Vec<u8>)> {
        let mut reader = decompress(bytes)?;
        let mut text = Vec::new();
        reader.read_to_end(&mut text)?;
        let compression = reader.compression();
        assert!(reader.into_source()?.is_empty());
        Ok((compression, text))
    }

    #[test]
    fn each_packing_is_told_by_its_first_bytes() {
        let text = b"some text, some text, some text".repeat(1000);
        assert_eq!(unpack(&text).unwrap(), (Compression::None, text.clone()));
        assert_eq!(
            unpack(&gzip(&text)).unwrap(),
            (Compression::Gzip, text.clone())
        );
        let zstd = zstd::stream::encode_all(&text[..], 1).unwrap();
        assert_eq!(unpack(&zstd).unwrap(), (Compression::Zstd, text));
        assert_eq!(unpack(b"").unwrap(), (Compression::None, Vec::new()));
        for plain in [&b"ab"[..], b"BZhang/"] {
            assert_eq!(unpack(plain).unwrap(), (Compression::None, plain.to_vec()));
        }
    }

    #[test]
    fn members_and_frames_follow_one_another() {
        let twice = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(unpack(&twice).unwrap().1, b"one two");
        let mut frames = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        frames.extend(zstd::stream::encode_all(&b"one "[..], 1).unwrap());
        frames.extend(zstd::stream::encode_all(&b"two"[..], 1).unwrap());
        assert_eq!(unpack(&frames).unwrap().1, b"one two");
    }

    #[test]
    fn bombs_are_defused() {
        let zeros = vec![0; 8 << 20];
        let bomb = zstd::stream::encode_all(&zeros[..], 19).unwrap();
        assert!(zeros.len() / bomb.len() > 2000);
        let read = |bytes: &[u8], free| {
            let mut reader = decompress_with(bytes, free)?;
            io::copy(&mut reader, &mut io::sink())
        };
        let error = read(&bomb, 1 << 20).unwrap_err();
        assert!(error.to_string().contains("bomb"), "{error}");
        assert_eq!(read(&bomb, 16 << 20).unwrap(), 8 << 20);
        // gzip cannot be one.
        assert_eq!(read(&gzip(&zeros), 1 << 20).unwrap(), 8 << 20);
    }

    #[test]
    fn cut_and_unknown_streams_are_errors() {
        let packed = gzip(&b"text".repeat(100));
        assert!(unpack(&packed[..packed.len() - 5]).is_err());
        let packed = zstd::stream::encode_all(&b"text".repeat(100)[..], 1).unwrap();
        assert!(unpack(&packed[..packed.len() - 5]).is_err());
        assert!(
            unpack(b"BZh91AY")
                .unwrap_err()
                .to_string()
                .contains("bzip2")
        );
        assert!(
            unpack(b"\xfd7zXZ\0")
                .unwrap_err()
                .to_string()
                .contains("xz")
        );
    }
}
