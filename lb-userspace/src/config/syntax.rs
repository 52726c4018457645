//! TOML's own syntax errors, and how far a file that has some can still be checked.
//!
//! Most of them are local: a forgotten quote, a key given twice. Such a line is blanked out and the rest of the file
//! is checked as usual, so that the person sees every mistake in one go. An error in a `[header]`, or one that
//! does not go away with its line, leaves it open where the following keys belong; then nothing more is said.

use std::{borrow::Cow, ops::Range};

use toml::de::{DeTable, DeValue};

use super::{
    diagnostic::Problem,
    document::{Place, Report, excerpt},
    secret,
};

/// A file with more broken lines than this is no configuration; it also bounds the work.
const MOST_BROKEN_LINES: usize = 100;

/// So far back a line is looked for of which a broken one may be the rest.
const MOST_LINES_OF_A_SECRET: usize = 20;

/// The text, its broken lines blanked, when the rest is worth checking. `report` gets the syntax errors.
pub(super) fn readable<'t>(report: &mut Report<'t>) -> Option<Cow<'t, str>> {
    let original = report.text();
    let mut text = Cow::Borrowed(original);
    for _ in 0..MOST_BROKEN_LINES {
        let Some((offset, complaint)) = first_error(&text) else { return Some(text) };
        let range = report.line_range(offset);
        let line = text[range.clone()].trim();
        // An empty line: the end of the file, or a line that is blank already and still wrong.
        let local = !line.is_empty() && !line.starts_with('[');
        let original_line = original[range.clone()].trim();
        if line.is_empty() && !original_line.is_empty() {
            // Reported already, with the line that was to blame as far as one can tell.
            return None;
        }
        let (key, value, problem) = if is_secret(original, &range) {
            conceal(original_line, local)
        } else {
            explain(original_line, &complaint, local)
        };
        report.error(&Place { path: key, at: range.clone(), value }, problem);
        if !local {
            return None;
        }
        report.damaged();
        blank(text.to_mut(), range);
    }
    None
}

/// The first syntax error by position: its offset and what the parser says.
fn first_error(text: &str) -> Option<(usize, String)> {
    let (_, errors) = DeTable::parse_recoverable(text);
    errors
        .iter()
        .map(|error| (error.span().map_or(0, |span| span.start), error.message().to_owned()))
        .min_by_key(|(offset, _)| *offset)
}

/// Puts spaces in the place of a line, so that the offsets of all others stay right.
fn blank(text: &mut String, line: Range<usize>) {
    let spaces = " ".repeat(line.len());
    text.replace_range(line, &spaces);
}

/// Whether a line may hold a secret: by its own words, or as the second line of a text whose end was forgotten.
fn is_secret(text: &str, line: &Range<usize>) -> bool {
    let own = &text[line.clone()];
    if own.contains('=') || own.starts_with('[') {
        return secret::is_secret_line(own);
    }
    let mut before = text[..line.start].lines().rev().take(MOST_LINES_OF_A_SECRET);
    secret::is_secret_line(own) || before.find(|line| line.contains('=')).is_some_and(secret::is_secret_line)
}

/// What is said about a line that may hold a secret: nothing of its value, and none of the parser's words for it.
fn conceal(line: &str, local: bool) -> (String, Option<String>, Problem) {
    let rest = if local { "" } else { " (the rest of the file was not checked)" };
    let key = line.split_once('=').map_or("", |(key, _)| key.trim());
    let bare = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
    let problem = Problem::new(format!("not valid TOML{rest}")).expected("a text in quotes");
    if !key.is_empty() && key.chars().all(bare) {
        (excerpt(key), Some(secret::HIDDEN.to_owned()), problem)
    } else {
        ("a line with a secret".to_owned(), None, problem)
    }
}

/// Turns the parser's complaint about a line into a key, a value and a problem.
fn explain(line: &str, complaint: &str, local: bool) -> (String, Option<String>, Problem) {
    let (what, wanted) = match complaint.split_once(", expected ") {
        // The parser's word for a text in single quotes; "must be quoted" has said it.
        Some((what, "literal string")) => (what, None),
        Some((what, wanted)) => (what, Some(wanted)),
        None => (complaint, None),
    };
    let duplicate = complaint == "duplicate key";
    let rest = if local { "" } else { " (the rest of the file was not checked)" };
    let assignment = line.split_once('=').filter(|(key, _)| !line.starts_with('[') && !key.trim().is_empty());
    let Some((key, value)) = assignment else {
        let problem = Problem::new(format!("not valid TOML: {what}{rest}"));
        let problem = match wanted {
            Some(wanted) => problem.expected(wanted),
            None => problem,
        };
        return (if line.is_empty() { "end of file".to_owned() } else { excerpt(line) }, None, problem);
    };

    let starts_closed = value.trim_start().starts_with(['"', '\'', '[', '{']);
    let value = if starts_closed { value } else { value.split('#').next().unwrap_or_default() }.trim();
    let problem = if value.is_empty() {
        Problem::new(format!("not valid TOML: no value{rest}")).expected("a value after the \"=\"")
    } else if !starts_closed && !duplicate && DeValue::parse(value).is_err() {
        // What the parser makes of it ("invalid float") would only puzzle whoever forgot the quotes.
        Problem::new(format!("not valid TOML: a text without quotes{rest}"))
            .expected(format!("\"{}\"", excerpt(value)))
    } else {
        let problem = Problem::new(format!("not valid TOML: {what}{rest}"));
        match wanted {
            Some(wanted) => problem.expected(wanted),
            None => problem,
        }
    };
    (excerpt(key.trim()), (!value.is_empty()).then(|| excerpt(value)), problem)
}
