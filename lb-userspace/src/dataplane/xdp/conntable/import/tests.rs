//! Two tables over files; the old program is played by the agent's own side of the protocol.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    Addr, FlowKey, HashKeys, Port,
    conn::{Meta, STATES},
    ip_proto,
};
use proptest::prelude::*;

use super::{super::tests::mapped, *};

const SERVERS: u32 = 4;
const VIP: Addr = Addr::v4(1);
const TIMEOUT: u32 = 1000;
/// Now, for tables whose connections were seen at 1.
const NOW: u32 = 10;

fn memory(buckets: u32) -> Arc<Memory> {
    let mut keys = [0; 10];
    keys.iter_mut().zip(1u32..).for_each(|(key, number)| *key = number.wrapping_mul(0x9e37_79b9));
    let settings = Settings {
        hash_keys: HashKeys(keys),
        buckets,
        clock_shift: 0,
        netns_cookie: [0; 2],
        fragment_timeout: 0,
        reserved: 0,
        timeouts: [TIMEOUT; STATES],
    };
    Arc::new(Memory::new(mapped(buckets), mapped(buckets * WAYS), Arc::new(mapped(SERVERS)), settings))
}

/// An old table, and one more view of its memory for the import.
struct Old {
    memory: Arc<Memory>,
    maps: (std::fs::File, std::fs::File),
}

impl Old {
    fn new(buckets: u32) -> Self {
        let file = |len: u32| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(u64::from(len)).unwrap();
            file
        };
        let maps = (file(buckets * 64), file(buckets * WAYS * 64));
        let (tags, places) =
            (Mapped::new(&maps.0, buckets).unwrap(), Mapped::new(&maps.1, buckets * WAYS).unwrap());
        let settings = memory(buckets).settings;
        Self { memory: Arc::new(Memory::new(tags, places, Arc::new(mapped(SERVERS)), settings)), maps }
    }

    fn import_into(&self, new: &Arc<Memory>) -> Import {
        let buckets = self.memory.buckets();
        let (tags, places) = (Mapped::new(&self.maps.0, buckets), Mapped::new(&self.maps.1, buckets * WAYS));
        Import::new(tags.unwrap(), places.unwrap(), Arc::clone(new))
    }

    /// Opens the connection of a client's port; NAT for servers with an even number.
    fn open(&self, client: u16, server: u32, state: State) {
        let forward = place(&forward_key(client), Direction::Forward, server, state);
        let reverse = place(&reverse_key(client, server), Direction::Reverse, server, state);
        self.memory.enter(forward, is_nat(server).then_some(reverse)).expect("there is room");
    }

    fn end(&self, client: u16) {
        let index = self.memory.find(&forward_key(client)).expect("it is there");
        assert!(self.memory.end(index, word(&self.memory, index)));
    }

    fn change(&self, client: u16, state: State) {
        let index = self.memory.find(&forward_key(client)).expect("it is there");
        self.memory.move_on(index, word(&self.memory, index), state as u8);
    }
}

fn is_nat(server: u32) -> bool {
    server.is_multiple_of(2)
}

fn forward_key(client: u16) -> FlowKey {
    let (sport, dport) = (Port::from_number(client), Port::from_number(80));
    FlowKey { src: Addr::v4(7), dst: VIP, sport, dport, proto: ip_proto::TCP.into() }
}

fn reverse_key(client: u16, server: u32) -> FlowKey {
    let (sport, dport) = (Port::from_number(8080), Port::from_number(client));
    FlowKey { src: Addr::v4(100 + server), dst: Addr::v4(7), sport, dport, proto: ip_proto::TCP.into() }
}

fn place(key: &FlowKey, direction: Direction, server: u32, state: State) -> Connection {
    Connection {
        src: key.src,
        dst: key.dst,
        sport: key.sport,
        dport: key.dport,
        meta: Meta::new(ip_proto::TCP, direction, false, 5),
        word: state as u32,
        last_seen: 1,
        server,
        way: [NONE, 0xaa, 0xbb],
    }
}

fn word(memory: &Memory, index: u32) -> Word {
    Word(memory.word(index).load(SeqCst))
}

/// Every connection by the client's port, each checked to be whole and to be found by the program's rules.
fn content(memory: &Memory) -> BTreeMap<u16, (u32, State)> {
    let mut found = BTreeMap::new();
    let mut places = 0;
    for bucket in 0..memory.buckets() {
        let tags: Vec<u32> = (bucket * WAYS..(bucket + 1) * WAYS)
            .map(|index| memory.tag(index).load(SeqCst))
            .filter(|&tag| tag != TAG_FREE)
            .collect();
        assert_eq!(tags.len(), tags.iter().collect::<BTreeSet<_>>().len(), "a tag twice in bucket {bucket}");
        assert!(!tags.contains(&TAG_BUSY), "a place is still being filled");
        places += tags.len();
    }
    for index in 0..memory.places.len() {
        let Some(place) = memory.living(index).filter(|place| place.meta.direction() == Direction::Forward)
        else {
            continue;
        };
        let client = place.sport.number();
        assert_eq!(memory.find(&forward_key(client)), Some(index));
        assert_eq!((place.meta.link(), place.way[1], place.way[2], place.last_seen), (5, 0xaa, 0xbb, 1));
        let state = State::from_raw(place.word as u8).expect("a state");
        if is_nat(place.server) {
            let peer = memory.peer_of(&place).expect("the other direction");
            assert_eq!(memory.find(&reverse_key(client, place.server)), Some(peer));
            assert_eq!(word(memory, peer).state(), state as u8);
            places -= 1;
        } else {
            assert_eq!(place.peer(), NONE);
        }
        places -= 1;
        assert!(found.insert(client, (place.server, state)).is_none(), "{client} stands there twice");
    }
    assert_eq!(places, 0, "places without a connection");
    found
}

/// Active and inactive connections of each server.
fn counts(memory: &Memory) -> Vec<(u32, u32)> {
    (0..SERVERS).map(|server| memory.loads.copy(server)).map(|load| (load.active, load.inactive)).collect()
}

fn counts_of(content: &BTreeMap<u16, (u32, State)>) -> Vec<(u32, u32)> {
    let count = |server: u32, active: bool| {
        let of = content.values().filter(|(one, state)| *one == server && is_active(*state as u8) == active);
        u32::try_from(of.count()).unwrap()
    };
    (0..SERVERS).map(|server| (count(server, true), count(server, false))).collect()
}

#[test]
fn every_connection_moves_to_a_larger_table() {
    let (old, new) = (Old::new(64), memory(171));
    for client in 0..300 {
        old.open(client, u32::from(client) % SERVERS, State::Established);
    }
    let mut import = old.import_into(&new);
    import.copy(NOW);
    assert_eq!(import.finish(NOW), Imported { taken: 300, dropped: 0 });
    assert_eq!(content(&new), content(&old.memory));
    assert_eq!(counts(&new), [(75, 0); 4]);
}

#[test]
fn a_smaller_table_takes_first_what_is_in_use_and_the_rest_is_told() {
    let (old, new) = (Old::new(64), memory(8));
    for client in 0..60 {
        old.open(client, 1, State::TimeWait);
        old.open(1000 + client, 1, State::Established);
    }
    for client in 0..50 {
        old.open(2000 + client, 3, State::FinWait);
    }
    let mut import = old.import_into(&new);
    import.copy(NOW);
    let Imported { taken, dropped } = import.finish(NOW);
    let content = content(&new);
    assert_eq!((taken, taken + dropped), (content.len(), 170));
    assert!(dropped >= 170 - 128, "{dropped} of 170 did not fit into 128 places");
    assert_eq!(content.values().filter(|(_, state)| *state == State::Established).count(), 60);
    assert_eq!(counts(&new), counts_of(&content));
}

#[test]
fn half_a_connection_does_not_fit() {
    // One bucket of 16 places: seven NAT connections leave two free, an eighth takes them, a ninth finds none.
    let (old, new) = (Old::new(8), memory(1));
    for client in 0..8 {
        old.open(client, 0, State::Established);
    }
    old.open(100, 1, State::FinWait);
    old.open(101, 0, State::FinWait);
    let mut import = old.import_into(&new);
    import.copy(NOW);
    assert_eq!(import.finish(NOW), Imported { taken: 8, dropped: 2 });
    assert_eq!(content(&new).len(), 8);

    // With one place left the other direction is given back.
    let (old, new) = (Old::new(8), memory(1));
    for client in 0..15 {
        old.open(client, 1, State::Established);
    }
    old.open(100, 0, State::FinWait);
    let mut import = old.import_into(&new);
    import.copy(NOW);
    assert_eq!(import.finish(NOW), Imported { taken: 15, dropped: 1 });
    assert_eq!(content(&new).len(), 15);
}

#[test]
fn what_is_over_or_half_is_left_behind() {
    let (old, new) = (Old::new(8), memory(16));
    for client in 0..3 {
        old.open(client, 0, State::Established);
    }
    // Half a connection of either direction.
    let peer = old.memory.find(&reverse_key(0, 0)).unwrap();
    old.memory.discard(peer);
    let forward = old.memory.find(&forward_key(1)).unwrap();
    old.memory.discard(forward);
    let mut import = old.import_into(&new);
    import.copy(1 + TIMEOUT);
    assert_eq!(import.finish(1 + TIMEOUT), Imported { taken: 1, dropped: 0 });
    assert_eq!(content(&new).into_keys().collect::<Vec<_>>(), [2]);

    let new = memory(16);
    let mut import = old.import_into(&new);
    import.copy(2 + TIMEOUT);
    assert_eq!(import.finish(2 + TIMEOUT), Imported::default());
    assert_eq!((content(&new).len(), counts(&new)), (0, vec![(0, 0); 4]));
}

#[test]
fn what_the_old_program_did_meanwhile_is_made_good() {
    let (old, new) = (Old::new(32), memory(64));
    for client in 0..6 {
        old.open(client, u32::from(client) % 2, State::Established);
    }
    let mut import = old.import_into(&new);
    import.copy(NOW);
    old.change(0, State::FinWait);
    old.change(1, State::TimeWait);
    old.end(2);
    // Ended, and begun anew with another server.
    old.end(3);
    old.open(3, 2, State::SynRecv);
    old.open(9, 3, State::SynRecv);
    assert_eq!(import.finish(NOW), Imported { taken: 6, dropped: 0 });
    assert_eq!(content(&new), content(&old.memory));
    assert_eq!(counts(&new), [(1, 1), (1, 1), (1, 0), (1, 0)]);
}

#[test]
fn what_the_new_program_did_stays() {
    let (old, new) = (Old::new(32), memory(64));
    for client in 0..3 {
        old.open(client, 0, State::Established);
    }
    let mut import = old.import_into(&new);
    import.copy(NOW);
    let at = |client: u16| new.find(&forward_key(client)).unwrap();
    new.move_on(at(0), word(&new, at(0)), State::Close as u8);
    old.change(0, State::FinWait);
    new.move_on(at(1), word(&new, at(1)), State::FinWait as u8);
    old.end(1);
    // One that both have begun, with different servers.
    old.open(9, 1, State::SynRecv);
    new.enter(place(&forward_key(9), Direction::Forward, 3, State::Established), None).unwrap();
    assert_eq!(import.finish(NOW), Imported { taken: 3, dropped: 0 });
    let wanted = [
        (0, (0, State::Close)),
        (1, (0, State::FinWait)),
        (2, (0, State::Established)),
        (9, (3, State::Established)),
    ];
    assert_eq!(content(&new), wanted.into());
    assert_eq!(counts(&new), [(1, 2), (0, 0), (0, 0), (1, 0)]);
}

#[test]
fn an_answer_that_would_reach_two_clients_keeps_the_first() {
    let (old, new) = (Old::new(8), memory(8));
    old.open(1, 0, State::Established);
    // Another virtual server's connection that the new program has begun, whose answers look the same.
    let mut other = forward_key(1);
    other.dport = Port::from_number(81);
    let reverse = place(&reverse_key(1, 0), Direction::Reverse, 0, State::Established);
    new.enter(place(&other, Direction::Forward, 0, State::Established), Some(reverse)).unwrap();
    let mut import = old.import_into(&new);
    import.copy(NOW);
    assert_eq!(import.finish(NOW), Imported::default());
    assert_eq!(new.find(&forward_key(1)), None);
    assert_eq!(counts(&new)[0], (1, 0));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Open(u16, u32),
    Change(u16, State),
    End(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0u16..200;
    let states =
        prop::sample::select(vec![State::SynRecv, State::Established, State::FinWait, State::TimeWait]);
    let step = prop_oneof![
        3 => (client.clone(), 0..SERVERS).prop_map(|(client, server)| Step::Open(client, server)),
        1 => (client.clone(), states).prop_map(|(client, state)| Step::Change(client, state)),
        1 => client.prop_map(Step::End),
    ];
    prop::collection::vec(step, 0..200)
}

fn play(old: &Old, steps: &[Step]) {
    for &step in steps {
        let is_there = |client: u16| old.memory.find(&forward_key(client)).is_some();
        match step {
            Step::Open(client, server) if !is_there(client) => old.open(client, server, State::SynRecv),
            Step::Change(client, state) if is_there(client) => old.change(client, state),
            Step::End(client) if is_there(client) => old.end(client),
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn both_tables_hold_the_same_in_the_end(before in steps(), meanwhile in steps(), buckets in 40u32..120) {
        let (old, new) = (Old::new(64), memory(buckets));
        play(&old, &before);
        let mut import = old.import_into(&new);
        import.copy(NOW);
        play(&old, &meanwhile);
        let imported = import.finish(NOW);
        let content = content(&new);
        prop_assert_eq!(&content, &super::tests::content(&old.memory));
        prop_assert_eq!(imported, Imported { taken: content.len(), dropped: 0 });
        prop_assert_eq!(counts(&new), counts_of(&content));
    }
}
