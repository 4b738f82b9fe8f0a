//! Datagrams of one flow that follow each other closely leave together: the kernel cuts them apart again as late as it can
//! (`UDP_SEGMENT`, udp(7)), and each costs less on the way there.

use crate::slab::Key;

/// How many go together at most (UDP_MAX_SEGMENTS of kernels before 6.9).
pub(crate) const MOST_TOGETHER: usize = 64;
/// How many bytes go together at most: what a datagram may have, less the longest headers.
const MOST_BYTES: usize = 65535 - 60 - 8;

/// Those that wait.
#[derive(Debug, Default)]
pub(crate) struct Train {
    /// Whose they are, if there are any.
    of: Option<Key>,
    /// The length of each but the last, which may be shorter.
    size: usize,
    count: usize,
    bytes: Vec<u8>,
}

impl Train {
    /// Whether there are any of this flow.
    pub(crate) fn is_of(&self, flow: Key) -> bool {
        self.of == Some(flow)
    }

    /// Whether this one can go with those that wait.
    pub(crate) fn takes(&self, flow: Key, payload: &[u8]) -> bool {
        self.is_of(flow)
            && payload.len() <= self.size
            // The last was as long as all others.
            && self.bytes.len() == self.count * self.size
            && self.count < MOST_TOGETHER
            && self.bytes.len() + payload.len() <= MOST_BYTES
    }

    /// Adds one, which is not empty: behind those that take it, or as the first.
    pub(crate) fn add(&mut self, flow: Key, payload: &[u8]) {
        if self.of.is_none() {
            self.of = Some(flow);
            self.size = payload.len();
            self.count = 0;
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(payload);
        self.count += 1;
    }

    /// Whose they are, and that nobody waits any more. What they are is there until the next is added.
    pub(crate) fn leave(&mut self) -> Option<Key> {
        self.of.take()
    }

    /// The bytes of all, and the length of each but the last.
    pub(crate) fn load(&self) -> (&[u8], usize) {
        (&self.bytes, self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_told_apart_again_goes_together() {
        let (one, other) = (Key::unpack(1), Key::unpack(2));
        let mut train = Train::default();
        assert!(!train.takes(one, b"abc"));
        train.add(one, b"abc");
        assert!(train.takes(one, b"def") && train.takes(one, b"d"));
        assert!(!train.takes(one, b"defg") && !train.takes(other, b"def"));
        train.add(one, b"de");
        assert!(!train.takes(one, b"fg"), "a shorter one is the last");
        assert_eq!(train.load(), (&b"abcde"[..], 3));
        assert_eq!((train.leave(), train.leave()), (Some(one), None));
        train.add(other, &[0; 40_000]);
        assert!(!train.takes(other, &[0; 40_000]), "too long for one");
    }
}
