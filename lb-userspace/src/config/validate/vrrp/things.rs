//! What instances and groups can track: `[[vrrp_script]]`, `[[vrrp_track_process]]`, `[[vrrp_track_file]]` and
//! `[[vrrp_track_port]]`.

use std::time::Duration;

use toml::de::DeValue;

use super::{
    super::super::{
        Command,
        diagnostic::Problem,
        document::{Field, Read, Report, Table},
        values,
        vrrp::{MAX_VRRP_TRACKED, TrackFile, TrackPort, TrackProcess, VrrpScript},
    },
    limit,
    tracks::{Kind, Known},
};

const COMMAND: &str = "an array with the program's absolute path and its arguments";
const EVERY_SECOND: Duration = Duration::from_secs(1);

/// All of them; `None` where an error was reported.
pub(super) struct Things {
    pub(super) scripts: Option<Vec<VrrpScript>>,
    pub(super) processes: Option<Vec<TrackProcess>>,
    pub(super) files: Option<Vec<TrackFile>>,
    pub(super) ports: Option<Vec<TrackPort>>,
    /// What is to be known of them for whoever tracks them.
    pub(super) known: Known,
}

pub(super) fn read(root: &mut Table<'_>, report: &mut Report<'_>) -> Things {
    let mut known = Known::default();
    Things {
        scripts: each(root, Kind::Script, &mut known, report, script),
        processes: each(root, Kind::Process, &mut known, report, process),
        files: each(root, Kind::File, &mut known, report, file),
        ports: each(root, Kind::Port, &mut known, report, port),
        known,
    }
}

/// What every kind has.
struct Common {
    /// `None` where it is wrong, like the other.
    name: Option<String>,
    weight: Option<i32>,
}

/// Reads the tables of one kind.
fn each<T>(
    root: &mut Table<'_>,
    kind: Kind,
    known: &mut Known,
    report: &mut Report<'_>,
    mut one: impl FnMut(&mut Table<'_>, Common, &mut Report<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let header = kind.header();
    let tables = match root.tables(header, &format!("[[{header}]]"), report) {
        Read::Absent => return Some(Vec::new()),
        Read::Wrong => {
            known.of(kind).names.has_gaps();
            return None;
        }
        Read::Given(field) => field.value,
    };
    limit(&tables, MAX_VRRP_TRACKED, &format!("tables [[{header}]]"), report);
    let default = if kind == Kind::File { 1 } else { 0 };
    let all: Vec<_> = tables
        .into_iter()
        .map(|mut table| {
            let name = known.of(kind).names.read(&mut table, kind.example(), report).map(|field| field.value);
            let weight = table.value("weight", report, values::weight).or(default);
            if let Some(name) = &name {
                known.of(kind).weights.insert(name.clone(), weight);
            }
            let thing = one(&mut table, Common { name, weight }, report);
            table.finish(report);
            thing
        })
        .collect();
    all.into_iter().collect()
}

fn script(table: &mut Table<'_>, common: Common, report: &mut Report<'_>) -> Option<VrrpScript> {
    let command = |value: &DeValue<'_>| -> Result<Command, Problem> {
        values::command(value)?.ok_or_else(|| Problem::new("no program").expected(COMMAND))
    };
    let command = table.value("command", report, command).required(table, "command", COMMAND, report);
    let interval = table.value("interval", report, values::pace).or(EVERY_SECOND);
    let timeout = table.value("timeout", report, values::pace).or_inherit(&interval);
    let (rise, fall) = rise_and_fall(table, report);
    let user = table.value("user", report, values::user_name).optional();
    let init_fail = table.value("init_fail", report, values::boolean).or(false);
    Some(VrrpScript {
        name: common.name?,
        command: command?.value,
        interval: interval?,
        timeout: timeout?,
        rise: rise?,
        fall: fall?,
        weight: common.weight?,
        user: user?.map(|field| field.value),
        init_fail: init_fail?,
    })
}

fn process(table: &mut Table<'_>, common: Common, report: &mut Report<'_>) -> Option<TrackProcess> {
    let process = table.value("process", report, values::process);
    let process = process.required(table, "process", "the name of a program, such as \"haproxy\"", report);
    let count = |value: &DeValue<'_>| values::integer(value, 1..=65_535);
    let quorum = table.value("quorum", report, count).or(1);
    let interval = table.value("interval", report, values::pace).or(EVERY_SECOND);
    Some(TrackProcess {
        name: common.name?,
        process: process?.value,
        quorum: quorum?,
        interval: interval?,
        weight: common.weight?,
    })
}

fn file(table: &mut Table<'_>, common: Common, report: &mut Report<'_>) -> Option<TrackFile> {
    let text = |value: &DeValue<'_>| {
        let path = values::absolute_path(value)?;
        path.into_os_string().into_string().map_err(|_| Problem::new("not UTF-8 text"))
    };
    let file = table.value("file", report, text);
    let Field { value: file, .. } = file.required(table, "file", "the absolute path of a file", report)?;
    let interval = table.value("interval", report, values::pace).or(EVERY_SECOND);
    Some(TrackFile { name: common.name?, file, interval: interval?, weight: common.weight? })
}

fn port(table: &mut Table<'_>, common: Common, report: &mut Report<'_>) -> Option<TrackPort> {
    let address = table.value("address", report, values::service);
    let address = address.required(table, "address", "ADDRESS:PORT, such as \"127.0.0.1:443\"", report);
    let interval = table.value("interval", report, values::pace).or(EVERY_SECOND);
    let timeout = table.value("timeout", report, values::pace).or(EVERY_SECOND);
    let (rise, fall) = rise_and_fall(table, report);
    Some(TrackPort {
        name: common.name?,
        address: address?.value,
        interval: interval?,
        timeout: timeout?,
        rise: rise?,
        fall: fall?,
        weight: common.weight?,
    })
}

fn rise_and_fall(table: &mut Table<'_>, report: &mut Report<'_>) -> (Option<u32>, Option<u32>) {
    let count = |value: &DeValue<'_>| values::integer(value, 1..=100);
    (table.value("rise", report, count).or(1), table.value("fall", report, count).or(1))
}
