//! A table over files, opened and ended by the protocol.

use lb_common::{
    Addr, HashKeys, Port,
    conn::Meta,
    ip_proto,
    server::{Forwarding, NextHop},
};

use super::*;

const BUCKETS: u32 = 8;
const SERVERS: u32 = 4;
const VIP: Addr = Addr::v4(1);

/// A map of `len` elements, backed by a file instead of the kernel's memory.
pub fn mapped<T: aya::Pod>(len: u32) -> Mapped<T> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(u64::from(len) * size_of::<T>() as u64).unwrap();
    Mapped::new(file, len).unwrap()
}

fn table() -> ConnectionTable {
    let mut keys = [0; 10];
    keys.iter_mut().zip(1u32..).for_each(|(key, number)| *key = number.wrapping_mul(0x9e37_79b9));
    let settings = Settings {
        hash_keys: HashKeys(keys),
        buckets: BUCKETS,
        clock_shift: 0,
        netns_cookie: [0; 2],
        fragment_timeout: 0,
        reserved: 0,
        timeouts: [1000; STATES],
    };
    ConnectionTable::new(Arc::new(Memory::new(
        mapped(BUCKETS),
        mapped(BUCKETS * WAYS),
        Arc::new(mapped(SERVERS)),
        settings,
    )))
}

fn server(number: u32, flags: u8) -> Server {
    Server {
        addr: Addr::v4(100 + number),
        vip: VIP,
        port: Port::from_number(8080),
        vport: Port::from_number(80),
        forwarding: Forwarding::Nat as u8,
        flags,
        proto: ip_proto::TCP,
        reserved: 0,
        nat_delta: 0,
        role: 0,
        service: 0,
        tunnel_source: Addr::default(),
        next_hop: NextHop::default(),
        position: 0,
        last_weight: 0,
        reserved3: [0; 6],
    }
}

impl ConnectionTable {
    /// Enters a place as the program does; gives its number.
    fn enter(&self, key: &FlowKey, direction: Direction, server: u32, way: [u32; 3]) -> u32 {
        let memory = &self.memory;
        let hash = key.hash(&memory.settings.hash_keys);
        let first = hash.primary(BUCKETS) * WAYS;
        let index = (first..first + WAYS).find(|&index| memory.tag(index).load(SeqCst) == TAG_FREE).unwrap();
        let place = Connection {
            src: key.src,
            dst: key.dst,
            sport: key.sport,
            dport: key.dport,
            meta: Meta::new(ip_proto::TCP, direction, false, 1),
            word: Word(0).with_state(State::Established as u8).0,
            last_seen: 0,
            server,
            way,
        };
        // SAFETY: 64 bytes without padding.
        let words: [u32; 16] = unsafe { std::mem::transmute(place) };
        for (offset, word) in (0..).step_by(4).zip(words) {
            memory.places.word(index, offset).store(word, SeqCst);
        }
        memory.tag(index).store(hash.tag(), SeqCst);
        index
    }

    /// Opens a NAT connection.
    fn open(&self, client: u16, server: u32) {
        let (client_addr, client) = (Addr::v4(7 + server), Port::from_number(client));
        let (vport, port) = (Port::from_number(80), Port::from_number(8080));
        let proto = ip_proto::TCP.into();
        let to = FlowKey { src: client_addr, dst: VIP, sport: client, dport: vport, proto };
        let src = Addr::v4(100 + server);
        let from = FlowKey { src, dst: client_addr, sport: port, dport: client, proto };
        let peer = self.enter(&from, Direction::Reverse, server, [0; 3]);
        self.enter(&to, Direction::Forward, server, [peer, 0, 0]);
        self.memory.loads.word(server, offset_of!(Load, active)).fetch_add(1, SeqCst);
    }

    fn used(&self) -> usize {
        (0..BUCKETS * WAYS).filter(|&index| self.memory.tag(index).load(SeqCst) != TAG_FREE).count()
    }

    fn active(&self, server: u32) -> u32 {
        self.memory.loads.copy(server).active
    }
}

#[test]
fn connections_of_a_server_that_is_gone_end_and_are_counted_out() {
    let mut table = table();
    let flags = [0, server_flag::GONE, server_flag::GONE | server_flag::KEEP, server_flag::NO_NEW];
    for (number, _) in (0..).zip(flags) {
        for client in 0..3 {
            table.open(40_000 + client, number);
        }
    }
    assert_eq!(table.used(), 24);
    let ended = table.sweep(0..BUCKETS, 10, 1000, |number| Some(server(number, flags[number as usize])));
    assert_eq!((ended, table.used()), (3, 18));
    assert_eq!([0, 1, 2, 3].map(|number| table.active(number)), [3, 0, 3, 3]);
}

#[test]
fn connections_of_an_entry_that_is_not_in_use_end() {
    let mut table = table();
    table.open(40_000, 0);
    table.open(40_000, 1);
    let ended = table.sweep(0..BUCKETS, 10, 1000, |number| (number == 0).then(|| server(0, 0)));
    assert_eq!((ended, table.used(), table.active(1)), (1, 2, 0));
}

#[test]
fn each_server_is_looked_up_once() {
    let mut table = table();
    for client in 0..5 {
        table.open(40_000 + client, 2);
    }
    let looks = std::cell::Cell::new(0);
    let ended = table.sweep(0..BUCKETS, 10, 1000, |number| {
        looks.set(looks.get() + 1);
        Some(server(number, 0))
    });
    assert_eq!((ended, looks.get()), (0, 1));
}
