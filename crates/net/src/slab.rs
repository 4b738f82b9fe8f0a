//! A table whose entries have names that are never used twice.
//!
//! An event may still be under way when what it was about has gone and its place is taken: the
//! generation in the name tells the two apart.

/// The name of an entry: its place, and how many entries that place had before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    index: u32,
    /// Of 24 bits.
    generation: u32,
}

/// With the place's 32 bits and the 8 of what it is, the 64 of an event of epoll (epoll_ctl(2)).
const GENERATION_MASK: u32 = 0x00ff_ffff;

impl Key {
    /// The place in the table.
    pub(crate) fn place(self) -> usize {
        self.index as usize
    }

    /// The name as a number of 56 bits.
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The name that [`Key::pack`] made a number of.
    pub(crate) fn unpack(number: u64) -> Key {
        Key {
            index: number as u32,
            generation: (number >> 32) as u32 & GENERATION_MASK,
        }
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    inserted: u64,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    entry: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab {
            places: Vec::new(),
            free: Vec::new(),
            inserted: 0,
        }
    }
}

impl<T> Slab<T> {
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// How many entries there were so far.
    pub(crate) fn inserted(&self) -> u64 {
        self.inserted
    }

    pub(crate) fn insert(&mut self, entry: T) -> Key {
        self.inserted += 1;
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.places.push(Place {
                    generation: 0,
                    entry: None,
                });
                (self.places.len() - 1) as u32
            }
        };
        let place = &mut self.places[index as usize];
        place.entry = Some(entry);
        Key {
            index,
            generation: place.generation,
        }
    }

    /// All entries.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            let key = Key {
                index: index as u32,
                generation: place.generation,
            };
            place.entry.as_ref().map(|entry| (key, entry))
        })
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let place = self.places.get(key.index as usize)?;
        match place.generation == key.generation {
            true => place.entry.as_ref(),
            false => None,
        }
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.index as usize)?;
        match place.generation == key.generation {
            true => place.entry.as_mut(),
            false => None,
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation != key.generation {
            return None;
        }
        let entry = place.entry.take()?;
        place.generation = (place.generation + 1) & GENERATION_MASK;
        self.free.push(key.index);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_name_does_not_find_the_new_entry() {
        let mut slab = Slab::default();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_ne!(first, second);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
        assert_eq!((slab.len(), slab.inserted()), (1, 2));
        assert_eq!(Key::unpack(second.pack()), second);
    }
}
