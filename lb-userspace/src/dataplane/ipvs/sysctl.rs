//! IPVS's system controls (Documentation/networking/ipvs-sysctl.rst), of this network namespace.

use std::{collections::BTreeMap, fs, path::Path};

use crate::desired::State;

const DIRECTORY: &str = "/proc/sys/net/ipv4/vs";

/// What the virtual servers together ask for. IPVS has one setting for all of them.
pub fn wanted(desired: &State) -> BTreeMap<&'static str, u32> {
    // A flow that finds its server without state must be let in in its middle, or no director could take it over.
    let is_stateless = desired.values().any(|service| super::is_stateless(service.scheduler));
    // Without any virtual server, as with most.
    let expires = desired.is_empty() || desired.values().any(|service| service.expire_nodest);
    BTreeMap::from([
        ("expire_nodest_conn", expires.into()),
        ("expire_quiescent_template", desired.values().any(|service| service.expire_quiescent).into()),
        ("sloppy_tcp", is_stateless.into()),
    ])
}

/// Sets them; what could not be set, in words.
pub fn set(wanted: &BTreeMap<&'static str, u32>) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, value) in wanted {
        let path = Path::new(DIRECTORY).join(name);
        // Where it is right nothing is written: a service in a sandbox may not.
        let is_right = fs::read_to_string(&path).is_ok_and(|text| text.trim() == value.to_string());
        if !is_right && let Err(error) = fs::write(&path, value.to_string()) {
            problems.push(format!("net.ipv4.vs.{name} = {value} cannot be set: {error}"));
        }
    }
    problems
}
