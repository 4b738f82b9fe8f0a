//! Layers and images made on the spot, good and bad.

use std::io::Write;

use sha2::{Digest, Sha256};

/// One entry of a layer.
pub enum Entry<'a> {
    /// A folder.
    Dir(&'a str),
    /// A file and its content.
    File(&'a str, &'a [u8]),
    /// A symbolic link and its target.
    Symlink(&'a str, &'a str),
    /// A hard link and its target.
    Hardlink(&'a str, &'a str),
    /// A character device with its numbers.
    Device(&'a str, u32, u32),
}

/// A tar of these entries. Names are written as they are: `..` and leading slashes too.
pub fn layer(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Vec::new();
    for entry in entries {
        let (name, kind, mode, link, data, device): (_, _, _, _, &[u8], _) = match *entry {
            Entry::Dir(name) => (name, b'5', 0o755, "", b"", (0, 0)),
            Entry::File(name, data) => (name, b'0', 0o755, "", data, (0, 0)),
            Entry::Symlink(name, to) => (name, b'2', 0o777, to, b"", (0, 0)),
            Entry::Hardlink(name, to) => (name, b'1', 0o644, to, b"", (0, 0)),
            Entry::Device(name, major, minor) => (name, b'3', 0o666, "", b"", (major, minor)),
        };
        let mut header = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{:011o}", data.len()).as_bytes());
        put(136, b"14524540400");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", device.0).as_bytes());
        put(337, format!("{:07o}", device.1).as_bytes());
        let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend(header);
        tar.extend(data);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// `sha256:…` of these bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// An image of the distribution protocol: its manifest and the blobs that it names.
pub struct Image {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The blobs by digest: the configuration first, then the layers.
    pub blobs: Vec<(String, Vec<u8>)>,
}

impl Image {
    /// An image of these layers (plain tars), compressed with gzip.
    pub fn of(layers: &[Vec<u8>]) -> Image {
        let diffs: Vec<String> = layers
            .iter()
            .map(|l| format!("\"{}\"", digest(l)))
            .collect();
        let config = format!(
            r#"{{"architecture":"{}","os":"linux","config":{{"Cmd":["/hello"],"Env":["PATH=/bin"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            architecture(),
            diffs.join(",")
        );
        let mut blobs = vec![(digest(config.as_bytes()), config.into_bytes())];
        for layer in layers {
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gz.write_all(layer).unwrap();
            let gz = gz.finish().unwrap();
            blobs.push((digest(&gz), gz));
        }
        let mut image = Image {
            manifest: Vec::new(),
            blobs,
        };
        image.write_manifest();
        image
    }

    /// Writes the manifest anew after the list of blobs was changed.
    pub fn write_manifest(&mut self) {
        let describe = |kind: &str, (digest, bytes): &(String, Vec<u8>)| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{}}}"#,
                bytes.len()
            )
        };
        let layers: Vec<String> = self.blobs[1..]
            .iter()
            .map(|b| describe("layer.v1.tar+gzip", b))
            .collect();
        self.manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{}]}}"#,
            describe("config.v1+json", &self.blobs[0]),
            layers.join(",")
        )
        .into_bytes();
    }
}

/// The media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// This machine's architecture in the words of images.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
