//! Picks observed on Linux 6.12 (Debian's 6.12.117, amd64): services made by ipvsadm 1.31, one UDP
//! datagram from each client to each, and the servers read from /proc/net/ip_vs_conn.
//!
//! A service's servers are 172.17.0.1:80, 172.17.0.2:80 and so on (IPv6: fd01::1 and so on), masqueraded,
//! added in this order. A pick is the server's last byte; 0 means that the kernel found none.

use super::*;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn fold(address: impl Into<IpAddr>) -> u32 {
    addr_fold(Addr::from_ip(address.into()))
}

/// Client `i` (from 1) and its port.
fn client_v4(i: u32) -> (u32, u16) {
    (fold(Ipv4Addr::new(10, (i * 7) as u8, (i * 13) as u8, (i * 29) as u8)), 20_000 + i as u16)
}

fn client_v6(i: u32) -> (u32, u16) {
    let i16 = i as u16;
    let address = Ipv6Addr::new(0x2001, 0xdb8, i16, i16 * 77, 0, 0, 0, i16 * 5);
    (fold(address), 20_000 + i16)
}

/// From the order of configuration to that of the kernel's list, or back.
fn reversed(configured: &[u32]) -> Vec<u32> {
    let count = configured.len();
    (0..count).map(|position| configured[kernel_position(position, count)]).collect()
}

/// The digit that stands for a position in the kernel's list.
fn digit(position: usize, count: usize) -> char {
    char::from_digit(kernel_position(position, count) as u32 + 1, 10).unwrap()
}

fn slot_digit(slot: u16, count: usize) -> char {
    if slot == NONE { '0' } else { digit(usize::from(slot), count) }
}

#[test]
fn rr() {
    for (configured, observed) in [(&[1, 1, 1][..], "3213213"), (&[1, 0, 5, 1], "4314314")] {
        let mut cycle = Vec::new();
        rr_cycle(&reversed(configured), |position| cycle.push(digit(position, configured.len())));
        let picks: String = cycle.iter().cycle().take(observed.len()).collect();
        assert_eq!(picks, observed, "{configured:?}");
    }
}

#[test]
fn wrr() {
    for (configured, observed) in [
        (&[3, 2, 1][..], "32112132112132"),
        (&[4, 2, 6], "32133132133132"),
        (&[1, 5, 0, 3], "42122424242122424242"),
        (&[10, 20, 15], "32123232132123232132"),
        (&[6, 3, 9], "32133132133132"),
    ] {
        let weights = reversed(configured);
        let mut cycle = Vec::new();
        wrr_cycle(&weights, |position| cycle.push(digit(position, configured.len())));
        let first = wrr_first_pick(&weights) as usize;
        let picks: String = cycle.iter().cycle().skip(first).take(observed.len()).collect();
        assert_eq!(picks, observed, "{configured:?}");
    }
}

/// UDP connections count as inactive.
fn least(configured: &[u32], picks: usize, better: impl Fn(u64, u32, u64, u32) -> bool) -> String {
    let weights = reversed(configured);
    let mut connections = vec![0; weights.len()];
    let mut picked = String::new();
    for _ in 0..picks {
        let mut best = 0;
        for at in 1..weights.len() {
            let (load, best_load) = (overhead(0, connections[at]), overhead(0, connections[best]));
            if better(load, weights[at], best_load, weights[best]) {
                best = at;
            }
        }
        connections[best] += 1;
        picked.push(digit(best, weights.len()));
    }
    picked
}

#[test]
fn lc() {
    assert_eq!(least(&[3, 2, 1], 8, |load, _, best, _| lc_better(load, best)), "32132132");
}

#[test]
fn wlc() {
    assert_eq!(least(&[3, 2, 1], 18, wlc_better), "321121321121321121");
}

fn sh(configured: &[u32], fallback: bool, clients: impl Iterator<Item = (u32, u16)>) -> String {
    let mut table = [0; SH_SLOTS];
    sh_table(&reversed(configured), |_| true, fallback, &mut table);
    clients.map(|(fold, port)| slot_digit(table[sh_hash(fold, port)], configured.len())).collect()
}

#[test]
fn source_hash() {
    let clients = || (1..=30).map(client_v4);
    let without_port = || clients().map(|(fold, _)| (fold, 0));
    assert_eq!(sh(&[1, 1, 1], false, without_port()), "332211331332213223311332133113");
    assert_eq!(sh(&[2, 0, 5, 1], false, without_port()), "443333333001113330011443303114");
    // sh-fallback and sh-port
    assert_eq!(sh(&[2, 0, 5, 1], true, clients()), "331111333334113331331341133311");
    let v6 = (1..=30).map(|i| (client_v6(i).0, 0));
    assert_eq!(sh(&[1, 2, 3], false, v6), "323232331233213123133323222323");
}

fn mh(
    servers: impl DoubleEndedIterator<Item = (u32, u32)>,
    unavailable: Option<u32>,
    fallback: bool,
    clients: impl Iterator<Item = (u32, u16)>,
) -> String {
    let mut servers: Vec<_> = servers.rev().map(|(fold, weight)| MhServer::new(fold, 80, weight)).collect();
    let count = servers.len();
    let mut table = vec![0; MH_DEFAULT_SIZE];
    mh_table(&mut servers, &mut table).unwrap();
    mh_mask(&mut table, |position| {
        unavailable.and_then(|d| char::from_digit(d, 10)) != Some(digit(position, count))
    });
    let size = MH_DEFAULT_SIZE as u32;
    clients
        .map(|(fold, port)| {
            let first = mh_slot(mh_hash(fold, port, 0), size);
            let mut slot = table[first as usize];
            if fallback && slot == NONE {
                let mut probes =
                    (0..size).map(|attempt| table[mh_probe(fold, port, first, attempt, size) as usize]);
                slot = probes.find(|&slot| slot != NONE).unwrap_or(NONE);
            }
            slot_digit(slot, count)
        })
        .collect()
}

#[test]
fn maglev() {
    let servers = |weights: &'static [u32]| {
        weights.iter().enumerate().map(|(i, &weight)| (fold(Ipv4Addr::new(172, 17, 0, i as u8 + 1)), weight))
    };
    let clients = || (1..=30).map(client_v4);
    let without_port = || clients().map(|(fold, _)| (fold, 0));
    assert_eq!(mh(servers(&[1, 1, 1]), None, false, without_port()), "321133121231331221313233131222");
    // mh-port
    assert_eq!(mh(servers(&[4, 100, 250, 0]), None, false, clients()), "333233233323333323322333322322");
    // The second server was set to weight 0 after it was added with 3; with and without mh-fallback.
    assert_eq!(mh(servers(&[1, 3, 2]), Some(2), true, without_port()), "333313133333331331333133333333");
    assert_eq!(mh(servers(&[1, 3, 2]), Some(2), false, without_port()), "300303103030330001333033330000");
    let v6 = (1..=3).map(|i| (fold(Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, i)), u32::from(i)));
    let v6_clients = (1..=30).map(|i| (client_v6(i).0, 0));
    assert_eq!(mh(v6, None, false, v6_clients), "321322333213333233322312132123");
}
