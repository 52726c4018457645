//! Names that other parts of the file use.

use std::collections::{BTreeMap, btree_map::Entry};

use super::super::super::{
    diagnostic::Problem,
    document::{Field, Read, Report, Table},
    values,
};

/// More names than this are not listed in a message.
const MOST_LISTED: usize = 8;

/// The names of one kind of thing, and the lines where they stand.
#[derive(Default)]
pub(in crate::config::validate) struct Names {
    lines: BTreeMap<String, usize>,
    /// Not all of them could be read: about one that is not there nothing can be said.
    has_gaps: bool,
}

impl Names {
    /// Reads the key `name` of a table, which must be there and new, and calls the table by it.
    pub(super) fn read(
        &mut self,
        table: &mut Table<'_>,
        example: &str,
        report: &mut Report<'_>,
    ) -> Option<Field<String>> {
        let name = table.value("name", report, values::server_name);
        if let Read::Given(name) = &name {
            table.call(&name.value);
        }
        let name =
            name.required(table, "name", &format!("a name of your choice, such as \"{example}\""), report);
        let Some(name) = name else {
            self.has_gaps = true;
            return None;
        };
        match self.lines.entry(name.value.clone()) {
            Entry::Occupied(first) => {
                let problem = Problem::new(format!("the name is taken at line {}", first.get()))
                    .expected("another name for each");
                report.error(&name.place, problem);
            }
            Entry::Vacant(free) => {
                free.insert(report.line(&name.place));
            }
        }
        Some(name)
    }

    /// Names that were read elsewhere, with their lines; whether one could not be read.
    pub(in crate::config::validate) const fn of(lines: BTreeMap<String, usize>, has_gaps: bool) -> Self {
        Self { lines, has_gaps }
    }

    /// Adds a name that is not in this text.
    pub(in crate::config::validate) fn add(&mut self, name: &str) {
        self.lines.entry(name.to_owned()).or_default();
    }

    /// From now on a name that is not there may be one that could not be read.
    pub(in crate::config::validate) fn has_gaps(&mut self) {
        self.has_gaps = true;
    }

    /// Whether the name is there; reports it if not. `header` is that of the tables that have such names.
    pub(in crate::config::validate) fn find(
        &self,
        name: &Field<String>,
        header: &str,
        report: &mut Report<'_>,
    ) -> bool {
        if self.lines.contains_key(&name.value) {
            return true;
        }
        if !self.has_gaps {
            let names: Vec<_> = self.lines.keys().map(String::as_str).collect();
            let expected = match names.len() {
                0 => format!("a table [[{header}]] of this name, and there is none"),
                1..=MOST_LISTED => values::one_of(&names),
                _ => format!("the name of a [[{header}]]"),
            };
            let problem = Problem::new(format!("no [[{header}]] of this name"))
                .expected(expected)
                .suggest(values::nearest_name(&name.value, names.into_iter()));
            report.error(&name.place, problem);
        }
        false
    }
}
