//! `authentication` of an instance. No message here holds a part of a password or a key.

use std::collections::{BTreeMap, btree_map::Entry};

use toml::de::DeValue;

use super::super::super::{
    diagnostic::Problem,
    document::{Field, Read, Report, Table},
    values,
    vrrp::{Authentication, HmacMode, HmacSettings, Version},
};

/// So much of a password has room in an advert (RFC 2338 section 5.3.10).
const ROOM: usize = 8;
const TYPE: &str = "type = \"pass\" with a password, or type = \"hmac\" with a key";
const KEY: &str = "the key: 64 to 128 hexadecimal digits";

/// Reads the table; `version` is `None` where that is wrong. `None` means that an error was reported.
pub(super) fn read(
    table: &mut Table<'_>,
    version: Option<Version>,
    report: &mut Report<'_>,
) -> Option<Authentication> {
    let mut table = match table.table("authentication", report) {
        Read::Absent => return Some(Authentication::None),
        Read::Wrong => return None,
        Read::Given(field) => field.value,
    };
    let kind = table.value("type", report, values::authentication).required(&table, "type", TYPE, report);
    // Without the type it is not known which of the other keys are right.
    let kind = kind?;
    let needed = match (kind.value, version) {
        ("pass", Some(Version::V3)) => {
            let problem = Problem::new("version 3 has no passwords (RFC 9568 section 9)")
                .expected("type = \"hmac\", or version = 2");
            report.error(&kind.place, problem);
            None
        }
        ("hmac", Some(Version::V2)) => {
            let problem = Problem::new("not with version 2").expected("type = \"pass\", or version = 3");
            report.error(&kind.place, problem);
            None
        }
        _ => Some(()),
    };
    let (read, others): (_, &[_]) = match kind.value {
        "pass" => (password(&mut table, report), &["key_id", "key", "keys", "mode"]),
        _ => (hmac(&mut table, report), &["password"]),
    };
    for key in others {
        let problem = || Problem::new(format!("not a key of type \"{}\"", kind.value));
        table.refuse(key, problem, report);
    }
    table.finish(report);
    needed.and(read)
}

fn password(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Authentication> {
    let password = table.value("password", report, values::short_password);
    let expected = format!("a text of 1 to {ROOM} bytes");
    let Field { value: password, place } = password.required(table, "password", &expected, report)?;
    if password.len() > ROOM {
        let problem =
            Problem::new(format!("adverts have room for {ROOM} bytes: it is cut there, as keepalived does"));
        report.warning(&place, problem);
    }
    let mut bytes = [0; ROOM];
    for (to, from) in bytes.iter_mut().zip(password.bytes()) {
        *to = from;
    }
    Some(Authentication::Pass(bytes))
}

fn hmac(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Authentication> {
    let id = |value: &DeValue<'_>| values::byte(value, 0..=u8::MAX);
    let key_id = table.value("key_id", report, id).optional();
    let key = table.value("key", report, values::hmac_key).optional();
    let keys = table.tables("keys", "[{ id = 1, key = \"...\" }]", report);
    let mode = table.value("mode", report, values::hmac_mode).or(HmacMode::Enforce);
    let (key_id, key) = (key_id?, key?);
    let keys = match (key, keys) {
        (_, Read::Wrong) => return None,
        (Some(Field { value: key, .. }), Read::Absent) => vec![(key_id.map_or(1, |field| field.value), key)],
        (None, Read::Absent) => {
            table.missing("key", KEY, report);
            return None;
        }
        (Some(_), Read::Given(keys)) => {
            report.error(&keys.place, Problem::new("there is a key too").expected("one of them"));
            return None;
        }
        (None, Read::Given(keys)) => {
            if let Some(field) = key_id {
                let problem = Problem::new("the first of \"keys\" is the one to send with")
                    .expected("\"key_id\" beside \"key\" only");
                report.error(&field.place, problem);
            }
            if keys.value.is_empty() {
                report.error(&keys.place, Problem::new("no key").expected("one or more"));
                return None;
            }
            several(keys.value, report)?
        }
    };
    Some(Authentication::Hmac(HmacSettings { keys, mode: mode? }))
}

fn several(tables: Vec<Table<'_>>, report: &mut Report<'_>) -> Option<Vec<(u8, Vec<u8>)>> {
    let mut lines: BTreeMap<u8, usize> = BTreeMap::new();
    let all: Vec<_> = tables
        .into_iter()
        .map(|mut table| {
            let id = table.value("id", report, |value| values::byte(value, 0..=u8::MAX));
            let id = id.required(&table, "id", "a whole number from 0 to 255", report);
            let key = table.value("key", report, values::hmac_key).required(&table, "key", KEY, report);
            table.finish(report);
            let id = id?;
            match lines.entry(id.value) {
                Entry::Occupied(first) => {
                    let problem = Problem::new(format!("the number is taken at line {}", first.get()))
                        .expected("another number for each key");
                    report.error(&id.place, problem);
                }
                Entry::Vacant(free) => {
                    free.insert(report.line(&id.place));
                }
            }
            Some((id.value, key?.value))
        })
        .collect();
    all.into_iter().collect()
}
