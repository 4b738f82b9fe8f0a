//! What came out of order on a connection, until what is missing before it comes.

use super::segment::MAX_BLOCKS;

/// How many pieces are kept: what comes in more has lost too much to hurry.
const MAX_PIECES: usize = 64;

/// The pieces, by their places, which are counted from what is expected next; none overlaps the one
/// after it.
#[derive(Debug, Default)]
pub(super) struct Later {
    pieces: Vec<Piece>,
    /// Where the latest began.
    latest: u32,
}

#[derive(Debug)]
struct Piece {
    sequence: u32,
    bytes: Vec<u8>,
}

impl Piece {
    fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.bytes.len() as u32)
    }
}

impl Later {
    /// Keeps bytes from a sequence number on, which is behind `next`. What is there already stays.
    pub(super) fn keep(&mut self, next: u32, sequence: u32, bytes: &[u8]) {
        let place = |sequence: u32| sequence.wrapping_sub(next);
        self.latest = sequence;
        let (mut sequence, mut bytes) = (sequence, bytes);
        let mut at = self
            .pieces
            .partition_point(|piece| place(piece.sequence) <= place(sequence));
        if let Some(before) = at.checked_sub(1).and_then(|at| self.pieces.get(at)) {
            let known = before.end().wrapping_sub(sequence).cast_signed().max(0) as usize;
            bytes = &bytes[known.min(bytes.len())..];
            sequence = sequence.wrapping_add(known as u32);
        }
        while !bytes.is_empty() && self.pieces.len() < MAX_PIECES {
            let after = self.pieces.get(at);
            let gap = after.map_or(usize::MAX, |after| {
                after.sequence.wrapping_sub(sequence) as usize
            });
            let known = after.map_or(0, |after| after.bytes.len());
            let (new, rest) = bytes.split_at(gap.min(bytes.len()));
            if !new.is_empty() {
                let bytes = new.to_vec();
                self.pieces.insert(at, Piece { sequence, bytes });
                at += 1;
            }
            // Over what was there, to what is beyond.
            let covered = known.min(rest.len());
            bytes = &rest[covered..];
            sequence = sequence.wrapping_add((new.len() + covered) as u32);
            at += 1;
        }
    }

    /// Takes out the bytes that are next; what lies before them is let go of.
    pub(super) fn take(&mut self, next: u32) -> Option<Vec<u8>> {
        while let Some(first) = self.pieces.first() {
            let ahead = first.sequence.wrapping_sub(next).cast_signed();
            if ahead > 0 {
                return None;
            }
            let mut piece = self.pieces.remove(0);
            let known = ahead.unsigned_abs() as usize;
            if known < piece.bytes.len() {
                piece.bytes.drain(..known);
                return Some(piece.bytes);
            }
        }
        self.pieces = Vec::new();
        None
    }

    /// What there is, from and to, that which came last first (RFC 2018 §4), and how many of these
    /// there are.
    pub(super) fn blocks(&self, next: u32) -> ([(u32, u32); MAX_BLOCKS], usize) {
        let mut blocks: Vec<(u32, u32)> = Vec::new();
        for piece in &self.pieces {
            match blocks.last_mut() {
                Some((_, end)) if *end == piece.sequence => *end = piece.end(),
                _ => blocks.push((piece.sequence, piece.end())),
            }
        }
        let place = |sequence: u32| sequence.wrapping_sub(next);
        let latest = place(self.latest);
        if let Some(first) = blocks
            .iter()
            .position(|(from, to)| (place(*from)..place(*to)).contains(&latest))
        {
            blocks[..=first].rotate_right(1);
        }
        let mut told = [(0, 0); MAX_BLOCKS];
        let count = blocks.len().min(MAX_BLOCKS);
        told[..count].copy_from_slice(&blocks[..count]);
        (told, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn pieces_come_out_in_order_whatever_way_they_came() {
        let mut random = Random::new(11);
        for _ in 0..300 {
            let mut later = Later::default();
            let start = random.next() as u32;
            let whole = random.bytes(400);
            let mut known = [false; 400];
            for _ in 0..random.below(40) {
                let from = 1 + random.below(398);
                let to = (from + random.below(60)).min(400);
                let full = later.pieces.len() + 40 > MAX_PIECES;
                let sequence = start.wrapping_add(from as u32);
                later.keep(start, sequence, &whole[from..to]);
                if !full {
                    known[from..to].fill(true);
                }
                for pair in later.pieces.windows(2) {
                    let gap = pair[1].sequence.wrapping_sub(pair[0].end());
                    assert!(gap.cast_signed() >= 0);
                }
            }
            // The missing byte comes.
            let mut next = 1;
            while let Some(piece) = later.take(start.wrapping_add(next as u32)) {
                assert_eq!(piece, whole[next..next + piece.len()]);
                next += piece.len();
            }
            let expected = known[1..].iter().take_while(|known| **known).count();
            assert!(next > expected, "{next} {expected}");
        }
    }

    #[test]
    fn the_container_is_told_of_the_latest_first() {
        let mut later = Later::default();
        for from in [10_u32, 30, 50, 70, 40] {
            later.keep(0, from, &[0; 10]);
        }
        let (blocks, count) = later.blocks(0);
        assert_eq!(&blocks[..count], [(30, 60), (10, 20), (70, 80)]);
        assert_eq!(later.take(5), None);
        assert_eq!(later.take(15), Some(vec![0; 5]));
    }
}
