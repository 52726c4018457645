//! Which check of a server is which one after a reload: pure. Their positions say nothing, since the file may have lost or gained
//! one before them.

use std::borrow::Borrow;

use crate::config::check::HealthCheck;

/// For each new check of a server the position of the old one whose results say the same of it; each old one is found once
/// at most.
///
/// Of several that ask the same (with other intervals, say) the one that has not changed at all is preferred, then the
/// one that stands where it stood.
pub fn counterparts<A: Borrow<HealthCheck>, B: Borrow<HealthCheck>>(
    old: &[A],
    new: &[B],
) -> Vec<Option<usize>> {
    let mut found = vec![None; new.len()];
    let mut is_taken = vec![false; old.len()];
    for is_same in [|one: &HealthCheck, other: &HealthCheck| one == other, asks_the_same] {
        for is_in_place in [true, false] {
            for (position, check) in new.iter().enumerate() {
                let mut places = if is_in_place { position..position + 1 } else { 0..old.len() };
                if found[position].is_none() {
                    let fits = |at: &usize| {
                        old.get(*at)
                            .is_some_and(|old| !is_taken[*at] && is_same(old.borrow(), check.borrow()))
                    };
                    found[position] = places.find(fits);
                    found[position].into_iter().for_each(|at| is_taken[at] = true);
                }
            }
        }
    }
    found
}

/// Whether a result of one is a result of the other: the same question to the same place by the same way.
fn asks_the_same(one: &HealthCheck, other: &HealthCheck) -> bool {
    let way = |check: &HealthCheck| (check.connect, check.bind, check.fwmark, check.via);
    one.probe == other.probe && way(one) == way(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::check::Probe, health::driver::tests::wanted};

    fn check(probe: Probe, fall: u32) -> HealthCheck {
        HealthCheck { probe, fall, ..wanted().check }
    }

    #[test]
    fn checks_are_known_by_what_they_ask() {
        let tcp = |fall| check(Probe::Tcp, fall);
        let ping = || check(Probe::Ping, 1);
        type Case<'a> = (&'a str, &'a [HealthCheck], &'a [HealthCheck], &'a [Option<usize>]);
        let cases: &[Case<'_>] = &[
            ("as it was", &[tcp(1), ping()], &[tcp(1), ping()], &[Some(0), Some(1)]),
            ("the first one goes", &[tcp(1), ping()], &[ping()], &[Some(1)]),
            ("one comes first", &[tcp(1)], &[ping(), tcp(1)], &[None, Some(0)]),
            ("they change places", &[tcp(1), ping()], &[ping(), tcp(1)], &[Some(1), Some(0)]),
            ("another type", &[tcp(1)], &[ping()], &[None]),
            ("other options", &[tcp(1)], &[tcp(2)], &[Some(0)]),
            ("twice the same", &[tcp(1), tcp(1)], &[tcp(1), tcp(1)], &[Some(0), Some(1)]),
            ("one of two that ask the same goes", &[tcp(1), tcp(2)], &[tcp(2)], &[Some(1)]),
            ("one more that asks the same", &[tcp(1)], &[tcp(2), tcp(1)], &[None, Some(0)]),
            ("none before", &[], &[tcp(1)], &[None]),
            ("none after", &[tcp(1)], &[], &[]),
        ];
        for (name, old, new, expected) in cases {
            assert_eq!(counterparts(old, new), *expected, "{name}");
        }
        let elsewhere = HealthCheck { connect: ([127, 0, 0, 1], 10).into(), ..tcp(1) };
        assert_eq!(counterparts(&[tcp(1)], &[elsewhere]), [None], "another port");
    }
}
