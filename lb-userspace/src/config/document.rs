//! Typed reading of a TOML table that collects mistakes instead of stopping at the first.
//!
//! A [`Table`] is asked for each key that it may hold; [`Table::finish`] reports the keys nobody asked for. Every
//! value comes with its [`Place`], so that a later rule can point at the line too.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Config,
    diagnostic::{ConfigErrors, Diagnostic, Problem, Severity},
    values,
};

/// One table of the file.
pub(super) struct Table<'d> {
    /// `None` stands for the whole file.
    path: Option<String>,
    at: Range<usize>,
    entries: &'d DeTable<'d>,
    known: Vec<&'static str>,
}

/// What a key holds.
pub(super) enum Read<T> {
    /// The key is not there: its default applies.
    Absent,
    /// The key is there but wrong, and that has been reported: rules that need it must keep silent.
    Wrong,
    /// The key and its value are right.
    Given(Field<T>),
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Field<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Where something stands in the file and how it is called there.
#[derive(Clone)]
pub(super) struct Place {
    /// The key path.
    pub(super) path: String,
    /// Byte offsets in the text; the start decides the line.
    pub(super) at: Range<usize>,
    /// The value as the file has it; `None` when there is nothing short to show.
    pub(super) value: Option<String>,
}

/// Collects what is wrong with one text.
pub(super) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    /// The offset of each line's first byte.
    lines: Vec<usize>,
    damaged: bool,
    diagnostics: Vec<Diagnostic>,
}

impl<'d> Table<'d> {
    /// The whole file.
    pub(super) fn root(entries: &'d DeTable<'d>) -> Self {
        Self { path: None, at: 0..0, entries, known: Vec::new() }
    }

    /// The value of `key` as `convert` understands it.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        report: &mut Report<'_>,
        convert: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Read<T> {
        self.entry(key, report).and_then(|field| {
            let Field { value, place } = field;
            match convert(value.get_ref()) {
                Ok(value) => Read::Given(Field { value, place }),
                Err(problem) => {
                    report.error(&place, problem);
                    Read::Wrong
                }
            }
        })
    }

    /// The elements of the array `key`, each as `convert` understands it; [`Read::Wrong`] if any is wrong.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        report: &mut Report<'_>,
        expected: &str,
        mut convert: impl FnMut(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Read<Vec<Field<T>>> {
        self.entry(key, report).and_then(|Field { value, place }| {
            let Some(elements) = value.get_ref().as_array() else {
                report.error(&place, values::wrong_type(value.get_ref(), expected));
                return Read::Wrong;
            };
            let mut fields = Vec::with_capacity(elements.len());
            for (index, element) in elements.iter().enumerate() {
                let place = report.place(format!("{}[{index}]", place.path), element);
                match convert(element.get_ref()) {
                    Ok(value) => fields.push(Field { value, place }),
                    Err(problem) => report.error(&place, problem),
                }
            }
            if fields.len() == elements.len() {
                Read::Given(Field { value: fields, place })
            } else {
                Read::Wrong
            }
        })
    }

    /// The table `key`.
    pub(super) fn table(&mut self, key: &'static str, report: &mut Report<'_>) -> Read<Table<'d>> {
        self.entry(key, report).and_then(|Field { value, place }| match value.get_ref() {
            DeValue::Table(entries) => {
                let table =
                    Table { path: Some(place.path.clone()), at: place.at.clone(), entries, known: vec![] };
                Read::Given(Field { value: table, place })
            }
            other => {
                report.error(&place, values::wrong_type(other, &format!("a table: [{key}]")));
                Read::Wrong
            }
        })
    }

    /// The tables of the array of tables `key`; `header` is how its header is written, for the message.
    pub(super) fn tables(
        &mut self,
        key: &'static str,
        header: &str,
        report: &mut Report<'_>,
    ) -> Read<Vec<Table<'d>>> {
        let expected = format!("an array of tables: {header}");
        let field = match self.entry(key, report) {
            Read::Absent => return Read::Absent,
            Read::Wrong => return Read::Wrong,
            Read::Given(field) => field,
        };
        let DeValue::Array(elements) = field.value.get_ref() else {
            report.error(&field.place, values::wrong_type(field.value.get_ref(), &expected));
            return Read::Wrong;
        };
        let mut tables = Vec::with_capacity(elements.len());
        for (index, element) in elements.iter().enumerate() {
            let path = format!("{}[{index}]", field.place.path);
            match element.get_ref() {
                DeValue::Table(entries) => {
                    tables.push(Table { path: Some(path), at: element.span(), entries, known: vec![] });
                }
                other => {
                    let place = report.place(path, element);
                    report.error(&place, values::wrong_type(other, &expected));
                }
            }
        }
        Read::Given(Field { value: tables, place: field.place })
    }

    /// Adds the name that the file gives to this table to the paths of its keys.
    pub(super) fn call(&mut self, name: &str) {
        if let Some(path) = &mut self.path {
            *path = format!("{path} \"{name}\"");
        }
    }

    /// The table itself, as a place to point at.
    pub(super) fn place(&self) -> Place {
        Place { path: self.path.clone().unwrap_or_default(), at: self.at.clone(), value: None }
    }

    /// Reports that `key` is missing.
    pub(super) fn missing(&self, key: &str, expected: &str, report: &mut Report<'_>) {
        let place = Place { path: self.path_of(key), at: self.at.clone(), value: None };
        report.error(&place, Problem::new("missing").expected(expected));
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self, report: &mut Report<'_>) {
        for (key, value) in self.entries {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let mut place = report.place(self.path_of(name), value);
            place.at = key.span();
            let problem = Problem::new("unknown key")
                .expected(values::one_of(&self.known))
                .suggest(values::nearest(name, &self.known));
            report.error(&place, problem);
        }
    }

    fn entry(&mut self, key: &'static str, report: &Report<'_>) -> Read<&'d Spanned<DeValue<'d>>> {
        self.known.push(key);
        match self.entries.get(key) {
            Some(value) => {
                let place = report.place(self.path_of(key), value);
                Read::Given(Field { value, place })
            }
            // The line that cannot be read may well be this key's.
            None if report.damaged => Read::Wrong,
            None => Read::Absent,
        }
    }

    fn path_of(&self, key: &str) -> String {
        match &self.path {
            Some(path) => format!("{path}.{key}"),
            None => key.to_owned(),
        }
    }
}

impl<T> Read<T> {
    fn and_then<U>(self, next: impl FnOnce(Field<T>) -> Read<U>) -> Read<U> {
        match self {
            Self::Absent => Read::Absent,
            Self::Wrong => Read::Wrong,
            Self::Given(field) => next(field),
        }
    }

    /// The value, its default when absent, or `None` when wrong.
    pub(super) fn or(self, default: T) -> Option<T> {
        match self {
            Self::Absent => Some(default),
            Self::Wrong => None,
            Self::Given(field) => Some(field.value),
        }
    }

    /// The value and its place; a missing one is an error.
    pub(super) fn required(
        self,
        table: &Table<'_>,
        key: &str,
        expected: &str,
        report: &mut Report<'_>,
    ) -> Option<Field<T>> {
        match self {
            Self::Absent => {
                table.missing(key, expected, report);
                None
            }
            Self::Wrong => None,
            Self::Given(field) => Some(field),
        }
    }
}

impl<'t> Report<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset + 1);
        let lines = std::iter::once(0).chain(ends.filter(|start| *start < text.len())).collect();
        Self { file, text, lines, damaged: false, diagnostics: Vec::new() }
    }

    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    /// From now on a missing key may be one that could not be read.
    pub(super) fn damaged(&mut self) {
        self.damaged = true;
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.damaged
    }

    pub(super) fn error(&mut self, place: &Place, problem: Problem) {
        self.add(Severity::Error, place, problem);
    }

    pub(super) fn warning(&mut self, place: &Place, problem: Problem) {
        self.add(Severity::Warning, place, problem);
    }

    /// The line, counted from 1, of a place.
    pub(super) fn line(&self, place: &Place) -> usize {
        self.line_at(place.at.start)
    }

    /// The line that holds `offset`, without its line feed.
    pub(super) fn line_range(&self, offset: usize) -> Range<usize> {
        let line = self.line_at(offset);
        let start = self.lines[line - 1];
        let end = self.lines.get(line).copied().unwrap_or(self.text.len());
        let end = if self.text[..end].ends_with('\n') && end > start { end - 1 } else { end };
        start..end
    }

    /// The configuration when there is one without an error; else everything that was said, in the file's order.
    pub(super) fn finish(
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

    fn place(&self, path: String, value: &Spanned<DeValue<'_>>) -> Place {
        let shown = !value.get_ref().is_table() && !is_array_of_tables(value.get_ref());
        let text = self.text.get(value.span()).filter(|text| shown && !text.is_empty());
        Place { path, at: value.span(), value: text.map(excerpt) }
    }

    fn add(&mut self, severity: Severity, place: &Place, problem: Problem) {
        let line = Some(self.line(place));
        let one = problem.at(severity, self.file, line, place.path.clone(), place.value.clone());
        self.diagnostics.push(one);
    }
}

/// At most about sixty characters of a text, in one line.
pub(super) fn excerpt(text: &str) -> String {
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
