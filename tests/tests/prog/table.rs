//! The table: all cases, and what is to be said of them as a whole.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use lb_common::Verdict;

use crate::{
    case::Case, changes, checks, forwarding, fragments, full_table, icmp, moving, odd, options, schedulers,
    services, size_and_life, standby, tcp_states, thresholds, vlan, way_back,
};

/// Verdicts that no packet of BPF_PROG_TEST_RUN gets, with the reason.
const WITHOUT_CASE: &[(Verdict, &str)] = &[];

/// Every case.
pub fn all() -> Vec<Case> {
    [
        forwarding::cases(),
        services::cases(),
        options::cases(),
        vlan::cases(),
        size_and_life::cases(),
        fragments::cases(),
        icmp::cases(),
        odd::cases(),
        tcp_states::cases(),
        changes::cases(),
        schedulers::cases(),
        full_table::cases(),
        way_back::cases(),
        moving::cases(),
        thresholds::cases(),
        checks::cases(),
        standby::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Fails unless every verdict that there is, is expected by a case or excused.
pub fn every_verdict_has_a_case() -> Result<()> {
    let covered: BTreeSet<Verdict> =
        all().iter().flat_map(|case| case.verdicts().collect::<Vec<_>>()).collect();
    let excused: BTreeSet<Verdict> = WITHOUT_CASE.iter().map(|(verdict, _)| *verdict).collect();
    let missing: Vec<&str> = Verdict::ALL
        .iter()
        .filter(|verdict| !covered.contains(verdict) && !excused.contains(verdict))
        .map(|verdict| verdict.name())
        .collect();
    ensure!(missing.is_empty(), "no case expects {missing:?}");
    let needless: Vec<&str> = covered.intersection(&excused).map(|verdict| verdict.name()).collect();
    ensure!(needless.is_empty(), "a case expects {needless:?}, so they need no excuse");
    Ok(())
}

/// Fails unless every case has a name of its own.
pub fn names_are_unique() -> Result<()> {
    let mut seen = BTreeSet::new();
    for case in all() {
        ensure!(seen.insert(case.name.clone()), "two cases are called \"{}\"", case.name);
    }
    Ok(())
}
