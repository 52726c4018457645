//! The keys that belong to one type of check.

use toml::de::DeValue;

use super::{
    super::{
        check::{Http, HttpRequest, Probe, Tls},
        diagnostic::Problem,
        document::{Field, Place, Read, Report, Table},
        values,
    },
    Facts,
};

/// The most requests of one check.
const MOST_REQUESTS: usize = 32;
/// The most headers of one request.
const MOST_HEADERS: usize = 32;

/// Reads what a check of type `kind` asks. `None` means that an error was reported.
pub(super) fn read(
    kind: &str,
    table: &mut Table<'_>,
    facts: &Facts,
    report: &mut Report<'_>,
) -> Option<Probe> {
    match kind {
        "tcp" => Some(Probe::Tcp),
        "http" => http(false, table, report),
        "https" => http(true, table, report),
        "smtp" => smtp(table, facts, report),
        "dns" => {
            let record = table.value("record", report, values::record).or("SOA".to_owned());
            let name = table.value("name", report, values::dns_name).or(".".to_owned());
            Some(Probe::Dns { record: record?, name: name? })
        }
        "udp" => udp(table, report),
        "ping" => Some(Probe::Ping),
        "script" => {
            let command = |value: &DeValue<'_>| {
                values::command(value)?.ok_or_else(|| Problem::new("no program").expected(COMMAND))
            };
            let command = table.value("command", report, command).required(table, "command", COMMAND, report);
            let dynamic = table.value("dynamic", report, values::boolean).or(false);
            Some(Probe::Script { command: command?.value, dynamic: dynamic? })
        }
        "file" => {
            let path = table.value("path", report, values::absolute_path);
            let path = path.required(table, "path", "the absolute path of a file", report);
            Some(Probe::File { path: path?.value })
        }
        other => unreachable!("\"{other}\" is none of Probe::TYPES"),
    }
}

const COMMAND: &str = "an array with the program's absolute path and its arguments";

fn smtp(table: &mut Table<'_>, facts: &Facts, report: &mut Report<'_>) -> Option<Probe> {
    let helo = match table.value("helo", report, values::helo) {
        Read::Wrong => None,
        Read::Given(field) => Some(field.value),
        Read::Absent => {
            let router_id = facts.router_id.as_deref()?;
            let helo = values::helo(&DeValue::String(router_id.into()));
            if helo.is_err() {
                let expected = format!("a host name, since the router_id \"{router_id}\" is none");
                table.missing("helo", &expected, report);
            }
            helo.ok()
        }
    };
    Some(Probe::Smtp { helo: helo? })
}

fn udp(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Probe> {
    let payload = bytes(table, "payload", "payload_hex", report);
    let expect = bytes(table, "expect", "expect_hex", report);
    let require_reply = table.value("require_reply", report, values::boolean).or(false);
    Some(Probe::Udp { payload: payload?, expect: expect?, require_reply: require_reply? })
}

/// Bytes as a text or as hexadecimal digits; none when both are absent.
fn bytes(
    table: &mut Table<'_>,
    text: &'static str,
    hex: &'static str,
    report: &mut Report<'_>,
) -> Option<Vec<u8>> {
    let as_text = table.value(text, report, values::payload).optional();
    let as_hex = table.value(hex, report, values::hex).optional();
    match (as_text?, as_hex?) {
        (Some(_), Some(hex)) => {
            report
                .error(&hex.place, Problem::new(format!("there is \"{text}\" too")).expected("one of them"));
            None
        }
        (Some(field), None) | (None, Some(field)) => Some(field.value),
        (None, None) => Some(Vec::new()),
    }
}

/// The keys of a request that its check can have for all of them.
struct Request {
    method: Option<String>,
    host: Option<Option<String>>,
    headers: Option<Vec<(String, String)>>,
    status: Option<Vec<std::ops::RangeInclusive<u16>>>,
    md5: Option<Option<[u8; 16]>>,
    regex: Option<Option<String>>,
}

fn http(is_tls: bool, table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Probe> {
    let expected = "an array of paths, such as [\"/\", \"/health\"]";
    let paths = table.list("paths", report, expected, values::request_path).optional();
    let requests = table.tables("requests", "[[virtual_server.health_check.requests]]", report);
    let common = Request {
        method: Some("GET".to_owned()),
        host: Some(None),
        headers: Some(Vec::new()),
        status: Some(vec![200..=299]),
        md5: Some(None),
        regex: Some(None),
    };
    let common = common.overridden(table, report);
    let tls = if is_tls { tls(table, report) } else { Some(None) };

    let requests = match (paths, requests) {
        (Some(paths), Read::Absent) => {
            let place = paths.as_ref().map_or_else(|| table.place(), |field| field.place.clone());
            let paths = match paths {
                None => vec!["/".to_owned()],
                Some(field) => field.value.into_iter().map(|path| path.value).collect(),
            };
            in_limits(paths.len(), &place, report)?;
            let requests = paths.into_iter().map(|path| common.with(path));
            requests.collect::<Option<Vec<_>>>()
        }
        (Some(Some(paths)), Read::Given(_)) => {
            let problem = Problem::new("there are \"requests\" too").expected("one of them");
            report.error(&paths.place, problem);
            None
        }
        (_, Read::Given(Field { value: tables, place })) => {
            in_limits(tables.len(), &place, report)?;
            let requests: Vec<_> = tables
                .into_iter()
                .map(|mut table| {
                    let path = table.value("path", report, values::request_path).or("/".to_owned());
                    let request = common.overridden(&mut table, report);
                    table.finish(report);
                    request.with(path?)
                })
                .collect();
            requests.into_iter().collect()
        }
        (None, _) | (_, Read::Wrong) => None,
    };
    let mut tls = tls?;
    let requests = requests?;
    if let Some(Tls { sni: sni @ None, .. }) = &mut tls {
        let host = common.host.flatten().or_else(|| requests.first()?.host.clone());
        *sni = host.as_deref().and_then(values::name_in_host).map(str::to_owned);
    }
    Some(Probe::Http(Http { tls, requests }))
}

/// The outer `None`: an error was reported.
fn tls(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Option<Tls>> {
    let sni = table.value("sni", report, values::host_name).optional();
    let verify = table.value("verify", report, values::boolean).or(false);
    Some(Some(Tls { sni: sni?.map(|field| field.value), verify: verify? }))
}

fn in_limits(count: usize, place: &Place, report: &mut Report<'_>) -> Option<()> {
    if (1..=MOST_REQUESTS).contains(&count) {
        return Some(());
    }
    let problem = Problem::new(format!("{count} requests")).expected(format!("1 to {MOST_REQUESTS} of them"));
    report.error(place, problem);
    None
}

impl Request {
    /// What `table` has of its own, and the rest from this one.
    fn overridden(&self, table: &mut Table<'_>, report: &mut Report<'_>) -> Self {
        let some = |convert: fn(&DeValue<'_>) -> Result<String, Problem>| {
            move |value: &DeValue<'_>| convert(value).map(Some)
        };
        let method = table.value("method", report, values::method);
        let host = table.value("host", report, some(values::host)).or_inherit(&self.host);
        let headers = self.headers(table, report);
        let status = table.value("status", report, values::status).or_inherit(&self.status);
        let md5 = table.value("md5", report, |value| values::md5(value).map(Some));
        let regex = table.value("regex", report, some(values::regex));
        // What is inherited as a whole has been looked at above.
        let is_new = method.is_given() || md5.is_given() || regex.is_given();
        let method = method.or_inherit(&self.method);
        let md5 = md5.or_inherit(&self.md5);
        let regex = regex.or_inherit(&self.regex);
        if is_new
            && method.as_deref() == Some("HEAD")
            && (md5.as_ref().is_some_and(Option::is_some) || regex.as_ref().is_some_and(Option::is_some))
        {
            let problem =
                Problem::new("the answer to HEAD has no body that \"md5\" or \"regex\" could look at")
                    .expected("another method, or neither of them");
            report.error(&table.place(), problem);
        }
        Self { method, host, headers, status, md5, regex }
    }

    /// The headers of this one, and those of `table`, which replace others of the same name.
    fn headers(&self, table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Vec<(String, String)>> {
        let field = match table.table("headers", report) {
            Read::Absent => return self.headers.clone(),
            Read::Wrong => return None,
            Read::Given(field) => field,
        };
        let mut seen: Vec<String> = Vec::new();
        let own = field.value.free(report, |name, value| {
            values::header_name(name)?;
            if seen.iter().any(|other| other.eq_ignore_ascii_case(name)) {
                return Err(Problem::new("given twice").expected("each header once"));
            }
            seen.push(name.to_owned());
            values::header_value(value)
        });
        let own = own.or(Vec::new())?;
        let mut headers = self.headers.clone()?;
        headers.retain(|(name, _)| !seen.iter().any(|other| other.eq_ignore_ascii_case(name)));
        headers.extend(own);
        if headers.len() > MOST_HEADERS {
            let problem = Problem::new(format!("{} headers", headers.len()))
                .expected(format!("at most {MOST_HEADERS}"));
            report.error(&field.place, problem);
        }
        Some(headers)
    }

    fn with(&self, path: String) -> Option<HttpRequest> {
        Some(HttpRequest {
            path,
            method: self.method.clone()?,
            host: self.host.clone()?,
            headers: self.headers.clone()?,
            status: self.status.clone()?,
            md5: self.md5?,
            regex: self.regex.clone()?,
        })
    }
}
