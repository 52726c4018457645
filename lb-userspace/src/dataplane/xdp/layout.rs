//! From a virtual server to the slots from which the program chooses: pure.

use lb_common::{
    Addr,
    schedule::{
        MH_DEFAULT_SIZE, MhServer, NONE, SH_SLOTS, addr_fold, kernel_position, mh_mask, mh_table, rr_cycle,
        rr_cycle_len, scale_weights, sh_table, wrr_cycle, wrr_cycle_len, wrr_first_pick,
    },
    service::{Method, service_flag},
};

use crate::{
    config::Scheduler,
    desired::{Service, ServiceId},
};

/// The longest cycle that wrr gets; weights whose cycle would be longer are scaled down, which keeps their ratios to
/// about one part in this many.
const MAX_CYCLE: u32 = 16_384;

/// How a virtual server chooses. Slots hold positions in [`Service::servers`], `None` for "no server".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// How the program chooses among `slots`.
    pub method: Method,
    /// [`service_flag`]s.
    pub flags: u8,
    /// What it chooses from.
    pub slots: Vec<Option<usize>>,
    /// What flows without a place in the connection table are spread over.
    pub stateless: Vec<Option<usize>>,
    /// Where the cycle of a new virtual server begins.
    pub first: u32,
}

/// How many slots a virtual server takes, without laying it out.
pub fn slots_needed(service: &Service) -> u64 {
    let weights: Vec<u32> =
        service.servers.iter().filter(|server| !server.is_leaving).map(|server| server.weight).collect();
    let mut scaled = weights.clone();
    scale_weights(&mut scaled, MAX_CYCLE);
    let (even, weighted) = (rr_cycle_len(&weights), wrr_cycle_len(&scaled));
    match service.scheduler {
        Scheduler::Rr => 2 * even,
        Scheduler::Wrr => 2 * weighted,
        Scheduler::Lc => weights.len() as u64 + even,
        Scheduler::Wlc => weights.len() as u64 + weighted,
        Scheduler::Sh => SH_SLOTS as u64 + weighted,
        Scheduler::Mh => MH_DEFAULT_SIZE as u64 + weighted,
        // None that this data plane has: it refuses them before.
        _ => 0,
    }
}

/// Lays out a virtual server. `last_weights` are the last weights of its servers that were not 0: mh keeps the slots of a
/// server that is set to 0, so that no other server's clients move.
pub fn layout(id: &ServiceId, service: &Service, last_weights: &[u32]) -> Layout {
    // Who leaves has no part in it any more.
    let present: Vec<usize> =
        (0..service.servers.len()).filter(|&server| !service.servers[server].is_leaving).collect();
    let count = present.len();
    // The schedulers go by the kernel's order, in which the server added last comes first.
    let configured = |position: usize| present[kernel_position(position, count)];
    let in_kernel_order: Vec<_> = (0..count).map(|position| &service.servers[configured(position)]).collect();
    let weights: Vec<u32> = in_kernel_order.iter().map(|server| server.weight).collect();
    let mut scaled = weights.clone();
    // With more servers than slots of a cycle only some would ever be chosen; the configuration allows fewer.
    scale_weights(&mut scaled, MAX_CYCLE);
    let (mut weighted, mut even) = (Vec::new(), Vec::new());
    wrr_cycle(&scaled, |position| weighted.push(Some(configured(position))));
    rr_cycle(&weights, |position| even.push(Some(configured(position))));
    let table = |table: &[u16]| {
        table.iter().map(|&slot| if slot == NONE { None } else { Some(configured(slot.into())) }).collect()
    };
    let mut flags = 0;
    if service.flags.port {
        flags |= service_flag::HASH_PORT;
    }
    if service.flags.fallback {
        flags |= service_flag::FALLBACK;
    }
    let thresholds = in_kernel_order.iter().any(|server| server.upper_threshold > 0);
    if thresholds {
        flags |= service_flag::THRESHOLDS;
    }
    let available = |position: usize| weights[position] > 0;
    match service.scheduler {
        Scheduler::Rr => {
            Layout { method: Method::Cycle, flags, stateless: even.clone(), slots: even, first: 0 }
        }
        Scheduler::Wrr => {
            let first = u32::try_from(wrr_first_pick(&scaled)).unwrap_or(0);
            Layout { method: Method::Cycle, flags, stateless: weighted.clone(), slots: weighted, first }
        }
        Scheduler::Lc | Scheduler::Wlc => {
            let slots = (0..count).map(|position| Some(configured(position))).collect();
            let (method, stateless) = match service.scheduler {
                Scheduler::Lc => (Method::LeastConnection, even),
                _ => (Method::WeightedLeastConnection, weighted),
            };
            Layout { method, flags, slots, stateless, first: 0 }
        }
        Scheduler::Sh => {
            let mut slots = [NONE; SH_SLOTS];
            // With thresholds the program searches itself: which servers take connections changes with each of them.
            sh_table(&weights, available, service.flags.fallback && !thresholds, &mut slots);
            Layout { method: Method::SourceHash, flags, slots: table(&slots), stateless: weighted, first: 0 }
        }
        Scheduler::Mh => {
            let mut slots = vec![NONE; MH_DEFAULT_SIZE];
            let mut servers: Vec<MhServer> = in_kernel_order
                .iter()
                .enumerate()
                .map(|(position, server)| {
                    // ipvsadm gives servers without NAT the port of the virtual server, and the kernel hashes it.
                    let port = if server.port == 0 { id.port } else { server.port };
                    MhServer::new(
                        addr_fold(Addr::from_ip(server.address)),
                        port,
                        last_weights[configured(position)],
                    )
                })
                .collect();
            if mh_table(&mut servers, &mut slots).is_err() {
                // No server has a weight: the table stays empty.
                slots.fill(NONE);
            }
            mh_mask(&mut slots, available);
            Layout { method: Method::Maglev, flags, slots: table(&slots), stateless: weighted, first: 0 }
        }
        // None that this data plane has: it refuses them before. Nobody would get a connection.
        _ => Layout { method: Method::Cycle, flags, slots: Vec::new(), stateless: Vec::new(), first: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Forward, Protocol, SchedulerFlags, Tunnel},
        desired::Server,
    };

    fn service(scheduler: Scheduler, weights: &[u32]) -> (ServiceId, Service) {
        let servers = weights
            .iter()
            .zip(1u8..)
            .map(|(&weight, host)| Server {
                address: [10, 0, 0, host].into(),
                port: 80,
                forward: Forward::Nat,
                weight,
                tunnel: Tunnel::IPIP,
                is_leaving: false,
                upper_threshold: 0,
                lower_threshold: 0,
            })
            .collect();
        let id = ServiceId { address: [192, 0, 2, 1].into(), port: 80, protocol: Protocol::Tcp };
        (
            id,
            Service {
                scheduler,
                flags: SchedulerFlags::default(),
                persistence: None,
                one_packet: false,
                expire_nodest: true,
                expire_quiescent: false,
                role: 0,
                servers,
            },
        )
    }

    fn lay(scheduler: Scheduler, weights: &[u32]) -> Layout {
        let (id, service) = service(scheduler, weights);
        layout(&id, &service, weights)
    }

    fn counts(slots: &[Option<usize>], servers: usize) -> Vec<usize> {
        (0..servers).map(|server| slots.iter().filter(|&&slot| slot == Some(server)).count()).collect()
    }

    #[test]
    fn rr_begins_with_the_server_added_last_and_leaves_out_weight_0() {
        assert_eq!(lay(Scheduler::Rr, &[1, 5, 1]).slots, [Some(2), Some(1), Some(0)]);
        assert_eq!(lay(Scheduler::Rr, &[1, 0, 1]).slots, [Some(2), Some(0)]);
    }

    #[test]
    fn wrr_has_every_server_as_often_as_its_weight_says() {
        assert_eq!(counts(&lay(Scheduler::Wrr, &[6, 4, 2]).slots, 3), [3, 2, 1]);
    }

    #[test]
    fn weights_without_a_common_divisor_do_not_make_endless_cycles() {
        let slots = lay(Scheduler::Wrr, &[65_535, 65_534, 1]).slots;
        assert!(slots.len() <= MAX_CYCLE as usize, "{} slots", slots.len());
        let counts = counts(&slots, 3);
        assert!(counts[2] >= 1 && counts[0].abs_diff(counts[1]) <= 1, "{counts:?}");
    }

    #[test]
    fn hash_tables_hold_every_server_with_a_weight_and_no_other() {
        for scheduler in [Scheduler::Sh, Scheduler::Mh] {
            let layout = lay(scheduler, &[1, 0, 2]);
            let counts = counts(&layout.slots, 3);
            assert!(counts[0] > 0 && counts[1] == 0 && counts[2] > counts[0], "{scheduler}: {counts:?}");
        }
    }

    #[test]
    fn a_server_set_to_0_keeps_its_maglev_slots_to_itself() {
        let (id, before) = service(Scheduler::Mh, &[1, 3, 2]);
        let (_, after) = service(Scheduler::Mh, &[1, 0, 2]);
        let (before, after) = (layout(&id, &before, &[1, 3, 2]), layout(&id, &after, &[1, 3, 2]));
        assert!(before.slots.contains(&Some(1)) && !after.slots.contains(&Some(1)));
        for (old, new) in before.slots.iter().zip(&after.slots) {
            assert_eq!(*new, old.filter(|&server| server != 1));
        }
    }

    #[test]
    fn a_server_that_leaves_is_as_if_it_were_not_there() {
        for &scheduler in Scheduler::ALL.iter().filter(|one| one.is_in_xdp()) {
            let (id, mut with) = service(scheduler, &[1, 3, 2]);
            with.servers[1].is_leaving = true;
            let mut without = with.clone();
            without.servers.remove(1);
            let (with, without) = (layout(&id, &with, &[1, 3, 2]), layout(&id, &without, &[1, 2]));
            let moved = |slots: &[Option<usize>]| -> Vec<_> {
                slots.iter().map(|slot| slot.map(|server| if server == 0 { 0 } else { server + 1 })).collect()
            };
            assert_eq!(with.slots, moved(&without.slots), "{scheduler}");
            assert_eq!((with.stateless, with.first), (moved(&without.stateless), without.first));
        }
    }

    #[test]
    fn with_thresholds_the_program_searches_for_another_slot_itself() {
        let (id, mut service) = service(Scheduler::Sh, &[1, 0, 2]);
        service.flags.fallback = true;
        let without = layout(&id, &service, &[1, 0, 2]);
        assert!(without.slots.iter().all(Option::is_some) && without.flags & service_flag::THRESHOLDS == 0);
        service.servers[2].upper_threshold = 9;
        let with = layout(&id, &service, &[1, 0, 2]);
        assert_eq!(with.flags, without.flags | service_flag::THRESHOLDS);
        for (old, new) in without.slots.iter().zip(&with.slots) {
            assert!(new.is_none() || new == old);
        }
        assert!(with.slots.contains(&None));
    }

    #[test]
    fn without_servers_there_are_no_choices() {
        for &scheduler in Scheduler::ALL.iter().filter(|one| one.is_in_xdp()) {
            for weights in [&[][..], &[0, 0]] {
                let layout = lay(scheduler, weights);
                assert!(layout.stateless.is_empty(), "{scheduler}");
                if !matches!(scheduler, Scheduler::Lc | Scheduler::Wlc) {
                    assert!(layout.slots.iter().all(Option::is_none), "{scheduler} {weights:?}");
                }
            }
        }
    }
}
