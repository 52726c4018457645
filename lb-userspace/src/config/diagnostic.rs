//! What is said about a mistake, and how it looks on a terminal.

use std::fmt;

/// Why a configuration was refused: at least one error, and the warnings found on the way.
///
/// `Display` prints one line for each, in the order of the file, and the number of errors last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    diagnostics: Vec<Diagnostic>,
}

/// One thing that is wrong (or, for a warning, doubtful) at one place.
///
/// `Display` prints `FILE:LINE: key.path = VALUE: message; expected ...; did you mean ...?`, all in one line and
/// without control characters, whatever the file held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// An error refuses the configuration, a warning does not.
    pub severity: Severity,
    /// The name under which the file was read.
    pub file: String,
    /// Counted from 1; `None` when the file as a whole is meant.
    pub line: Option<usize>,
    /// Such as `virtual_server[0] "web".real_server[2].address`; empty when the file as a whole is meant.
    pub key: String,
    /// As it stands in the file (shortened when long); `None` when there is none to show.
    pub value: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub expected: Option<String>,
    /// The known word that the file's word is probably meant to be.
    pub suggestion: Option<String>,
}

/// How bad a [`Diagnostic`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration works, but probably not as meant.
    Warning,
}

impl ConfigErrors {
    /// Every error and warning, in the order of the file.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// How many of the diagnostics are errors; at least 1.
    #[must_use]
    pub fn error_count(&self) -> usize {
        self.diagnostics.iter().filter(|one| one.severity == Severity::Error).count()
    }

    pub(super) fn new(diagnostics: Vec<Diagnostic>) -> Self {
        Self { diagnostics }
    }

    pub(super) fn unreadable(file: &str, reason: String) -> Self {
        let problem = Problem::new(format!("cannot read: {reason}"));
        Self::new(vec![problem.at(Severity::Error, file, None, String::new(), None)])
    }

    pub(super) fn not_utf8(file: &str, line: usize) -> Self {
        let problem = Problem::new("not UTF-8 text").expected("a TOML file");
        Self::new(vec![problem.at(Severity::Error, file, Some(line), String::new(), None)])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in &self.diagnostics {
            writeln!(out, "{one}")?;
        }
        let errors = self.error_count();
        write!(out, "{errors} error{}", plural(errors))?;
        match self.diagnostics.len() - errors {
            0 => Ok(()),
            warnings => write!(out, ", {warnings} warning{}", plural(warnings)),
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:", plain(&self.file))?;
        if let Some(line) = self.line {
            write!(out, "{line}:")?;
        }
        if self.severity == Severity::Warning {
            out.write_str(" warning:")?;
        }
        if !self.key.is_empty() {
            write!(out, " {}", plain(&self.key))?;
            if let Some(value) = &self.value {
                write!(out, " = {}", plain(value))?;
            }
            out.write_str(":")?;
        }
        write!(out, " {}", plain(&self.message))?;
        if let Some(expected) = &self.expected {
            write!(out, "; expected {}", plain(expected))?;
        }
        if let Some(suggestion) = &self.suggestion {
            write!(out, "; did you mean \"{}\"?", plain(suggestion))?;
        }
        Ok(())
    }
}

/// What is wrong with a value, before it is known where the value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    message: String,
    expected: Option<String>,
    suggestion: Option<String>,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), expected: None, suggestion: None }
    }

    pub(super) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub(super) fn suggest(mut self, suggestion: Option<impl Into<String>>) -> Self {
        self.suggestion = suggestion.map(Into::into);
        self
    }

    pub(super) fn at(
        self,
        severity: Severity,
        file: &str,
        line: Option<usize>,
        key: String,
        value: Option<String>,
    ) -> Diagnostic {
        Diagnostic {
            severity,
            file: file.to_owned(),
            line,
            key,
            value,
            message: self.message,
            expected: self.expected,
            suggestion: self.suggestion,
        }
    }
}

/// A plural ending for a count.
fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Keeps a hostile file from sending escape sequences to the terminal, or from faking a second line.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        // U+2028/2029 and the bidirectional controls are not `is_control`, but reorder or break a line all the same.
        let reorders =
            matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if letter.is_control() || reorders {
            plain.extend(letter.escape_default());
        } else {
            plain.push(letter);
        }
    }
    plain
}
