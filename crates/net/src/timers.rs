//! Deadlines, in order.
//!
//! Deadlines move all the time, mostly further away. Who has one keeps it itself, and is asked
//! when a timer set for it goes off; a timer that went off too early is simply set again, and who goes
//! takes its timer along. So there is at most one timer for each that waits, however many come and go,
//! and moving a deadline away costs nothing.

use std::collections::BTreeSet;

use smoltcp::time::{Duration, Instant};

use crate::poll::Token;

/// The timers.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    queue: BTreeSet<(Instant, Token)>,
}

impl Timers {
    /// Has `token` asked at `when`.
    pub(crate) fn set(&mut self, when: Instant, token: Token) {
        self.queue.insert((when, token));
    }

    /// The next that is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Token> {
        match self.queue.first() {
            Some((when, _)) if *when <= now => self.queue.pop_first().map(|(_, token)| token),
            _ => None,
        }
    }

    /// How long until the next is due.
    pub(crate) fn delay(&self, now: Instant) -> Option<Duration> {
        self.queue.first().map(|(when, _)| {
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
            self.cancel(token, timers);
            self.set = Some(at);
            timers.set(at, token);
        }
    }

    /// Takes the timer back, if one is set: another is to be set in its place, or the owner goes.
    pub(crate) fn cancel(&self, token: Token, timers: &mut Timers) {
        if let Some(set) = self.set {
            timers.queue.remove(&(set, token));
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
        assert_eq!(timers.queue.len(), 1);
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
        // The timer that was set first is there no more.
        assert_eq!(timers.delay(now), None);
    }

    #[test]
    fn who_goes_leaves_no_timer() {
        let mut timers = Timers::default();
        let (one, other) = (Token::only(Kind::Udp), Token::only(Kind::Echo));
        for _ in 0..100 {
            let mut deadline = Deadline::default();
            deadline.set(Some(Instant::from_millis(500)), one, &mut timers);
            deadline.cancel(one, &mut timers);
        }
        assert_eq!(timers.delay(Instant::ZERO), None);
        let mut deadline = Deadline::default();
        deadline.set(Some(Instant::from_millis(500)), other, &mut timers);
        Deadline::default().cancel(other, &mut timers);
        assert_eq!(timers.due(Instant::from_millis(500)), Some(other));
    }
}
