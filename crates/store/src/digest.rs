//! Digests as the OCI image specification writes them (descriptor.md, "Digests"):
//! `sha256:` and 64 hexadecimal digits, `sha512:` and 128.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// A hash function that may name content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, which everybody uses.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name in front of the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no colon, or not the right number of lower-case hexadecimal digits after it.
    #[error("{0:?} is not a valid digest")]
    Malformed(String),
    /// A hash function that we do not have.
    #[error("unsupported digest algorithm {0:?} (known: sha256, sha512)")]
    Unsupported(String),
}

/// The name of some content: which hash function, and its value.
///
/// Only well-formed digests exist, so that one can be used as a file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::of(Algorithm::Sha256, bytes)
    }

    /// The digest of `bytes` by this hash function.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The hash function.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The value in lower-case hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// A file name for it: the digits, in front of them the algorithm if it is not the usual one.
    pub(crate) fn file_name(&self) -> String {
        match self.algorithm {
            Algorithm::Sha256 => self.hex.to_string(),
            Algorithm::Sha512 => format!("sha512-{}", self.hex),
        }
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let malformed = || DigestError::Malformed(text.chars().take(200).collect());
        let (name, hex) = text.split_once(':').ok_or_else(malformed)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            // The characters that a name may have: then it is only one that we do not know.
            _ if !name.is_empty()
                && name.len() < 64
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"+._-".contains(&byte)) =>
            {
                return Err(DigestError::Unsupported(name.to_owned()));
            }
            _ => return Err(malformed()),
        };
        let digits = hex
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if hex.len() != algorithm.hex_len() || !digits {
            return Err(malformed());
        }
        Ok(Self {
            algorithm,
            hex: hex.into(),
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a digest piece by piece.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hasher that has seen nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Add the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of all that was added.
    pub fn finish(self) -> Digest {
        let (algorithm, hex) = match self.0 {
            State::Sha256(state) => (Algorithm::Sha256, hex::encode(state.finalize())),
            State::Sha512(state) => (Algorithm::Sha512, hex::encode(state.finalize())),
        };
        Digest {
            algorithm,
            hex: hex.into(),
        }
    }
}

/// A reader that computes the digest of what passes through it.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    count: u64,
}

impl<R: Read> HashingReader<R> {
    /// Read from `inner`.
    pub fn new(inner: R, algorithm: Algorithm) -> Self {
        Self {
            inner,
            hasher: Hasher::new(algorithm),
            count: 0,
        }
    }

    /// The digest of what was read, and how many bytes that were.
    pub fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.count)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.hasher.update(&buf[..count]);
        self.count += count as u64;
        Ok(count)
    }
}

/// A reader that ends in an error unless its content has the digest (and length) it was announced
/// with.
///
/// The last bytes are handed out before the verdict is known: whoever uses them must read on to
/// the end of the stream before believing them.
#[derive(Debug)]
pub struct VerifyingReader<R> {
    inner: R,
    hasher: Option<Hasher>,
    expected: Digest,
    size: Option<u64>,
    count: u64,
}

impl<R: Read> VerifyingReader<R> {
    /// Read from `inner` what should have the digest `expected` and, if given, `size` bytes.
    pub fn new(inner: R, expected: Digest, size: Option<u64>) -> Self {
        Self {
            inner,
            hasher: Some(Hasher::new(expected.algorithm())),
            expected,
            size,
            count: 0,
        }
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(hasher) = &mut self.hasher else {
            return Ok(0);
        };
        if buf.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buf)?;
        self.count += count as u64;
        hasher.update(&buf[..count]);
        let bad = |text: String| Err(io::Error::new(io::ErrorKind::InvalidData, text));
        if let Some(size) = self.size
            && (self.count > size || (count == 0 && self.count < size))
        {
            return bad(format!(
                "content is corrupt: expected {size} bytes, received {}{}",
                self.count,
                if count == 0 { "" } else { " or more" }
            ));
        }
        if count == 0
            && let Some(hasher) = self.hasher.take()
        {
            let actual = hasher.finish();
            if actual != self.expected {
                return bad(format!(
                    "content is corrupt: expected {}, received {actual}",
                    self.expected
                ));
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parse_and_display() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(digest, Digest::sha256(b""));
        assert_eq!(digest.file_name(), EMPTY[7..]);
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    }

    #[test]
    fn bad_digests_are_refused() {
        for bad in [
            "",
            "sha256",
            "sha256:",
            "sha256:abc",
            "sha256:../../../../../../../../../../../../../../../../../../../../etc/passwd",
            &EMPTY.to_uppercase(),
            &EMPTY.replace('e', "E"),
            &format!("{EMPTY}0"),
            "/:x",
        ] {
            assert!(
                matches!(bad.parse::<Digest>(), Err(DigestError::Malformed(_)))
                    || bad.starts_with("SHA"),
                "{bad}"
            );
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        assert_eq!(
            "md5:00".parse::<Digest>(),
            Err(DigestError::Unsupported("md5".to_owned()))
        );
    }

    #[test]
    fn sha512_works_too() {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"abc");
        let digest = hasher.finish();
        assert!(digest.to_string().starts_with("sha512:ddaf35a193617aba"));
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!(digest.file_name().starts_with("sha512-ddaf"));
    }

    #[test]
    fn verifying_reader_tells_good_from_bad() {
        let read = |bytes: &[u8], size| {
            let mut text = Vec::new();
            VerifyingReader::new(bytes, Digest::sha256(b"hello"), size)
                .read_to_end(&mut text)
                .map(|_| text)
        };
        assert_eq!(read(b"hello", Some(5)).unwrap(), b"hello");
        assert_eq!(read(b"hello", None).unwrap(), b"hello");
        assert!(read(b"hell", None).is_err());
        assert!(read(b"hell", Some(5)).is_err());
        assert!(read(b"hello!", Some(5)).is_err());
    }
}
