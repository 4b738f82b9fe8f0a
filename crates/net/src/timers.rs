//! Deadlines, in a heap.
//!
//! Deadlines move all the time, mostly further away. Who has one keeps it itself, and is asked
//! when a timer set for it goes off; a timer that went off too early is simply set again. So the
//! heap holds about one entry for each that waits, and moving a deadline away costs nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use smoltcp::time::{Duration, Instant};

use crate::poll::Token;

/// The heap.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Token)>>,
}

impl Timers {
    /// Has `token` asked at `when`.
    pub(crate) fn set(&mut self, when: Instant, token: Token) {
        self.heap.push(Reverse((when, token)));
    }

    /// The next that is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Token> {
        match self.heap.peek() {
            Some(Reverse((when, _))) if *when <= now => {
                self.heap.pop().map(|Reverse((_, token))| token)
            }
            _ => None,
        }
    }

    /// How long until the next is due.
    pub(crate) fn delay(&self, now: Instant) -> Option<Duration> {
        self.heap.peek().map(|Reverse((when, _))| {
            if *when <= now {
                Duration::ZERO
            } else {
                *when - now
            }
        })
    }
}

/// A deadline that its owner keeps, and how the owner and [`Timers`] agree about it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deadline {
    /// When something is to be done.
    at: Option<Instant>,
    /// For when a timer is set.
    set: Option<Instant>,
}

impl Deadline {
    /// Moves the deadline, setting a timer only if none goes off before.
    pub(crate) fn set(&mut self, at: Option<Instant>, token: Token, timers: &mut Timers) {
        self.at = at;
        if let Some(at) = at
            && self.set.is_none_or(|set| at < set)
        {
            self.set = Some(at);
            timers.set(at, token);
        }
    }

    /// Answers a timer: true when the time has come, else the timer is set again as needed.
    pub(crate) fn reached(&mut self, now: Instant, token: Token, timers: &mut Timers) -> bool {
        if self.set.is_some_and(|set| set <= now) {
            self.set = None;
        }
        match self.at {
            Some(at) if at <= now => {
                self.at = None;
                true
            }
            at => {
                self.set(at, token, timers);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::Kind;

    #[test]
    fn a_deadline_that_moves_away_keeps_one_timer() {
        let mut timers = Timers::default();
        let mut deadline = Deadline::default();
        let token = Token::only(Kind::Tcp);
        let at = |ms| Instant::from_millis(ms);
        deadline.set(Some(at(10)), token, &mut timers);
        deadline.set(Some(at(500)), token, &mut timers);
        assert_eq!(timers.heap.len(), 1);
        assert_eq!(timers.delay(at(4)), Some(Duration::from_millis(6)));
        assert_eq!(timers.due(at(9)), None);
        assert_eq!(timers.due(at(10)), Some(token));
        assert!(!deadline.reached(at(10), token, &mut timers));
        assert_eq!(timers.due(at(499)), None);
        assert_eq!(timers.due(at(500)), Some(token));
        assert!(deadline.reached(at(500), token, &mut timers));
        assert_eq!(timers.delay(at(500)), None);
    }

    #[test]
    fn a_deadline_that_comes_nearer_is_met() {
        let mut timers = Timers::default();
        let mut deadline = Deadline::default();
        let token = Token::only(Kind::Tcp);
        deadline.set(Some(Instant::from_millis(500)), token, &mut timers);
        deadline.set(Some(Instant::from_millis(10)), token, &mut timers);
        let now = Instant::from_millis(10);
        assert_eq!(timers.due(now), Some(token));
        assert!(deadline.reached(now, token, &mut timers));
        deadline.set(None, token, &mut timers);
        // The timer that was set first goes off for nothing.
        let later = Instant::from_millis(500);
        assert_eq!(timers.due(later), Some(token));
        assert!(!deadline.reached(later, token, &mut timers));
    }
}
