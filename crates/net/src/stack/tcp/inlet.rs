//! What the container sends on a connection: the receiving half of its TCP.
//!
//! smoltcp would copy every byte into a ring and from there to the socket. Here a segment that is
//! next in order goes to the socket straight from the frame it came in, and takes no memory;
//! only what the socket does not take at once is kept, as much as the window allows. smoltcp sees
//! a container that sends headers and no data, and whatever it answers is given the true
//! acknowledgment number and window on its way out.
//!
//! Segments out of order are kept until what is missing comes, and the container is told of them
//! (SACK, RFC 2018). On a link that is memory that is rare: its queue overflows when many
//! connections send at once.

use std::collections::VecDeque;

use super::engine::{GENEROUS, MODEST};
use super::later::Later;
use super::segment::{self, ACK, Header, MAX_BLOCKS, SYN, Wishes};

/// By how much the window must have grown to be worth a segment of its own, in bytes: a largest segment.
/// RFC 9293 §3.8.6.2.2 says one segment, or half the buffer.
const WORTH_TELLING: u32 = 64 * 1024;

/// The receiving half.
#[derive(Debug, Default)]
pub(super) struct Inlet {
    /// The sequence number of the container's first byte.
    first: u32,
    /// The one that is expected next (RCV.NXT), its end not counted.
    next: u32,
    /// The largest window at present, in bytes, and the largest that can be told.
    limit: u32,
    largest: u32,
    /// By how many bits windows are scaled (RFC 7323 §2).
    scale: u8,
    /// What was acknowledged last, and up to where the container may send.
    acknowledged: u32,
    edge: u32,
    /// Whether the container must hear from us although nothing is new.
    owed: bool,
    /// The sequence number of what we send next (SND.NXT).
    sending: u32,
    /// What came and was not taken yet.
    waiting: VecDeque<u8>,
    /// What came out of order.
    later: Later,
    /// Whether the container wants to hear of that.
    selective: bool,
}

/// What a segment brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// Nothing, or something that was there before.
    Nothing,
    /// The question whether anybody is there still.
    Question,
    /// Something whose predecessor is missing.
    Later,
    /// All it holds, to the end.
    Whole,
}

impl Inlet {
    /// The half of a connection that begins with this SYN.
    pub(super) fn new(syn: &Header, wishes: Wishes) -> Inlet {
        let largest = GENEROUS as u32;
        let (largest, scale) = match wishes.scales {
            true => (largest, (0..14).find(|bits| largest >> bits < 1 << 16)),
            false => (largest.min(u16::MAX.into()), None),
        };
        let first = syn.sequence.wrapping_add(1);
        Inlet {
            first,
            next: first,
            limit: largest.min(MODEST as u32),
            largest,
            scale: scale.unwrap_or(0),
            acknowledged: first,
            edge: first,
            owed: false,
            sending: 0,
            waiting: VecDeque::new(),
            later: Later::default(),
            selective: wishes.selective,
        }
    }

    /// Where a sequence number is for smoltcp, which has not seen any data.
    pub(super) fn hide(&self, sequence: u32) -> u32 {
        sequence.wrapping_sub(self.next).wrapping_add(self.first)
    }

    /// The sequence number of the container's first byte.
    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// What waits to be taken, or the first part of it.
    pub(super) fn waiting(&self) -> &[u8] {
        self.waiting.as_slices().0
    }

    /// Takes out so many bytes of what waits.
    pub(super) fn consume(&mut self, count: usize) {
        self.waiting.drain(..count);
        if self.waiting.is_empty() {
            // The next begins where the memory is warm.
            self.waiting.clear();
        }
    }

    /// How much memory there is for what waits, in bytes.
    pub(super) fn capacity(&self) -> usize {
        self.waiting.capacity()
    }

    /// Gives back that memory, if nothing waits.
    pub(super) fn release_memory(&mut self) {
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
    }

    /// What came out of order, from and to, and how many of these there are.
    pub(super) fn blocks(&self) -> ([(u32, u32); MAX_BLOCKS], usize) {
        match self.selective {
            true => self.later.blocks(self.next),
            false => Default::default(),
        }
    }

    /// Has the container told again what we have.
    pub(super) fn remind(&mut self) {
        self.owed = true;
    }

    /// Changes how large the window is, in bytes.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = self.largest.min(limit as u32);
    }

    /// How much more the container may be allowed to send.
    fn window(&self) -> u32 {
        let window = self.limit.saturating_sub(self.waiting.len() as u32);
        // What was allowed is not taken back (RFC 9293 §3.8.6).
        window.max(self.edge.wrapping_sub(self.next))
    }

    /// Takes the payload of a segment. `take` gets what is new, if nothing waits before it, and
    /// says how much it took.
    pub(super) fn accept(
        &mut self,
        header: &Header,
        payload: &[u8],
        take: impl FnOnce(&[u8]) -> usize,
    ) -> Brought {
        let ahead = header.sequence.wrapping_sub(self.next).cast_signed();
        let old = usize::try_from(-i64::from(ahead)).unwrap_or(0);
        let occupies = payload.len() + usize::from(header.control & segment::FIN != 0);
        if occupies == 0 {
            // A probe of the window (RFC 9293 §3.8.6.1), a keep-alive (§3.8.4), or an acknowledgment overtaken.
            self.owed |= ahead != 0;
            let open = self.edge != self.next && self.waiting.is_empty();
            return match ahead == -1 && open {
                true => Brought::Question,
                false => Brought::Nothing,
            };
        }
        let room = self.edge.wrapping_sub(self.next) as usize;
        let limit = self.limit as usize;
        if ahead > 0 {
            self.owed = true;
            let room = room.min(limit).saturating_sub(ahead as usize);
            let fits = &payload[..payload.len().min(room)];
            self.later.keep(self.next, header.sequence, fits);
            return Brought::Later;
        }
        if old >= occupies {
            self.owed = true;
            return Brought::Nothing;
        }
        let new = &payload[old.min(payload.len())..];
        let fits = &new[..new.len().min(room)];
        let taken = match self.waiting.is_empty() && !fits.is_empty() {
            true => take(fits),
            false => 0,
        };
        // More may have been allowed than is now; what is too much comes again.
        let kept = (fits.len() - taken).min(limit.saturating_sub(self.waiting.len()));
        let fits = &fits[..taken + kept];
        self.waiting.extend(&fits[taken..]);
        self.next = self.next.wrapping_add(fits.len() as u32);
        let whole = fits.len() == new.len();
        // Nothing comes behind the end, be it there already.
        if !whole || header.control & segment::FIN == 0 {
            while let Some(piece) = self.later.take(self.next) {
                self.next = self.next.wrapping_add(piece.len() as u32);
                self.waiting.extend(piece);
                self.owed = true;
            }
        }
        match whole {
            true => Brought::Whole,
            false => {
                self.owed = true;
                Brought::Nothing
            }
        }
    }

    /// Completes a segment towards the container: it says what we have received, and how much
    /// more we take.
    pub(super) fn complete(&mut self, bytes: &mut [u8]) {
        let Some(header) = Header::parse(bytes) else {
            return;
        };
        let occupied = header.payload_len as u32
            + u32::from(header.control & SYN != 0)
            + u32::from(header.control & segment::FIN != 0);
        let end = header.sequence.wrapping_add(occupied);
        let is_syn = header.control & SYN != 0;
        if is_syn || end.wrapping_sub(self.sending).cast_signed() > 0 {
            self.sending = end;
        }
        if header.control & ACK == 0 {
            return;
        }
        let received = self.next.wrapping_sub(self.first);
        let acknowledgment = header.acknowledgment.wrapping_add(received);
        let scale = match is_syn {
            true => 0,
            false => self.scale,
        };
        let window = (self.window() >> scale).min(u16::MAX.into());
        segment::acknowledge(bytes, &header, acknowledgment, window as u16);
        if is_syn {
            segment::replace_window_scale(bytes, self.scale);
        }
        self.acknowledged = self.next;
        self.edge = self.next.wrapping_add(window << scale);
        self.owed = false;
    }

    /// Whether something is to be said that nothing else has said.
    pub(super) fn has_news(&self) -> bool {
        let grown = self
            .next
            .wrapping_add(self.window())
            .wrapping_sub(self.edge);
        // The first window has 16 bits; what comes in it is soon enough to tell of a larger one.
        let began = self.next != self.first;
        self.owed
            || self.next != self.acknowledged
            || began && grown >= WORTH_TELLING.min(self.limit / 2).max(1)
    }

    /// The sequence number of what we send next.
    pub(super) fn sending(&self) -> u32 {
        self.sending
    }
}
