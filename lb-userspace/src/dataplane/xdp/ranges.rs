//! Ranges of an array map: who has which slots.

/// Hands out ranges of `0..len`, first fit.
#[derive(Debug)]
pub struct Ranges {
    /// Free ranges (start, length) in order, none empty, none touching the next.
    free: Vec<(u32, u32)>,
    len: u32,
}

impl Ranges {
    /// All of `0..len` is free.
    pub fn new(len: u32) -> Self {
        Self { free: if len == 0 { Vec::new() } else { vec![(0, len)] }, len }
    }

    /// The start of a range of `len`, which is now taken; `None` when no gap is large enough.
    pub fn take(&mut self, len: u32) -> Option<u32> {
        if len == 0 {
            return Some(0);
        }
        let at = self.free.iter().position(|&(_, free)| free >= len)?;
        let (start, free) = self.free[at];
        if free == len {
            self.free.remove(at);
        } else {
            self.free[at] = (start + len, free - len);
        }
        Some(start)
    }

    /// One more than the highest number that is taken; 0 for none.
    pub fn end_of_taken(&self) -> u32 {
        match self.free.last() {
            Some(&(start, len)) if start + len == self.len => start,
            _ => self.len,
        }
    }

    /// Takes a range at a place; false when any of it is taken or outside.
    pub fn take_at(&mut self, start: u32, len: u32) -> bool {
        if len == 0 {
            return true;
        }
        let Some(end) = start.checked_add(len) else { return false };
        let Some(at) = self.free.partition_point(|&(free, _)| free <= start).checked_sub(1) else {
            return false;
        };
        if end > self.free[at].0 + self.free[at].1 {
            return false;
        }
        let (free, free_len) = self.free.remove(at);
        if end < free + free_len {
            self.free.insert(at, (end, free + free_len - end));
        }
        if free < start {
            self.free.insert(at, (free, start - free));
        }
        true
    }

    /// Gives back a range that [`Self::take`] gave.
    pub fn give(&mut self, start: u32, len: u32) {
        if len == 0 {
            return;
        }
        let at = self.free.partition_point(|&(other, _)| other < start);
        self.free.insert(at, (start, len));
        if at + 1 < self.free.len() && start + len == self.free[at + 1].0 {
            self.free[at].1 += self.free.remove(at + 1).1;
        }
        if at > 0 && self.free[at - 1].0 + self.free[at - 1].1 == start {
            self.free[at - 1].1 += self.free.remove(at).1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_taken_at_a_place_is_taken_once(places in proptest::collection::vec((0u32..64, 1u32..8), 0..40)) {
            let mut ranges = Ranges::new(64);
            let mut owned: Vec<(u32, u32)> = Vec::new();
            for (start, len) in places {
                let is_free = start + len <= 64 && owned.iter().all(|&(s, l)| start + len <= s || s + l <= start);
                prop_assert_eq!(ranges.take_at(start, len), is_free);
                if is_free {
                    owned.push((start, len));
                }
            }
            for (start, len) in owned {
                ranges.give(start, len);
            }
            prop_assert_eq!(ranges.take(64), Some(0));
        }

        #[test]
        fn no_two_owners_share_a_slot_and_nothing_is_lost(steps in proptest::collection::vec((0u32..20, any::<bool>()), 0..200)) {
            let mut ranges = Ranges::new(256);
            let mut owned: Vec<(u32, u32)> = Vec::new();
            for (len, take) in steps {
                if take || owned.is_empty() {
                    if let Some(start) = ranges.take(len) {
                        prop_assert!(start + len <= 256);
                        prop_assert!(len == 0 || owned.iter().all(|&(s, l)| start + len <= s || s + l <= start));
                        if len > 0 { owned.push((start, len)); }
                    }
                } else {
                    let (start, len) = owned.swap_remove(len as usize % owned.len());
                    ranges.give(start, len);
                }
            }
            for (start, len) in owned {
                ranges.give(start, len);
            }
            prop_assert_eq!(ranges.take(256), Some(0));
        }
    }
}
