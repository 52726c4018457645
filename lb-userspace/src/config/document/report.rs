//! What is said about a text, and where in it.

use std::ops::Range;

use toml::{Spanned, de::DeValue};

use super::{
    super::{
        Config,
        diagnostic::{ConfigErrors, Diagnostic, Problem, Severity},
        secret,
    },
    Place,
};

/// Collects what is wrong with one text.
pub(in crate::config) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    /// The offset of each line's first byte.
    lines: Vec<usize>,
    damaged: bool,
    diagnostics: Vec<Diagnostic>,
}

impl<'t> Report<'t> {
    pub(in crate::config) fn new(file: &'t str, text: &'t str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset + 1);
        let lines = std::iter::once(0).chain(ends.filter(|start| *start < text.len())).collect();
        Self { file, text, lines, damaged: false, diagnostics: Vec::new() }
    }

    pub(in crate::config) fn text(&self) -> &'t str {
        self.text
    }

    /// From now on a missing key may be one that could not be read.
    pub(in crate::config) fn damaged(&mut self) {
        self.damaged = true;
    }

    pub(in crate::config) fn is_damaged(&self) -> bool {
        self.damaged
    }

    pub(in crate::config) fn error(&mut self, place: &Place, problem: Problem) {
        self.add(Severity::Error, place, problem);
    }

    pub(in crate::config) fn warning(&mut self, place: &Place, problem: Problem) {
        self.add(Severity::Warning, place, problem);
    }

    /// The line, counted from 1, of a place.
    pub(in crate::config) fn line(&self, place: &Place) -> usize {
        self.line_at(place.at.start)
    }

    /// The line that holds `offset`, without its line feed.
    pub(in crate::config) fn line_range(&self, offset: usize) -> Range<usize> {
        let line = self.line_at(offset);
        let start = self.lines[line - 1];
        let end = self.lines.get(line).copied().unwrap_or(self.text.len());
        let end = if self.text[..end].ends_with('\n') && end > start { end - 1 } else { end };
        start..end
    }

    /// The configuration when there is one without an error; else everything that was said, in the file's order.
    pub(in crate::config) fn finish(
        mut self,
        config: Option<Config>,
    ) -> Result<(Config, Vec<Diagnostic>), ConfigErrors> {
        self.diagnostics.sort_by_key(|one| one.line);
        let errors = self.diagnostics.iter().any(|one| one.severity == Severity::Error);
        match config {
            Some(config) if !errors => Ok((config, self.diagnostics)),
            _ => Err(ConfigErrors::new(self.diagnostics)),
        }
    }

    fn line_at(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset).max(1)
    }

    /// Where `value` stands; one that is secret is not shown.
    pub(super) fn place(&self, path: String, is_secret: bool, value: &Spanned<DeValue<'_>>) -> Place {
        let shown = !value.get_ref().is_table() && !is_array_of_tables(value.get_ref());
        let text = self.text.get(value.span()).filter(|text| shown && !text.is_empty());
        let value_shown = if is_secret {
            text.map(|_| secret::HIDDEN.to_owned())
        } else {
            text.map(|text| secret::hide(excerpt(text)))
        };
        Place { path, at: value.span(), value: value_shown }
    }

    fn add(&mut self, severity: Severity, place: &Place, problem: Problem) {
        let line = Some(self.line(place));
        let one = problem.at(severity, self.file, line, place.path.clone(), place.value.clone());
        self.diagnostics.push(one);
    }
}

/// At most about sixty characters of a text, in one line.
pub(in crate::config) fn excerpt(text: &str) -> String {
    const MOST: usize = 60;
    let line = if text.contains('\n') {
        text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
    } else {
        text.to_owned()
    };
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

fn is_array_of_tables(value: &DeValue<'_>) -> bool {
    value.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(|one| one.get_ref().is_table()))
}
