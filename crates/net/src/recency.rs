//! Which entry of a table makes room for another, told at once.
//!
//! Who floods a table that is full has one entry go for each that comes. None of them may cost a look at all the others:
//! two rows of links go through the places of the table (see [`crate::slab`]), of those who were never answered and of
//! those who were, and whoever is used goes to the end of its row.

use smoltcp::time::Instant;

use crate::slab::Key;

/// When each entry of a table was used last, and in which order that was.
#[derive(Debug)]
pub(crate) struct Recency {
    /// First the ends of the two rows, then one for each place of the table. Each row is a ring, and who is in none is a
    /// ring by itself.
    links: Vec<Link>,
    /// How many are in each row.
    lengths: [usize; ROWS],
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
    /// The row in the upper 8 bits, below them the entry's name, which has 56.
    name: u64,
    last: Instant,
}

const UNANSWERED: usize = 0;
const ANSWERED: usize = 1;
const ROWS: usize = 2;
/// Where the row is in [`Link::name`].
const ROW_SHIFT: u32 = 56;

impl Default for Recency {
    fn default() -> Recency {
        Recency {
            links: (0..ROWS).map(Link::alone).collect(),
            lengths: [0; ROWS],
        }
    }
}

impl Link {
    fn alone(at: usize) -> Link {
        Link {
            before: at as u32,
            after: at as u32,
            name: 0,
            last: Instant::ZERO,
        }
    }

    fn key(&self) -> Key {
        Key::unpack(self.name & ((1 << ROW_SHIFT) - 1))
    }

    fn row(&self) -> usize {
        (self.name >> ROW_SHIFT) as usize
    }
}

impl Recency {
    /// Notes that an entry, which may be a new one, is used now, and whether it was ever answered.
    pub(crate) fn touch(&mut self, key: Key, answered: bool, now: Instant) {
        let at = ROWS + key.place();
        while self.links.len() <= at {
            self.links.push(Link::alone(self.links.len()));
        }
        self.leave(at);
        let row = match answered {
            true => ANSWERED,
            false => UNANSWERED,
        };
        let last = self.links[row].before;
        self.links[at] = Link {
            before: last,
            after: row as u32,
            name: (row as u64) << ROW_SHIFT | key.pack(),
            last: now,
        };
        self.links[last as usize].after = at as u32;
        self.links[row].before = at as u32;
        self.lengths[row] += 1;
    }

    /// Forgets an entry that goes.
    pub(crate) fn remove(&mut self, key: Key) {
        let at = ROWS + key.place();
        if self.links.get(at).is_some_and(|link| link.key() == key) {
            self.leave(at);
        }
    }

    /// When an entry was used last.
    pub(crate) fn last(&self, key: Key) -> Instant {
        let link = self.links.get(ROWS + key.place());
        link.map_or(Instant::ZERO, |link| link.last)
    }

    /// The one that makes room: as long as half of them or more were never answered one of these, so that a flood without
    /// answers leaves the other half alone, else one of all; always the one that was not used for longest.
    pub(crate) fn quietest(&self) -> Option<Key> {
        let first = |row: usize| match self.links[row].after as usize {
            end if end == row => None,
            first => Some(&self.links[first]),
        };
        let quietest = match (first(UNANSWERED), first(ANSWERED)) {
            (Some(unanswered), Some(answered)) => {
                let most = self.lengths[UNANSWERED] >= self.lengths[ANSWERED];
                match most || unanswered.last <= answered.last {
                    true => unanswered,
                    false => answered,
                }
            }
            (one, other) => one.or(other)?,
        };
        Some(quietest.key())
    }

    /// Takes what is at a place out of its row.
    fn leave(&mut self, at: usize) {
        let link = self.links[at];
        if link.after as usize == at {
            return;
        }
        self.links[link.before as usize].after = link.after;
        self.links[link.after as usize].before = link.before;
        self.lengths[link.row()] -= 1;
        self.links[at] = Link::alone(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Slab;
    use crate::testing::Random;

    fn at(second: i64) -> Instant {
        Instant::from_secs(second)
    }

    #[test]
    fn who_was_not_used_for_longest_goes_first() {
        let (mut slab, mut recency) = (Slab::default(), Recency::default());
        assert_eq!(recency.quietest(), None);
        let keys: Vec<Key> = (0..4).map(|n| slab.insert(n)).collect();
        for (second, key) in (0..).zip(&keys) {
            recency.touch(*key, false, at(second));
        }
        assert_eq!(recency.quietest(), Some(keys[0]));
        recency.touch(keys[0], false, at(9));
        assert_eq!(recency.quietest(), Some(keys[1]));
        assert_eq!(
            (recency.last(keys[0]), recency.last(keys[1])),
            (at(9), at(1))
        );
        recency.remove(keys[1]);
        recency.remove(keys[1]);
        assert_eq!(recency.quietest(), Some(keys[2]));
        // The place of one that has gone is another's.
        assert_eq!(slab.remove(keys[1]), Some(1));
        let new = slab.insert(7);
        recency.touch(new, false, at(10));
        recency.remove(keys[1]);
        for expected in [keys[2], keys[3], keys[0], new] {
            assert_eq!(recency.quietest(), Some(expected));
            recency.remove(expected);
        }
        assert_eq!(recency.quietest(), None);
    }

    #[test]
    fn a_flood_without_answers_leaves_half_of_those_who_have_them() {
        let (mut slab, mut recency) = (Slab::default(), Recency::default());
        let answered: Vec<Key> = (0..6).map(|n| slab.insert(n)).collect();
        for (second, key) in (0..).zip(&answered) {
            recency.touch(*key, true, at(second));
        }
        // The table is full from here on: one goes for each that comes.
        let mut gone = Vec::new();
        let mut flood = Vec::new();
        for second in 10..20 {
            let key = recency.quietest().unwrap();
            recency.remove(key);
            slab.remove(key);
            gone.push(key);
            flood.push(slab.insert(0));
            recency.touch(flood[flood.len() - 1], false, at(second));
        }
        let expected = [&answered[..3], &flood[..7]].concat();
        assert_eq!(gone, expected);
        // One that is answered changes its row.
        recency.touch(flood[7], true, at(20));
        assert_eq!(recency.quietest(), Some(answered[3]));
    }

    #[test]
    fn it_is_as_if_all_were_looked_at() {
        let mut random = Random::new(5);
        let (mut slab, mut recency) = (Slab::default(), Recency::default());
        // Name, answered, last.
        let mut all: Vec<(Key, bool, Instant)> = Vec::new();
        for second in 0..20_000 {
            let now = at(second);
            match random.below(4) {
                0 if all.len() < 50 => {
                    let answered = random.below(2) == 0;
                    all.push((slab.insert(()), answered, now));
                }
                1 if !all.is_empty() => {
                    let (key, ..) = all.swap_remove(random.below(all.len()));
                    recency.remove(key);
                    slab.remove(key);
                    continue;
                }
                _ if all.is_empty() => continue,
                _ => {
                    let length = all.len();
                    let one = &mut all[random.below(length)];
                    let answered = one.1 || random.below(3) == 0;
                    *one = (one.0, answered, now);
                }
            }
            for (key, answered, last) in all.iter().filter(|(.., last)| *last == now) {
                recency.touch(*key, *answered, *last);
            }
            let waiting = all.iter().filter(|(_, answered, _)| !answered).count();
            let candidates = all
                .iter()
                .filter(|(_, answered, _)| 2 * waiting < all.len() || !answered);
            let expected = candidates.min_by_key(|(.., last)| *last);
            assert_eq!(recency.quietest(), expected.map(|(key, ..)| *key));
        }
    }
}
