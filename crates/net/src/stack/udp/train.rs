//! Datagrams of one flow that follow each other closely go on together, and the kernel cuts them apart again as late as
//! it can, so that each costs less on the way there: out of a host's socket by `UDP_SEGMENT` (udp(7)), into the container
//! by a frame that says so (VIRTIO_NET_HDR_GSO_UDP_L4).

use crate::slab::Key;

/// How many go together at most (UDP_MAX_SEGMENTS of kernels before 6.9).
pub(crate) const MOST_TOGETHER: usize = 64;
/// How many bytes go together at most: what a datagram may have, less the longest headers.
const MOST_BYTES: usize = 65535 - 60 - 8;
/// The room for one that is received, in bytes: it may be as long as any.
pub(crate) const LONGEST: usize = 65535;

/// How datagrams lie behind one another.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    /// The length of each but the last, which may be shorter.
    size: usize,
    count: usize,
    /// The length of all.
    length: usize,
}

impl Row {
    /// Whether one of a length can go behind them.
    fn takes(&self, length: usize) -> bool {
        self.count > 0
            && length > 0
            && length <= self.size
            // The last was as long as all others.
            && self.length == self.count * self.size
            && self.count < MOST_TOGETHER
            && self.length + length <= MOST_BYTES
    }

    fn add(&mut self, length: usize) {
        if self.count == 0 {
            self.size = length;
        }
        self.count += 1;
        self.length += length;
    }
}

/// Those that wait to be sent from a host's socket.
#[derive(Debug, Default)]
pub(crate) struct Train {
    /// Whose they are, if there are any.
    of: Option<Key>,
    row: Row,
    bytes: Vec<u8>,
}

impl Train {
    /// Whether there are any of this flow.
    pub(crate) fn is_of(&self, flow: Key) -> bool {
        self.of == Some(flow)
    }

    /// Whether this one can go with those that wait.
    pub(crate) fn takes(&self, flow: Key, payload: &[u8]) -> bool {
        self.is_of(flow) && self.row.takes(payload.len())
    }

    /// Adds one, which is not empty: behind those that take it, or as the first.
    pub(crate) fn add(&mut self, flow: Key, payload: &[u8]) {
        if self.of.is_none() {
            self.of = Some(flow);
            self.row = Row::default();
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(payload);
        self.row.add(payload.len());
    }

    /// Whose they are, and that nobody waits any more. What they are is there until the next is added.
    pub(crate) fn leave(&mut self) -> Option<Key> {
        self.of.take()
    }

    /// The bytes of all, and the length of each but the last.
    pub(crate) fn load(&self) -> (&[u8], usize) {
        (&self.bytes, self.row.size)
    }
}

/// Those that were received for the container, in the buffer that frames are put together in.
#[derive(Debug)]
pub(crate) struct Load {
    /// Where the payload of a frame begins.
    at: usize,
    row: Row,
    /// Where the next is received to.
    next: usize,
}

impl Load {
    /// None yet; the payload of a frame begins there.
    pub(crate) fn new(at: usize) -> Load {
        Load {
            at,
            row: Row::default(),
            next: at,
        }
    }

    /// Where the next is received to.
    pub(crate) fn room<'a>(&mut self, buffer: &'a mut [u8]) -> &'a mut [u8] {
        self.next = self.at + self.row.length;
        &mut buffer[self.next..self.next + LONGEST]
    }

    /// Whether the one received last, of a length, can go with those before it.
    pub(crate) fn takes(&self, length: usize) -> bool {
        self.row.takes(length)
    }

    /// Adds the one received last: behind those that take it, or as the first.
    pub(crate) fn add(&mut self, buffer: &mut [u8], length: usize) {
        let place = self.at + self.row.length;
        if place != self.next {
            buffer.copy_within(self.next..self.next + length, place);
        }
        self.row.add(length);
    }

    /// The length of all and that of each but the last, if there are any, and that they are gone.
    pub(crate) fn leave(&mut self) -> Option<(usize, usize)> {
        let row = std::mem::take(&mut self.row);
        (row.count > 0).then_some((row.length, row.size))
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

    #[test]
    fn what_is_received_lies_where_frames_have_it() {
        let mut buffer = vec![0; 4 + 2 * LONGEST];
        let mut load = Load::new(4);
        let mut receive = |load: &mut Load, bytes: &[u8]| {
            load.room(&mut buffer)[..bytes.len()].copy_from_slice(bytes);
            let left = (!load.takes(bytes.len())).then(|| load.leave()).flatten();
            let left = left.map(|(length, size)| (buffer[4..4 + length].to_vec(), size));
            load.add(&mut buffer, bytes.len());
            left
        };
        assert_eq!(receive(&mut load, b"ab"), None);
        assert_eq!(receive(&mut load, b"cd"), None);
        assert_eq!(receive(&mut load, b"e"), None);
        assert_eq!(receive(&mut load, b"fg"), Some((b"abcde".to_vec(), 2)));
        assert_eq!(receive(&mut load, b"long"), Some((b"fg".to_vec(), 2)));
        assert_eq!(receive(&mut load, b""), Some((b"long".to_vec(), 4)));
        assert_eq!(receive(&mut load, b"h"), Some((Vec::new(), 0)));
        for _ in 1..MOST_TOGETHER {
            assert_eq!(receive(&mut load, b"h"), None);
        }
        assert_eq!(receive(&mut load, b"h"), Some((vec![b'h'; 64], 1)));
        assert_eq!(load.leave(), Some((1, 1)));
        assert_eq!(load.leave(), None);
    }
}
