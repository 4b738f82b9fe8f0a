//! Layers made again and compressed.
//!
//! The archive is cut into blocks of fixed size and each is compressed on its own, as a member of
//! gzip (RFC 1952 §2.2) or a frame of Zstandard (RFC 8878 §3.1) that any reader puts together again.
//! So all cores have work however few layers there are, and the result depends on nothing but the
//! archive and the level. Memory is bounded by the number of blocks on their way.

use crate::archive::source::Cancel;
use crate::registry::Packed;
use crate::{Error, Progress, PullEvent, Result, work};
use flate2::write::GzEncoder;
use rcon_store::{Algorithm, Compression, Digest, Hasher, LayerHold, Store};
use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of a block.
const GZIP_BLOCK: usize = 1 << 20;
const ZSTD_BLOCK: usize = 4 << 20;
/// The levels that are taken without another wish: gzip's own, and zstd's.
const GZIP_LEVEL: i32 = 6;
const ZSTD_LEVEL: i32 = 3;
/// Threads for one layer.
const THREADS: usize = 4;
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// How layers are to be compressed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packing {
    pub compression: Compression,
    pub level: i32,
}

impl Packing {
    /// With the level that was asked for, or the usual one.
    ///
    /// # Errors
    /// A level that the format does not have.
    pub fn new(compression: Compression, level: Option<i32>) -> Result<Packing> {
        let (usual, highest, name) = match compression {
            Compression::None => (0, 0, "no compression"),
            Compression::Gzip => (GZIP_LEVEL, 9, "gzip"),
            Compression::Zstd => (ZSTD_LEVEL, 20, "zstd"),
        };
        match level {
            Some(level) if compression != Compression::None && !(1..=highest).contains(&level) => {
                Err(Error::Unsupported(format!(
                    "compression level {level}: {name} has levels from 1 to {highest}"
                )))
            }
            level => Ok(Packing {
                compression,
                level: level.unwrap_or(usual),
            }),
        }
    }

    fn block(self) -> usize {
        match self.compression {
            Compression::Zstd => ZSTD_BLOCK,
            _ => GZIP_BLOCK,
        }
    }
}

/// What compresses one block after another on a thread.
struct Compressor {
    packing: Packing,
    /// Takes as much memory as a block: it is kept.
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Compressor {
    fn compress(&mut self, block: Vec<u8>) -> io::Result<Vec<u8>> {
        match self.packing.compression {
            Compression::None => Ok(block),
            Compression::Gzip => {
                let level = flate2::Compression::new(self.packing.level.unsigned_abs());
                let out = Vec::with_capacity(block.len() / 2);
                let mut encoder = GzEncoder::new(out, level);
                encoder.write_all(&block)?;
                encoder.finish()
            }
            Compression::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => {
                        let mut zstd = zstd::bulk::Compressor::new(self.packing.level)?;
                        zstd.include_checksum(true)?;
                        none.insert(zstd)
                    }
                };
                zstd.compress(&block)
            }
        }
    }
}

type Compressed = io::Result<Vec<u8>>;

/// A block, and where it goes when it is compressed.
type Job = (Vec<u8>, SyncSender<Compressed>);

/// Make a layer's blob in an unnamed file of the store.
pub(crate) fn layer(
    store: &Store,
    hold: &LayerHold,
    packing: Packing,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<Packed> {
    let dir = store.root().join("tmp");
    let failed = Error::io("making a file in", &dir);
    let file = tempfile::tempfile_in(&dir).map_err(failed)?;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS));
    let (jobs, queue) = sync_channel::<Job>(1);
    let queue = Mutex::new(queue);
    let (order, results) = sync_channel(threads + 1);
    let meta = hold.meta();
    let (written, packed) = std::thread::scope(|scope| -> Result<_> {
        // Should one of them not be had, the others end: `jobs` goes with this function.
        for _ in 0..threads {
            work::spawn(scope, "compress", || compress(&queue, packing))?;
        }
        let out = &file;
        // What is not compressed has the digest that is checked while it is made.
        let is_known = packing.compression == Compression::None
            && meta.diff_id.algorithm() == Algorithm::Sha256;
        let known = is_known.then(|| meta.diff_id.clone());
        let collector = work::spawn(scope, "collect", move || collect(&results, out, known))?;
        let mut blocks = Blocks {
            block: Vec::new(),
            size: packing.block(),
            jobs,
            order,
            cancel,
            told: Instant::now(),
            tell: |done: u64| {
                progress.event(PullEvent::Bytes {
                    digest: meta.diff_id.clone(),
                    done: done / 2,
                });
            },
            done: 0,
        };
        let written = hold.write_archive(&mut blocks).and_then(|_| {
            let last = blocks.hand_over();
            last.map_err(rcon_store::Error::Stream)
        });
        drop(blocks);
        Ok((written, collector.join()))
    })?;
    let what = "compressing a layer";
    let packed = packed.unwrap_or_else(|_| Err(io::Error::other("a thread broke down")));
    // What the collector met is why the writer was cut off, not the reverse.
    let (digest, size) = packed.map_err(Error::io(what, &dir))?;
    match written {
        Ok(()) => {}
        Err(rcon_store::Error::Stream(source)) => {
            return Err(Error::Io {
                what: what.to_owned(),
                source,
            });
        }
        Err(e) => return Err(e.into()),
    }
    Ok(Packed {
        file: Arc::new(file),
        digest,
        size,
        shown: (meta.diff_id.clone(), meta.size),
    })
}

fn compress(work: &Mutex<Receiver<Job>>, packing: Packing) {
    let mut compressor = Compressor {
        packing,
        zstd: None,
    };
    loop {
        let job = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((block, result)) = job else {
            return;
        };
        // Nobody waits for it after a failure.
        let _ = result.send(compressor.compress(block));
    }
}

/// Writes what comes, in order; digest, if it is not `known`, and size of it.
fn collect(
    results: &Receiver<Receiver<Compressed>>,
    mut file: &File,
    known: Option<Digest>,
) -> io::Result<(Digest, u64)> {
    let mut hasher = known.is_none().then(|| Hasher::new(Algorithm::Sha256));
    let mut size = 0;
    while let Ok(result) = results.recv() {
        let lost = |_| io::Error::other("a thread broke down");
        let bytes = result.recv().map_err(lost)??;
        if let Some(hasher) = &mut hasher {
            hasher.update(&bytes);
        }
        size += bytes.len() as u64;
        file.write_all(&bytes)?;
    }
    let digest = known.or_else(|| hasher.map(Hasher::finish));
    let digest = digest.ok_or_else(|| io::Error::other("there is no digest"))?;
    Ok((digest, size))
}

/// Cuts what is written into blocks and hands them to the threads.
struct Blocks<'a, F> {
    block: Vec<u8>,
    size: usize,
    jobs: SyncSender<Job>,
    order: SyncSender<Receiver<Compressed>>,
    cancel: &'a Cancel,
    told: Instant,
    tell: F,
    done: u64,
}

impl<F> Blocks<'_, F> {
    /// An archive is never empty, so neither is the last block, unless the one before was full.
    fn hand_over(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        let (tell, told) = sync_channel(1);
        let gone = |()| io::Error::other("the compressed layer cannot be written");
        self.order.send(told).map_err(|_| gone(()))?;
        self.jobs.send((block, tell)).map_err(|_| gone(()))
    }
}

impl<F: Fn(u64)> Write for Blocks<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.cancel.check()?;
        if self.block.capacity() == 0 {
            self.block.reserve_exact(self.size);
        }
        let count = bytes.len().min(self.size - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == self.size {
            self.hand_over()?;
        }
        self.done += count as u64;
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            (self.tell)(self.done);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;
    use rcon_sys::ids::IdMaps;
    use std::io::{Read, Seek};

    fn store_with(content: &[u8]) -> (tempfile::TempDir, Store, LayerHold, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &IdMaps::single()).unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, "file", content).unwrap();
        let tar = builder.into_inner().unwrap();
        let mut stage = store.stage_layer().unwrap();
        stage.unpack(&tar[..]).unwrap();
        let hold = stage.commit(&Digest::sha256(&tar)).unwrap();
        (dir, store, hold, tar)
    }

    #[test]
    fn what_is_packed_unpacks_to_the_same() {
        let content: Vec<u8> = (0..5_000_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        let (_dir, store, hold, tar) = store_with(&content);
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let packing = Packing::new(compression, Some(1)).unwrap();
            let cancel = Cancel::default();
            let one = layer(&store, &hold, packing, &cancel, &Silent).unwrap();
            let two = layer(&store, &hold, packing, &cancel, &Silent).unwrap();
            assert_eq!(one.digest, two.digest);
            let mut file = one.file.try_clone().unwrap();
            file.rewind().unwrap();
            let mut packed = Vec::new();
            file.read_to_end(&mut packed).unwrap();
            assert_eq!(
                (packed.len() as u64, Digest::sha256(&packed)),
                (one.size, one.digest)
            );
            let mut plain = rcon_store::decompress(&packed[..]).unwrap();
            assert_eq!(plain.compression(), compression);
            let mut again = Vec::new();
            plain.read_to_end(&mut again).unwrap();
            assert!(again == tar);
            assert!(compression == Compression::None || packed.len() < tar.len() / 2);
        }
    }

    #[test]
    fn it_can_be_cancelled() {
        let (_dir, store, hold, _) = store_with(&[1; 3_000_000]);
        let cancel = Cancel::default();
        cancel.set();
        let packing = Packing::new(Compression::Gzip, None).unwrap();
        layer(&store, &hold, packing, &cancel, &Silent).unwrap_err();
    }

    #[test]
    fn levels_have_limits() {
        assert!(Packing::new(Compression::Gzip, Some(9)).is_ok());
        assert!(Packing::new(Compression::Gzip, Some(10)).is_err());
        assert!(Packing::new(Compression::Zstd, Some(19)).is_ok());
        assert!(Packing::new(Compression::Zstd, Some(0)).is_err());
    }
}
