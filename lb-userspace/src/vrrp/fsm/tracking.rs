//! What tracked things make of an instance: its effective priority, and its faults.

use std::{collections::BTreeMap, net::IpAddr};

use super::Settings;
use crate::{
    config::vrrp::{Track, TrackKey, VrrpInstance},
    vrrp::TrackValue,
};

/// The priority of the addresses' owner, which tracking never changes.
pub(super) const OWNER: u8 = 255;
/// The most that a file's number adds (keepalived); at the opposite of one more it is a fault.
const MOST: i64 = 253;

/// What has been heard of a tracked thing.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// How it is.
    pub(super) value: TrackValue,
    /// In words.
    pub(super) detail: String,
}

/// What everything that an instance tracks comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// The priority that it has now.
    pub(super) effective: u8,
    /// What makes it differ from the configured one.
    pub(super) weights: Vec<(TrackKey, i32)>,
    /// Why it cannot take part.
    pub(super) faults: Vec<String>,
    /// What could be a fault, and is not known yet: holds an instance in INIT, as scripts do in keepalived. Things that only
    /// move the priority count as nothing until they are known.
    pub(super) unknown: Vec<String>,
}

/// What each instance tracks: its own interface with weight 0 unless `dont_track_primary`, its own list, and its group's.
///
/// What both list has the group's weight, but weight 0 stays (keepalived).
pub(super) fn tracks(settings: &Settings) -> Vec<Vec<Track>> {
    let one = |instance: &VrrpInstance| {
        let primary = Track { key: TrackKey::Interface(instance.interface.clone()), weight: 0 };
        let mut tracks: Vec<Track> = (!instance.dont_track_primary).then_some(primary).into_iter().collect();
        tracks.extend(
            instance.tracks.iter().filter(|track| !tracks.contains(track)).cloned().collect::<Vec<_>>(),
        );
        let mut groups = settings.groups.iter();
        let group = groups.find(|group| group.instances.contains(&instance.name));
        for track in group.map_or(&[][..], |group| &group.tracks) {
            match tracks.iter_mut().find(|own| own.key == track.key) {
                Some(own) if own.weight != 0 => own.weight = track.weight,
                Some(_) => {}
                None => tracks.push(track.clone()),
            }
        }
        tracks
    };
    settings.instances.iter().map(one).collect()
}

/// Draws the sum. `source`: as in [`super::Event::Source`]; the outer `None`: not told yet.
pub(super) fn assess(
    instance: &VrrpInstance,
    tracks: &[Track],
    source: Option<Option<IpAddr>>,
    known: &BTreeMap<TrackKey, Known>,
) -> Standing {
    let mut standing = Standing::default();
    match source {
        Some(Some(_)) => {}
        Some(None) => {
            standing.faults.push(format!("interface {} has no address to send from", instance.interface));
        }
        None => standing.unknown.push("the address to send from".to_owned()),
    }
    let mut sum = 0;
    for track in tracks {
        match known.get(&track.key) {
            Some(Known { value, detail }) => match effect(*value, track.weight) {
                Effect::Fault => standing.faults.push(fault(&track.key, detail)),
                Effect::Weight(0) => {}
                Effect::Weight(weight) => {
                    sum += weight;
                    // Between -253 and 253, so it fits.
                    standing.weights.push((track.key.clone(), weight as i32));
                }
            },
            None if track.weight == 0 || matches!(track.key, TrackKey::File(_)) => {
                standing.unknown.push(name(&track.key));
            }
            None => {}
        }
    }
    standing.effective = match instance.priority {
        OWNER => OWNER,
        // Between 1 and 254, so it fits.
        base => (i64::from(base) + sum).clamp(1, 254) as u8,
    };
    if instance.priority == OWNER {
        standing.weights.clear();
    }
    standing
}

enum Effect {
    Fault,
    Weight(i64),
}

fn effect(value: TrackValue, weight: i32) -> Effect {
    let added = match value {
        TrackValue::Down if weight == 0 => return Effect::Fault,
        TrackValue::Up => i64::from(weight.max(0)),
        TrackValue::Down => i64::from(weight.min(0)),
        TrackValue::Number(0) => 0,
        TrackValue::Number(_) if weight == 0 => return Effect::Fault,
        TrackValue::Number(number) => number.saturating_mul(i64::from(weight)),
    };
    if added < -MOST { Effect::Fault } else { Effect::Weight(added.min(MOST)) }
}

fn fault(key: &TrackKey, detail: &str) -> String {
    match detail {
        "" => format!("{} has failed", name(key)),
        detail => format!("{}: {detail}", name(key)),
    }
}

/// In words for people.
pub(super) fn name(key: &TrackKey) -> String {
    let (kind, name) = match key {
        TrackKey::Interface(name) => ("interface", name),
        TrackKey::Script(name) => ("script", name),
        TrackKey::Process(name) => ("process", name),
        TrackKey::File(name) => ("file", name),
        TrackKey::Port(name) => ("port", name),
        TrackKey::VirtualServer(name) => ("virtual server", name),
    };
    format!("{kind} {name}")
}
