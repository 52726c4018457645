//! `[mail]` and `[metrics]`.

use std::{
    fs::OpenOptions,
    io::Read as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use toml::de::DeValue;

use super::super::{
    Login, Mail, MailTls, Metrics,
    diagnostic::Problem,
    document::{Field, Read, Report, Table},
    reason, values,
};

/// The most addresses that get mail.
const MOST_RECIPIENTS: usize = 100;
/// A password file is one line; this also bounds what is read of a file that is none.
const LARGEST_PASSWORD_FILE: u64 = 4096;

/// Reads `[metrics]`. The outer `None`: an error was reported.
pub(super) fn metrics(root: &mut Table<'_>, report: &mut Report<'_>) -> Option<Option<Metrics>> {
    let mut table = match root.table("metrics", report) {
        Read::Absent => return Some(None),
        Read::Wrong => return None,
        Read::Given(field) => field.value,
    };
    let listen = table.value("listen", report, values::listen);
    let listen = listen.required(&table, "listen", "ADDRESS:PORT, such as \"127.0.0.1:9108\"", report);
    table.finish(report);
    Some(Some(Metrics { listen: listen?.value }))
}

/// Reads `[mail]`. The outer `None`: an error was reported.
pub(super) fn mail(root: &mut Table<'_>, report: &mut Report<'_>) -> Option<Option<Mail>> {
    let mut table = match root.table("mail", report) {
        Read::Absent => return Some(None),
        Read::Wrong => return None,
        Read::Given(field) => field.value,
    };
    let server = table.value("server", report, values::mail_server);
    let server = server.required(&table, "server", "a host name or an address", report);
    let port = table.value("port", report, values::port).optional();
    let tls = table.value("tls", report, values::mail_tls).or(MailTls::StartTls);
    let verify = table.value("verify", report, values::boolean).or(true);
    let timeout = table.value("timeout", report, values::patience).or(Duration::from_secs(30));
    let from = table.value("from", report, values::mail_address);
    let from = from.required(&table, "from", "a mail address, such as \"xdirector@example.org\"", report);
    let to = recipients(&mut table, report);
    let login = login(&mut table, tls, report);
    table.finish(report);

    let (tls, login) = (tls?, login?);
    let default_port = match tls {
        MailTls::Tls => 465,
        MailTls::StartTls if login.is_some() => 587,
        MailTls::StartTls | MailTls::None => 25,
    };
    Some(Some(Mail {
        server: server?.value,
        port: port?.map_or(default_port, |field| field.value),
        tls,
        verify: verify?,
        timeout: timeout?,
        from: from?.value,
        to: to?,
        login,
    }))
}

/// Reads the key `mail` of whatever can change. `has_mail`: whether there is `[mail]`; `None` where that is wrong.
pub(super) fn on_change(
    table: &mut Table<'_>,
    has_mail: Option<bool>,
    report: &mut Report<'_>,
) -> Read<bool> {
    match table.value("mail", report, values::boolean) {
        Read::Given(Field { value: true, place }) if has_mail == Some(false) => {
            report.error(&place, Problem::new("to nobody").expected("a table [mail], or false"));
            Read::Wrong
        }
        read => read,
    }
}

fn recipients(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Vec<String>> {
    let expected =
        format!("an array of 1 to {MOST_RECIPIENTS} mail addresses, such as [\"admin@example.org\"]");
    let list = table.list("to", report, &expected, values::mail_address);
    let Field { value: to, place } = list.required(table, "to", &expected, report)?;
    if !(1..=MOST_RECIPIENTS).contains(&to.len()) {
        let problem = Problem::new(format!("{} mail addresses", to.len())).expected(expected);
        report.error(&place, problem);
    }
    Some(to.into_iter().map(|one| one.value).collect())
}

/// The outer `None`: an error was reported.
fn login(table: &mut Table<'_>, tls: Option<MailTls>, report: &mut Report<'_>) -> Option<Option<Login>> {
    let user = table.value("user", report, values::user).optional();
    let password = table.value("password", report, values::password).optional();
    let file = table.value("password_file", report, values::absolute_path).optional();
    let (user, password, file) = (user?, password?, file?);
    let password = match (password, file) {
        (Some(_), Some(file)) => {
            let problem = Problem::new("there is a password too").expected("one of them");
            report.error(&file.place, problem);
            return None;
        }
        (Some(password), None) => Some(password),
        (None, Some(Field { value: path, place })) => match password_in(&path) {
            Ok((password, is_public)) => {
                if is_public {
                    let problem =
                        Problem::new("every user of this machine can read the file; \"chmod 600\" helps");
                    report.warning(&place, problem);
                }
                Some(Field { value: password, place })
            }
            Err(problem) => {
                report.error(&place, problem);
                return None;
            }
        },
        (None, None) => None,
    };
    match (user, password) {
        (None, None) => Some(None),
        (Some(user), None) => {
            let problem = Problem::new("no password").expected("\"password\" or \"password_file\" beside it");
            report.error(&user.place, problem);
            None
        }
        (None, Some(password)) => {
            let problem = Problem::new("no user").expected("\"user\" beside it");
            report.error(&password.place, problem);
            None
        }
        (Some(user), Some(password)) => {
            if tls == Some(MailTls::None) {
                let problem =
                    Problem::new("the password goes over the network in the clear with tls = \"none\"");
                report.warning(&user.place, problem);
            }
            Some(Some(Login { user: user.value, password: password.value }))
        }
    }
}

/// The password in a file, and whether everybody may read it. The line feed at the end is not part of it.
fn password_in(path: &Path) -> Result<(String, bool), Problem> {
    let expected = "a file of one line with the password";
    let cannot =
        |error: std::io::Error| Problem::new(format!("cannot read: {}", reason(&error))).expected(expected);
    let wrong = |what: &str| Problem::new(what).expected(expected);
    // A pipe without a writer would block the opening.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(cannot)?;
    let about = file.metadata().map_err(cannot)?;
    if !about.is_file() {
        return Err(wrong("not a file"));
    }
    let mut text = String::new();
    file.take(LARGEST_PASSWORD_FILE).read_to_string(&mut text).map_err(cannot)?;
    let line = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    let password = values::password(&DeValue::String(line.into())).map_err(|_| {
        wrong("the file is empty, too large, or has more than one line or control characters")
    })?;
    Ok((password, about.permissions().mode() & 0o004 != 0))
}
