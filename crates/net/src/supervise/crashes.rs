//! How soon after a crash the network is started again.

use std::time::Duration;

/// One that lived as long as this was well: what it ended of is new.
const WELL: Duration = Duration::from_secs(60);
/// The wait after the second crash in a row; it doubles from one to the next.
const FIRST: Duration = Duration::from_millis(50);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(10);
/// After so many crashes in a row, a minute and a half of them, the next would be no different.
const MOST: u32 = 16;

/// The crashes in a row.
#[derive(Debug, Default)]
pub(super) struct Crashes {
    count: u32,
}

impl Crashes {
    /// Counts a crash after that long a life; how long to wait, or `None` for ever.
    pub(super) fn next(&mut self, lived: Duration) -> Option<Duration> {
        if lived >= WELL {
            self.count = 0;
        }
        self.count += 1;
        match self.count {
            1 => Some(Duration::ZERO),
            2..=MOST => Some((FIRST * 2_u32.pow(self.count - 2)).min(LONGEST)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let mut crashes = Crashes::default();
        let waits: Vec<_> = std::iter::from_fn(|| crashes.next(Duration::ZERO)).collect();
        assert_eq!(waits.len(), MOST as usize);
        assert_eq!(waits[0], Duration::ZERO);
        assert_eq!(waits[1..4], [FIRST, FIRST * 2, FIRST * 4]);
        assert!(waits.is_sorted() && waits.last() == Some(&LONGEST));
        assert_eq!(crashes.next(Duration::ZERO), None);
        // A good life in between makes it all forgotten.
        assert_eq!(crashes.next(WELL), Some(Duration::ZERO));
    }
}
