//! Typed reading of a TOML table that collects mistakes instead of stopping at the first.
//!
//! A [`Table`] is asked for each key that it may hold; [`Table::finish`] reports the keys nobody asked for. Every
//! value comes with its [`Place`], so that a later rule can point at the line too.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{diagnostic::Problem, secret, values};

mod report;

pub(super) use report::{Report, excerpt};

/// One table of the file.
pub(super) struct Table<'d> {
    /// `None` stands for the whole file.
    path: Option<String>,
    at: Range<usize>,
    entries: &'d DeTable<'d>,
    known: Vec<&'static str>,
    /// Keys about which everything has been said.
    refused: Vec<&'static str>,
}

/// A key that may be written in two ways.
pub(super) enum Either<'d, T> {
    /// As a single value.
    Value(T),
    /// As a table.
    Table(Table<'d>),
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

impl<'d> Table<'d> {
    /// The whole file.
    pub(super) fn root(entries: &'d DeTable<'d>) -> Self {
        Self { path: None, at: 0..0, entries, known: Vec::new(), refused: Vec::new() }
    }

    fn new(path: String, at: Range<usize>, entries: &'d DeTable<'d>) -> Self {
        Self { path: Some(path), at, entries, known: Vec::new(), refused: Vec::new() }
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
        self.elements(key, report, expected, |element, _| convert(element.get_ref()))
    }

    /// The same where an element may also be a table, which is not read yet.
    pub(super) fn list_or_tables<T>(
        &mut self,
        key: &'static str,
        report: &mut Report<'_>,
        expected: &str,
        mut convert: impl FnMut(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Read<Vec<Field<Either<'d, T>>>> {
        self.elements(key, report, expected, |element, place| match element.get_ref() {
            DeValue::Table(entries) => {
                Ok(Either::Table(Table::new(place.path.clone(), place.at.clone(), entries)))
            }
            value => convert(value).map(Either::Value),
        })
    }

    fn elements<T>(
        &mut self,
        key: &'static str,
        report: &mut Report<'_>,
        expected: &str,
        mut convert: impl FnMut(&'d Spanned<DeValue<'d>>, &Place) -> Result<T, Problem>,
    ) -> Read<Vec<Field<T>>> {
        self.entry(key, report).and_then(|Field { value, place }| {
            let Some(elements) = value.get_ref().as_array() else {
                report.error(&place, values::wrong_type(value.get_ref(), expected));
                return Read::Wrong;
            };
            let mut fields = Vec::with_capacity(elements.len());
            for (index, element) in elements.iter().enumerate() {
                let place = report.place(format!("{}[{index}]", place.path), secret::is_key(key), element);
                match convert(element, &place) {
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
                let table = Table::new(place.path.clone(), place.at.clone(), entries);
                Read::Given(Field { value: table, place })
            }
            other => {
                report.error(&place, values::wrong_type(other, &format!("a table: [{key}]")));
                Read::Wrong
            }
        })
    }

    /// The value of `key` as `convert` understands it, or the table that it is.
    pub(super) fn value_or_table<T>(
        &mut self,
        key: &'static str,
        report: &mut Report<'_>,
        convert: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Read<Either<'d, T>> {
        if self.entries.get(key).is_some_and(|value| value.get_ref().is_table()) {
            self.table(key, report).and_then(|field| {
                Read::Given(Field { value: Either::Table(field.value), place: field.place })
            })
        } else {
            self.value(key, report, |value| convert(value).map(Either::Value))
        }
    }

    /// Every key of a table that has no fixed ones, with its value as `convert` understands it, in the order of the
    /// file; [`Read::Wrong`] if any is wrong.
    pub(super) fn free<T>(
        self,
        report: &mut Report<'_>,
        mut convert: impl FnMut(&str, &DeValue<'_>) -> Result<T, Problem>,
    ) -> Read<Vec<(String, T)>> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut read = Vec::with_capacity(entries.len());
        for (key, value) in &entries {
            let name: &str = key.get_ref();
            let mut place = report.place(self.path_of(name), secret::is_secret(name), value);
            place.at = key.span();
            match convert(name, value.get_ref()) {
                Ok(value) => read.push((name.to_owned(), value)),
                Err(problem) => report.error(&place, problem),
            }
        }
        if read.len() == entries.len() {
            Read::Given(Field { value: read, place: self.place() })
        } else {
            Read::Wrong
        }
    }

    /// Reports that `key` is out of place here, if it is there.
    pub(super) fn refuse(
        &mut self,
        key: &'static str,
        problem: impl FnOnce() -> Problem,
        report: &mut Report<'_>,
    ) {
        if let Some((name, value)) = self.entries.get_key_value(key)
            && !self.known.contains(&key)
        {
            self.refused.push(key);
            let mut place = report.place(self.path_of(key), secret::is_key(key), value);
            place.at = name.span();
            let problem = problem().suggest(values::nearest(key, &self.known));
            report.error(&place, problem);
        }
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
                    tables.push(Table::new(path, element.span(), entries));
                }
                other => {
                    let place = report.place(path, secret::is_key(key), element);
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
            if self.known.contains(&name) || self.refused.contains(&name) {
                continue;
            }
            let is_secret = secret::is_secret(name) || self.path.as_deref().is_some_and(secret::is_vault);
            let mut place = report.place(self.path_of(name), is_secret, value);
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
                let place = report.place(self.path_of(key), secret::is_key(key), value);
                Read::Given(Field { value, place })
            }
            // The line that cannot be read may well be this key's.
            None if report.is_damaged() => Read::Wrong,
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
    pub(super) fn and_then<U>(self, next: impl FnOnce(Field<T>) -> Read<U>) -> Read<U> {
        match self {
            Self::Absent => Read::Absent,
            Self::Wrong => Read::Wrong,
            Self::Given(field) => next(field),
        }
    }

    pub(super) fn is_given(&self) -> bool {
        matches!(self, Self::Given(_))
    }

    /// The value, its default when absent, or `None` when wrong.
    pub(super) fn or(self, default: T) -> Option<T> {
        match self {
            Self::Absent => Some(default),
            Self::Wrong => None,
            Self::Given(field) => Some(field.value),
        }
    }

    /// The value, what the level above has when absent (`None`: wrong there), or `None` when wrong.
    pub(super) fn or_inherit(self, above: &Option<T>) -> Option<T>
    where
        T: Clone,
    {
        match self {
            Self::Absent => above.clone(),
            Self::Wrong => None,
            Self::Given(field) => Some(field.value),
        }
    }

    /// The value and its place, `None` when absent; the outer `None` when wrong.
    pub(super) fn optional(self) -> Option<Option<Field<T>>> {
        match self {
            Self::Absent => Some(None),
            Self::Wrong => None,
            Self::Given(field) => Some(Some(field)),
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
