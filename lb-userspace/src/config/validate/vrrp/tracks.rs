//! `track_interfaces`, `track_scripts` and the like of an instance or a group.

use std::collections::{BTreeMap, btree_map::Entry};

use toml::de::DeValue;

use super::{
    super::super::{
        diagnostic::Problem,
        document::{Either, Field, Place, Read, Report, Table},
        values,
        vrrp::{Track, TrackKey},
    },
    Names,
};

/// What can be tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Interface,
    Script,
    Process,
    File,
    Port,
    VirtualServer,
}

/// What is known of the things that can be tracked.
#[derive(Default)]
pub(super) struct Known {
    kinds: BTreeMap<Kind, KnownKind>,
    /// The virtual servers that are tracked: whether there are such is found out when those have been read.
    pub(super) wanted: Vec<Field<String>>,
}

/// Things of one kind.
#[derive(Default)]
pub(super) struct KnownKind {
    pub(super) names: Names,
    /// Where whoever tracks one gives none; `None` where it is wrong.
    pub(super) weights: BTreeMap<String, Option<i32>>,
}

/// Something tracked, and where the file says so.
pub(super) struct Tracked {
    pub(super) track: Track,
    pub(super) place: Place,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Interface, Self::Script, Self::Process, Self::File, Self::Port, Self::VirtualServer];

    /// The key of those who track it.
    const fn key(self) -> &'static str {
        match self {
            Self::Interface => "track_interfaces",
            Self::Script => "track_scripts",
            Self::Process => "track_processes",
            Self::File => "track_files",
            Self::Port => "track_ports",
            Self::VirtualServer => "track_virtual_servers",
        }
    }

    /// The tables that tell of it; an interface has none.
    pub(super) const fn header(self) -> &'static str {
        match self {
            Self::Interface => "",
            Self::Script => "vrrp_script",
            Self::Process => "vrrp_track_process",
            Self::File => "vrrp_track_file",
            Self::Port => "vrrp_track_port",
            Self::VirtualServer => "virtual_server",
        }
    }

    /// A name for messages.
    pub(super) const fn example(self) -> &'static str {
        match self {
            Self::Interface => "eth1",
            Self::Script | Self::Process => "haproxy",
            Self::File => "maintenance",
            Self::Port => "https",
            Self::VirtualServer => "web",
        }
    }

    fn tracked(self, name: String) -> TrackKey {
        match self {
            Self::Interface => TrackKey::Interface(name),
            Self::Script => TrackKey::Script(name),
            Self::Process => TrackKey::Process(name),
            Self::File => TrackKey::File(name),
            Self::Port => TrackKey::Port(name),
            Self::VirtualServer => TrackKey::VirtualServer(name),
        }
    }
}

impl Known {
    pub(super) fn of(&mut self, kind: Kind) -> &mut KnownKind {
        self.kinds.entry(kind).or_default()
    }

    /// Reads all such keys of an instance or a group. `None` means that an error was reported.
    pub(super) fn read(&mut self, table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Vec<Tracked>> {
        let kinds: Vec<_> = Kind::ALL.into_iter().map(|kind| self.kind(kind, table, report)).collect();
        let kinds: Option<Vec<_>> = kinds.into_iter().collect();
        Some(kinds?.into_iter().flatten().collect())
    }

    fn kind(&mut self, kind: Kind, table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Vec<Tracked>> {
        let example = kind.example();
        let expected =
            format!("an array such as [\"{example}\"] or [{{ name = \"{example}\", weight = -10 }}]");
        let convert = |value: &DeValue<'_>| match kind {
            _ if !matches!(value, DeValue::String(_)) => {
                let expected = format!("\"{example}\" or {{ name = \"{example}\", weight = -10 }}");
                Err(values::wrong_type(value, &expected))
            }
            Kind::Interface => values::interface(value),
            _ => values::server_name(value),
        };
        let elements = match table.list_or_tables(kind.key(), report, &expected, convert) {
            Read::Absent => return Some(Vec::new()),
            Read::Wrong => return None,
            Read::Given(field) => field.value,
        };
        let mut lines: BTreeMap<String, usize> = BTreeMap::new();
        let all: Vec<_> = elements
            .into_iter()
            .map(|Field { value, place }| {
                let (name, weight) = match value {
                    Either::Value(value) => (Field { value, place }, Some(None)),
                    Either::Table(table) => entry(table, &expected, convert, report)?,
                };
                match lines.entry(name.value.clone()) {
                    Entry::Occupied(first) => {
                        let problem = Problem::new(format!("tracked at line {} already", first.get()))
                            .expected("each once");
                        report.error(&name.place, problem);
                    }
                    Entry::Vacant(free) => {
                        free.insert(report.line(&name.place));
                    }
                }
                self.track(kind, name, weight, report)
            })
            .collect();
        all.into_iter().collect()
    }

    /// Finds the thing, and the weight that counts.
    fn track(
        &mut self,
        kind: Kind,
        name: Field<String>,
        weight: Option<Option<Field<i32>>>,
        report: &mut Report<'_>,
    ) -> Option<Tracked> {
        let default = match kind {
            Kind::Interface => Some(0),
            Kind::VirtualServer => {
                self.wanted.push(name.clone());
                Some(0)
            }
            _ => {
                let known = self.of(kind);
                if !known.names.find(&name, kind.header(), report) {
                    return None;
                }
                known.weights.get(&name.value).copied().flatten()
            }
        };
        let (weight, place) = match weight? {
            Some(own) => (own.value, own.place),
            None => (default?, name.place),
        };
        Some(Tracked { track: Track { key: kind.tracked(name.value), weight }, place })
    }
}

/// `{ name = "eth1", weight = -10 }`. The inner `None`: no weight, or a wrong one.
#[expect(clippy::type_complexity, reason = "what is wrong, absent and given must be told apart")]
fn entry(
    mut table: Table<'_>,
    expected: &str,
    convert: impl Fn(&DeValue<'_>) -> Result<String, Problem>,
    report: &mut Report<'_>,
) -> Option<(Field<String>, Option<Option<Field<i32>>>)> {
    let name = table.value("name", report, convert).required(&table, "name", expected, report);
    let weight = table.value("weight", report, values::weight).optional();
    table.finish(report);
    Some((name?, weight))
}
