//! Taking the connections of an old table into a new one of another size, while the old program still uses the old one.
//!
//! 1. [`Import::copy`], right before the links lead to the new program: every connection that lives.
//! 2. The links are switched.
//! 3. [`Import::finish`]: what the old program has changed since, since it went on with the old table meanwhile.
//!
//! Both tables count in [`lb_common::server::Load`]s of their own, so nobody has to guess who counted what: each connection is counted when it is
//! entered here, as the program does it, and the new program counts it out. What cannot be made good: a packet that the
//! old program has not finished at step 3, and one that the new program gets between 2 and 3 for a connection that began
//! after 1. That is milliseconds.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use lb_common::{
    conn::{Connection, Direction, NONE, State, TAG_BUSY, TAG_FREE, TagBucket, WAYS, Word, is_active},
    settings::Settings,
};

use super::{Mapped, Memory};

/// A flow stands in the first of its two buckets while that has so many places to spare, like in the program.
const SPARE: usize = 4;

/// The two tables, and what has been taken so far.
#[derive(Debug)]
pub struct Import {
    old: Memory,
    new: Arc<Memory>,
    /// By place of the old table: whether its connection has been looked at.
    seen: Vec<bool>,
    taken: Vec<Taken>,
    done: Imported,
}

/// How many connections were taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// They go on.
    pub taken: usize,
    /// There was no room for these.
    pub dropped: usize,
}

/// A forward place that was taken: where it stands, and which word it had there.
#[derive(Debug, Clone, Copy)]
struct Taken {
    old: u32,
    old_word: Word,
    new: u32,
    new_word: Word,
}

impl Import {
    /// From the two maps of the old table, whose flows are hashed with the same secret.
    pub fn new(tags: Mapped<TagBucket>, places: Mapped<Connection>, new: Arc<Memory>) -> Self {
        let settings = Settings { buckets: tags.len(), ..new.settings };
        let seen = vec![false; places.len() as usize];
        let old = Memory::new(tags, places, Arc::clone(&new.loads), settings);
        Self { old, new, seen, taken: Vec::new(), done: Imported::default() }
    }

    /// Takes every connection that lives at `now` (ticks) and has not been taken. Where the new table is too small those go
    /// first that still exchange data; one that is closed is missed the least.
    pub fn copy(&mut self, now: u32) {
        for first in [true, false] {
            for index in 0..self.old.places.len() {
                let Some(place) = self.old.living(index).filter(|_| !self.seen[index as usize]) else {
                    continue;
                };
                let word = Word(place.word);
                if place.meta.direction() == Direction::Forward && is_in_use(word.state()) == first {
                    self.seen[index as usize] = true;
                    if !self.old.is_over(index, word, now, &|_| None) {
                        self.take(index, place);
                    }
                }
            }
        }
    }

    /// Brings up to date what the old program has changed since [`Self::copy`]; says what was taken in all. To be called when
    /// it runs nowhere any more. What the new program has changed itself stays.
    pub fn finish(mut self, now: u32) -> Imported {
        for taken in std::mem::take(&mut self.taken) {
            let word = Word(self.old.word(taken.old).load(SeqCst));
            if word == taken.old_word {
                continue;
            }
            if word.same_generation(taken.old_word) && word.state() != State::Free as u8 {
                self.new.move_on(taken.new, taken.new_word, word.state());
                continue;
            }
            if self.new.end(taken.new, taken.new_word) {
                self.done.taken -= 1;
            }
            // Another connection may stand there now.
            self.seen[taken.old as usize] = false;
        }
        self.copy(now);
        self.done
    }

    /// Takes one connection with its other direction.
    fn take(&mut self, index: u32, place: Connection) {
        // Nobody counts for a server that has no number here.
        if self.new.count_of(place.server, place.word as u8).is_none() {
            return;
        }
        let reverse = match place.peer() {
            NONE => None,
            _ => match self.old.peer_of(&place).and_then(|peer| self.old.living(peer)) {
                Some(reverse) if place.is_peer(&reverse) => Some(reverse),
                // Half a connection: it was ended a moment ago.
                _ => return,
            },
        };
        let is_there = |place: &Connection| self.new.find(&place.key()).is_some();
        // The new program was faster, or two processors had entered one flow twice.
        if is_there(&place) || reverse.as_ref().is_some_and(is_there) {
            return;
        }
        match self.new.enter(place, reverse) {
            Some((new, new_word)) => {
                self.done.taken += 1;
                self.taken.push(Taken { old: index, old_word: Word(place.word), new, new_word });
            }
            None => self.done.dropped += 1,
        }
    }
}

/// Whether a connection in this state still exchanges data.
fn is_in_use(state: u8) -> bool {
    is_active(state) || state == State::Udp as u8
}

impl Memory {
    /// A copy of a place that holds a connection; `None` also when it changed hands meanwhile.
    fn living(&self, index: u32) -> Option<Connection> {
        let tag = self.tag(index).load(SeqCst);
        if tag <= TAG_BUSY {
            return None;
        }
        let place = self.places.copy(index);
        let word = Word(self.word(index).load(SeqCst));
        let is_same = self.tag(index).load(SeqCst) == tag && word.same_generation(Word(place.word));
        (is_same && place.word as u8 != State::Free as u8).then_some(place)
    }

    /// Enters a connection by the program's rules: the reverse place first, and counted when both stand. `None` when there is no
    /// room. Gives the forward place and its word.
    pub(in super::super) fn enter(
        &self,
        mut forward: Connection,
        reverse: Option<Connection>,
    ) -> Option<(u32, Word)> {
        let peer = match reverse {
            Some(reverse) => Some(self.insert(&reverse)?.0),
            None => None,
        };
        forward.way[0] = peer.unwrap_or(NONE);
        let Some((index, word)) = self.insert(&forward) else {
            if let Some(peer) = peer {
                self.discard(peer);
            }
            return None;
        };
        if let Some(count) = self.count_of(forward.server, word.state()) {
            count.fetch_add(1, SeqCst);
        }
        Some((index, word))
    }

    /// Takes a place for one direction and fills it, all but the place's own generation.
    fn insert(&self, place: &Connection) -> Option<(u32, Word)> {
        let hash = place.key().hash(&self.settings.hash_keys);
        // Somebody else may take a place that was free a moment ago; so often in a row nobody does.
        for _ in 0..WAYS {
            let index =
                self.free_place(hash.primary(self.buckets()), hash.secondary(self.buckets()), hash.tag())?;
            if self.tag(index).compare_exchange(TAG_FREE, TAG_BUSY, SeqCst, SeqCst).is_ok() {
                let word = self.fill(index, place);
                self.tag(index).store(hash.tag(), SeqCst);
                return Some((index, word));
            }
        }
        None
    }

    /// A free place in the first bucket while that has room to spare, else in the emptier one.
    fn free_place(&self, primary: u32, secondary: u32, tag: u32) -> Option<u32> {
        let (here, place_here) = self.free_in(primary, tag);
        if here >= SPARE {
            return place_here;
        }
        let (there, place_there) = self.free_in(secondary, tag);
        if here >= there { place_here } else { place_there }
    }

    /// How many places of a bucket are free, and one of them; none if another flow has the same tag there, so that a tag leads to
    /// one place only.
    fn free_in(&self, bucket: u32, tag: u32) -> (usize, Option<u32>) {
        let (mut free, mut found) = (0, None);
        for index in bucket * WAYS..(bucket + 1) * WAYS {
            match self.tag(index).load(SeqCst) {
                TAG_FREE => {
                    free += 1;
                    found = Some(index);
                }
                other if other == tag => return (0, None),
                _ => {}
            }
        }
        (free, found)
    }

    /// Fills a place that is ours, and gives its word: this place's generation in the state of the other.
    fn fill(&self, index: u32, place: &Connection) -> Word {
        let word = Word(self.word(index).load(SeqCst)).with_state(place.word as u8);
        let filled = Connection { word: word.0, ..*place };
        // SAFETY: 64 bytes without padding.
        let words: [u32; 16] = unsafe { std::mem::transmute(filled) };
        for (offset, word) in (0..).step_by(4).zip(words) {
            self.places.word(index, offset).store(word, SeqCst);
        }
        word
    }

    /// Frees a place of the reverse direction, which is not counted.
    fn discard(&self, index: u32) {
        let word = Word(self.word(index).load(SeqCst));
        if word.state() != State::Free as u8
            && self.word(index).compare_exchange(word.0, word.freed().0, SeqCst, SeqCst).is_ok()
        {
            self.tag(index).store(TAG_FREE, SeqCst);
        }
    }

    /// Moves a connection, whose word is `word` unless somebody was faster, to another state, with its count and the copy in its
    /// other direction.
    fn move_on(&self, index: u32, word: Word, state: u8) {
        let place = self.places.copy(index);
        let change = |index: u32, old: Word| {
            self.word(index).compare_exchange(old.0, old.with_state(state).0, SeqCst, SeqCst).is_ok()
        };
        if !change(index, word) {
            return;
        }
        if is_active(word.state()) != is_active(state)
            && let (Some(from), Some(to)) =
                (self.count_of(place.server, word.state()), self.count_of(place.server, state))
        {
            from.fetch_sub(1, SeqCst);
            to.fetch_add(1, SeqCst);
        }
        if let Some(peer) = self.peer_of(&place) {
            let word = Word(self.word(peer).load(SeqCst));
            // A copy only: if somebody is faster, it is he who knows better.
            let _ = word.state() != State::Free as u8 && change(peer, word);
        }
    }
}

#[cfg(test)]
mod tests;
