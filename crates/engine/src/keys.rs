//! The keys that leave a terminal session (`--detach-keys`), ctrl-p ctrl-q by default.

use crate::error::{Error, Result};

/// The sequence, as the bytes a terminal sends for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    fn default() -> DetachKeys {
        DetachKeys(vec![0x10, 0x11])
    }
}

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q`, `a,b`, `ctrl-@`; empty text means that there is no way to detach.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no key.
    pub fn parse(text: &str) -> Result<DetachKeys> {
        if text.is_empty() {
            return Ok(DetachKeys(Vec::new()));
        }
        text.split(',')
            .map(key)
            .collect::<Result<_>>()
            .map(DetachKeys)
    }

    /// Whether there is a sequence at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn key(text: &str) -> Result<u8> {
    let byte = match (
        text.as_bytes(),
        text.strip_prefix("ctrl-").map(str::as_bytes),
    ) {
        ([byte], _) if (0x20..0x7f).contains(byte) => Some(*byte),
        (_, Some([letter])) => match letter.to_ascii_uppercase() {
            upper @ (b'@'..=b'_') => Some(upper - b'@'),
            _ => None,
        },
        _ => None,
    };
    byte.ok_or_else(|| {
        Error::Invalid(format!(
            "unknown detach key {text:?}: use a letter or ctrl- and a letter or one of @[\\]^_"
        ))
    })
}

/// Follows what is typed and finds the sequence in it, however it is cut into reads.
#[derive(Debug)]
pub struct Watcher {
    keys: DetachKeys,
    matched: usize,
}

impl Watcher {
    /// A watcher for these keys.
    pub fn new(keys: DetachKeys) -> Watcher {
        Watcher { keys, matched: 0 }
    }

    /// Takes what was typed; what is to be sent on goes to `out`. True when the sequence is complete (what follows it in
    /// `typed` is dropped). Keys that may yet become the sequence are held back until that is decided.
    pub fn feed(&mut self, typed: &[u8], out: &mut Vec<u8>) -> bool {
        let keys = &self.keys.0;
        if keys.is_empty() {
            out.extend_from_slice(typed);
            return false;
        }
        for &byte in typed {
            // On a mismatch, what was held back is let go but for its longest end that still begins the sequence.
            while self.matched > 0 && byte != keys[self.matched] {
                let shorter = (0..self.matched)
                    .rev()
                    .find(|&n| keys[..n] == keys[self.matched - n..self.matched])
                    .unwrap_or(0);
                out.extend_from_slice(&keys[..self.matched - shorter]);
                self.matched = shorter;
            }
            if byte == keys[self.matched] {
                self.matched += 1;
            } else {
                out.push(byte);
            }
            if self.matched == keys.len() {
                self.matched = 0;
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(watcher: &mut Watcher, typed: &[u8]) -> (bool, Vec<u8>) {
        let mut out = Vec::new();
        (watcher.feed(typed, &mut out), out)
    }

    #[test]
    fn keys_are_read() {
        assert_eq!(
            DetachKeys::parse("ctrl-p,ctrl-q").unwrap(),
            DetachKeys::default()
        );
        assert_eq!(
            DetachKeys::parse("a,ctrl-[,ctrl-@").unwrap(),
            DetachKeys(vec![b'a', 27, 0])
        );
        assert!(DetachKeys::parse("").unwrap().is_empty());
        for bad in [
            "ctrl-", "ctrl-pp", "a,,b", "ab", "\u{e9}", "ctrl-1", "ctrl-!",
        ] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_sequence_is_found_across_reads() {
        let mut watcher = Watcher::new(DetachKeys::default());
        assert_eq!(feed(&mut watcher, b"ab\x10"), (false, b"ab".to_vec()));
        assert_eq!(feed(&mut watcher, b"\x11rest"), (true, Vec::new()));
    }

    #[test]
    fn what_only_begins_like_it_is_sent_on() {
        let mut watcher = Watcher::new(DetachKeys::default());
        assert_eq!(feed(&mut watcher, b"\x10\x10"), (false, b"\x10".to_vec()));
        assert_eq!(feed(&mut watcher, b"x\x11"), (false, b"\x10x\x11".to_vec()));
        let mut watcher = Watcher::new(DetachKeys::parse("a,a,b").unwrap());
        assert_eq!(feed(&mut watcher, b"aaab"), (true, b"a".to_vec()));
        let mut watcher = Watcher::new(DetachKeys::parse("").unwrap());
        assert_eq!(
            feed(&mut watcher, b"\x10\x11"),
            (false, b"\x10\x11".to_vec())
        );
    }
}
