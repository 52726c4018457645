//! The agent's side of the connection table: ending what is over, and listing what is there. The rules stand in
//! `lb_common::conn`.

mod import;

use std::{
    collections::BTreeSet,
    mem::offset_of,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

use lb_common::{
    FlowKey,
    conn::{
        Connection, Direction, NONE, STATES, State, TAG_BUSY, TAG_FREE, TagBucket, WAYS, Word, age, is_active,
    },
    server::{Load, Server, server_flag},
    settings::Settings,
};

use super::mapped::Mapped;
pub use import::{Import, Imported};

/// The table and what its connections count in.
#[derive(Debug)]
pub struct ConnectionTable {
    memory: Arc<Memory>,
    /// Places that were free but tagged at the last look: whoever freed them had no time to finish.
    unfinished: BTreeSet<u32>,
}

/// The maps themselves, which any thread may read.
#[derive(Debug)]
pub struct Memory {
    tags: Mapped<TagBucket>,
    places: Mapped<Connection>,
    loads: Arc<Mapped<Load>>,
    settings: Settings,
}

/// A connection as a list shows it.
#[derive(Debug, Clone, Copy)]
pub struct Listed {
    /// The flow from the client.
    pub key: FlowKey,
    /// Number of the real server.
    pub server: u32,
    /// State.
    pub state: State,
    /// Ticks until it is forgotten.
    pub expires: u32,
    /// Ticks since its last packet.
    pub silent: u32,
}

impl ConnectionTable {
    /// Over its maps.
    pub fn new(memory: Arc<Memory>) -> Self {
        Self { memory, unfinished: BTreeSet::new() }
    }

    /// Number of buckets.
    pub fn buckets(&self) -> u32 {
        self.memory.buckets()
    }

    /// Ends every connection in `buckets` whose time is over at `now` (ticks), or whose real server is gone and keeps none;
    /// says how many those were. Casts doubt on the way back of those whose client has been silent for `silence` ticks
    /// while the server went on. `server` gives a real server's entry, `None` for one that is not in use.
    pub fn sweep(
        &mut self,
        buckets: std::ops::Range<u32>,
        now: u32,
        silence: u32,
        server: impl Fn(u32) -> Option<Server>,
    ) -> usize {
        let mut ended = 0;
        // By server: looking each up once costs less than once for each connection.
        let mut lost = vec![None; self.memory.loads.len() as usize];
        for bucket in buckets {
            for way in 0..WAYS {
                let index = bucket * WAYS + way;
                let tag = self.memory.tag(index).load(SeqCst);
                if tag <= TAG_BUSY {
                    continue;
                }
                let word = Word(self.memory.word(index).load(SeqCst));
                if word.state() == State::Free as u8 {
                    self.finish(index, tag);
                    continue;
                }
                self.memory.doubt_way_back(index, now, silence);
                let over = self.memory.has_lost_server(index, &mut lost, &server)
                    || self.memory.is_over(index, word, now, &server);
                if over && self.memory.end(index, word) {
                    ended += 1;
                }
            }
        }
        ended
    }

    /// Clears the tag of a place that was free at two looks in a row.
    fn finish(&mut self, index: u32, tag: u32) {
        if !self.unfinished.insert(index) {
            self.unfinished.remove(&index);
            // Only if nobody has given the place to another flow in between.
            let _ = self.memory.tag(index).compare_exchange(tag, TAG_FREE, SeqCst, SeqCst);
        }
    }
}

impl Memory {
    /// Takes the three maps.
    pub fn new(
        tags: Mapped<TagBucket>,
        places: Mapped<Connection>,
        loads: Arc<Mapped<Load>>,
        settings: Settings,
    ) -> Self {
        Self { tags, places, loads, settings }
    }

    fn buckets(&self) -> u32 {
        self.tags.len()
    }

    /// Calls `each` for every connection; stops when it says false.
    pub fn list(&self, now: u32, mut each: impl FnMut(Listed) -> bool) {
        for index in 0..self.places.len() {
            if self.tag(index).load(SeqCst) <= TAG_BUSY {
                continue;
            }
            let place = self.places.copy(index);
            let word = Word(place.word);
            let is_same = || Word(self.word(index).load(SeqCst)).same_generation(word);
            if place.meta.direction() != Direction::Forward || !is_same() {
                continue;
            }
            let Some(state) = State::from_raw(word.state()).filter(|&state| state != State::Free) else {
                continue;
            };
            let seen = match self.peer_of(&place) {
                Some(peer) => age(now, place.last_seen).min(age(now, self.places.copy(peer).last_seen)),
                None => age(now, place.last_seen),
            };
            let expires = self.timeout(word).saturating_sub(seen);
            if !each(Listed { key: place.key(), server: place.server, state, expires, silent: seen }) {
                return;
            }
        }
    }

    fn word(&self, index: u32) -> &AtomicU32 {
        self.places.word(index, offset_of!(Connection, word))
    }

    fn tag(&self, index: u32) -> &AtomicU32 {
        self.tags.word(index / WAYS, (index % WAYS) as usize * 4)
    }

    fn timeout(&self, word: Word) -> u32 {
        self.settings.timeouts[word.state() as usize % STATES]
    }

    /// The place of the other direction of a forward place.
    fn peer_of(&self, place: &Connection) -> Option<u32> {
        match place.peer() {
            NONE => None,
            peer if peer < self.places.len() && place.is_peer(&self.places.copy(peer)) => Some(peer),
            _ => None,
        }
    }

    /// Whether a forward place's real server is gone for good; `lost` remembers the answer for each server.
    fn has_lost_server(
        &self,
        index: u32,
        lost: &mut [Option<bool>],
        server: &impl Fn(u32) -> Option<Server>,
    ) -> bool {
        let place = self.places.copy(index);
        // The reverse place ends with its forward one, or alone as an orphan.
        if place.meta.direction() == Direction::Reverse {
            return false;
        }
        let Some(lost) = lost.get_mut(place.server as usize) else { return true };
        *lost.get_or_insert_with(|| server(place.server).is_none_or(|server| is_lost(&server)))
    }

    fn is_over(&self, index: u32, word: Word, now: u32, server: &impl Fn(u32) -> Option<Server>) -> bool {
        let place = self.places.copy(index);
        let timeout = self.timeout(word);
        if age(now, place.last_seen) <= timeout {
            return false;
        }
        match place.meta.direction() {
            Direction::Forward => {
                self.peer_of(&place).is_none_or(|peer| age(now, self.places.copy(peer).last_seen) > timeout)
            }
            // Its own life ends with the forward place; alone it is what a crash left.
            Direction::Reverse => match server(place.server) {
                Some(server) => {
                    let dport = if server.vport.is_any() { place.sport } else { server.vport };
                    let key = FlowKey { dst: server.vip, dport, ..place.key().reversed() };
                    self.find(&key).is_none()
                }
                None => true,
            },
        }
    }

    /// A router may die while the client has nothing to say: then nobody would tell the program that its answers go nowhere.
    fn doubt_way_back(&self, index: u32, now: u32, silence: u32) {
        let place = self.places.copy(index);
        if place.meta.direction() != Direction::Forward || age(now, place.last_seen) <= silence {
            return;
        }
        let Some(peer) = self.peer_of(&place) else { return };
        let other = self.places.copy(peer);
        if age(now, other.last_seen) > silence || other.meta.is_doubted() {
            return;
        }
        // Both, so that the client's next packet differs from what its place says, and settles it.
        for (index, meta) in [(index, place.meta), (peer, other.meta)] {
            let word = self.places.word(index, offset_of!(Connection, meta));
            // The program was faster: it knows better.
            let _ = word.compare_exchange(meta.to_raw(), meta.doubted().to_raw(), SeqCst, SeqCst);
        }
    }

    /// Frees a place and, for a forward one, its peer; counts the connection out. False when the program was faster.
    fn end(&self, index: u32, word: Word) -> bool {
        let place = self.places.copy(index);
        if self.word(index).compare_exchange(word.0, word.freed().0, SeqCst, SeqCst).is_err() {
            return false;
        }
        if place.meta.direction() == Direction::Forward {
            self.count_out(place.server, word.state());
            if let Some(peer) = self.peer_of(&place) {
                let word = Word(self.word(peer).load(SeqCst));
                if word.state() != State::Free as u8
                    && self.word(peer).compare_exchange(word.0, word.freed().0, SeqCst, SeqCst).is_ok()
                {
                    self.tag(peer).store(TAG_FREE, SeqCst);
                }
            }
        }
        self.tag(index).store(TAG_FREE, SeqCst);
        true
    }

    fn count_out(&self, server: u32, state: u8) {
        if let Some(count) = self.count_of(server, state) {
            count.fetch_sub(1, SeqCst);
        }
    }

    /// Where a server's connections in this state are counted.
    fn count_of(&self, server: u32, state: u8) -> Option<&AtomicU32> {
        let field = if is_active(state) { offset_of!(Load, active) } else { offset_of!(Load, inactive) };
        (server < self.loads.len()).then(|| self.loads.word(server, field))
    }

    /// Ends the connection of a flow, if it has one.
    pub(super) fn end_flow(&self, key: &FlowKey) {
        if let Some(index) = self.find(key) {
            let word = Word(self.word(index).load(SeqCst));
            // The program is faster only when it moves the connection on; the sweep then ends it in its time.
            let _ = word.state() != State::Free as u8 && self.end(index, word);
        }
    }

    /// The place of a flow.
    pub(super) fn find(&self, key: &FlowKey) -> Option<u32> {
        let hash = key.hash(&self.settings.hash_keys);
        let buckets = self.buckets();
        [hash.primary(buckets), hash.secondary(buckets)]
            .into_iter()
            .flat_map(|bucket| (0..WAYS).map(move |way| bucket * WAYS + way))
            .find(|&index| {
                self.tag(index).load(SeqCst) == hash.tag() && self.places.copy(index).key() == *key
            })
    }
}

/// Whether connections of a real server end.
fn is_lost(server: &Server) -> bool {
    server.flags & (server_flag::GONE | server_flag::KEEP) == server_flag::GONE
}

#[cfg(test)]
mod tests;
