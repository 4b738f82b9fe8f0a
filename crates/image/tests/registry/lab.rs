//! What the tests work with: stores that any user can have, and images made in memory.

use crate::fake::Fake;
use rcon_image::{Patience, Progress, PullEvent, PullOptions, Result};
use rcon_store::{Digest, ImageRecord, Store};
use rcon_sys::ids::IdMaps;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A store of its own, gone with the test. An ordinary user has one id here, so no namespace is
/// needed; root owns all ids anyway.
pub struct Lab {
    pub dir: tempfile::TempDir,
    pub store: Store,
}

impl Lab {
    pub fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let maps = if is_root() {
            IdMaps::detect()
        } else {
            IdMaps::single()
        };
        let store = Store::open(&dir.path().join("store"), &maps).unwrap();
        Lab { dir, store }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Options that depend on nothing of the user's.
    pub fn options(&self) -> PullOptions {
        PullOptions {
            authfile: Some(self.path("no-auth.json")),
            ..PullOptions::default()
        }
    }

    pub fn pull(&self, name: &str) -> Result<ImageRecord> {
        self.pull_with(name, &self.options(), &Recorder::default())
    }

    pub fn pull_with(
        &self,
        name: &str,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<ImageRecord> {
        let patience = Patience {
            connect: Duration::from_secs(5),
            stall: Duration::from_millis(400),
            retries: 3,
            back_off: Duration::from_millis(10),
            longest: Duration::from_secs(3),
            ..Patience::default()
        };
        rcon_image::pull_with(&self.store, name, options, &patience, progress)
    }

    /// Pull what must fail; nothing may be left of it.
    pub fn refused(&self, name: &str) -> String {
        let error = self.pull(name).expect_err("this must not work");
        self.assert_empty();
        error.to_string()
    }

    /// Neither image nor layer, finished or not.
    pub fn assert_empty(&self) {
        assert!(self.store.images().unwrap().is_empty(), "an image was left");
        self.assert_no_leftovers();
        let layers = walk(&self.path("store/layers"), 2);
        assert!(layers.is_empty(), "layers were left: {layers:?}");
    }

    /// Nothing half-made.
    pub fn assert_no_leftovers(&self) {
        let left = walk(&self.path("store/tmp"), 1);
        assert!(left.is_empty(), "left in tmp: {left:?}");
    }

    /// Blobs that are kept for the next process.
    pub fn partials(&self) -> usize {
        walk(&self.path("store/partial"), 1).len()
    }

    /// A file of a layer that is no text.
    pub fn read_bytes(&self, record: &ImageRecord, layer: usize, path: &str) -> Vec<u8> {
        let dir = self.store.layer_dir(&record.layers[layer]);
        std::fs::read(dir.join(path)).unwrap()
    }

    /// A file of a layer.
    pub fn read(&self, record: &ImageRecord, layer: usize, path: &str) -> String {
        let dir = self.store.layer_dir(&record.layers[layer]);
        std::fs::read_to_string(dir.join(path)).unwrap()
    }
}

pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// The entries `depth` folders down.
fn walk(dir: &Path, depth: usize) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let all = entries.map(|e| e.unwrap().path());
    if depth == 1 {
        return all.collect();
    }
    all.flat_map(|p| walk(&p, depth - 1)).collect()
}

/// Keeps all events.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<PullEvent>>);

impl Progress for Recorder {
    fn event(&self, event: PullEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Recorder {
    pub fn text(&self) -> String {
        let all = self.0.lock().unwrap();
        all.iter().map(|e| format!("{e:?}\n")).collect()
    }
}

/// A tar of regular files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Bytes that do not compress, the same each time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

/// An image in memory.
pub struct Image {
    pub manifest: Value,
    pub config: Vec<u8>,
    /// As transferred.
    pub blobs: Vec<Vec<u8>>,
    pub media_type: String,
}

pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": Digest::sha256(bytes).to_string(),
        "size": bytes.len(),
    })
}

impl Image {
    /// Of layers given as tar and as transferred.
    pub fn new(layers: &[(Vec<u8>, Vec<u8>)]) -> Image {
        Image::for_platform("amd64", layers)
    }

    pub fn for_platform(arch: &str, layers: &[(Vec<u8>, Vec<u8>)]) -> Image {
        let diff_ids: Vec<_> = layers
            .iter()
            .map(|(t, _)| Digest::sha256(t).to_string())
            .collect();
        let config = json!({
            "architecture": arch, "os": "linux", "created": "2024-01-02T03:04:05Z",
            "config": { "Cmd": ["/bin/sh"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let blobs: Vec<Vec<u8>> = layers.iter().map(|(_, b)| b.clone()).collect();
        Image::of(config.to_string().into_bytes(), blobs)
    }

    pub fn of(config: Vec<u8>, blobs: Vec<Vec<u8>>) -> Image {
        let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        let layers: Vec<_> = blobs.iter().map(|b| descriptor(layer, b)).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, &config), "layers": layers,
        });
        Image {
            manifest,
            config,
            blobs,
            media_type: OCI_MANIFEST.to_owned(),
        }
    }

    /// One gzip layer with one file.
    pub fn small() -> Image {
        let tar = tar(&[("hello", b"world")]);
        let packed = gzip(&tar);
        Image::new(&[(tar, packed)])
    }

    /// One layer of this many bytes of noise.
    pub fn noisy(length: usize) -> Image {
        let tar = tar(&[("noise", &noise(length))]);
        let packed = gzip(&tar);
        Image::new(&[(tar, packed)])
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.manifest.to_string().into_bytes()
    }

    pub fn blob_path(&self, repository: &str, layer: usize) -> String {
        format!(
            "/v2/{repository}/blobs/{}",
            Digest::sha256(&self.blobs[layer])
        )
    }

    /// Put it into a registry under a tag and under its digest.
    pub fn serve(&self, fake: &Fake, repository: &str, tag: &str) {
        let manifest = self.bytes();
        let digest = Digest::sha256(&manifest).to_string();
        for selector in [tag, &digest] {
            fake.put(
                &format!("/v2/{repository}/manifests/{selector}"),
                &self.media_type,
                &manifest,
            );
        }
        for blob in self.blobs.iter().chain([&self.config]) {
            let path = format!("/v2/{repository}/blobs/{}", Digest::sha256(blob));
            fake.put(&path, "application/octet-stream", blob);
        }
    }
}
