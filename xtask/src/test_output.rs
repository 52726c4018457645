//! Reads what libtest prints: how many tests passed, failed and were left out, and why.

use std::collections::BTreeSet;

/// What a privileged test prints when it cannot run: `SKIPPED <test name>: <why>`.
const SKIPPED: &str = "SKIPPED ";

/// The sum over one or more test programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    /// The names of the failed tests.
    pub failed: Vec<String>,
    /// `name: why` of the tests that did not run.
    pub skipped: Vec<String>,
}

impl Counts {
    /// A check that is one test.
    pub fn single(name: &str, passed: bool) -> Self {
        if passed {
            Self { passed: 1, ..Self::default() }
        } else {
            Self { failed: vec![name.to_owned()], ..Self::default() }
        }
    }

    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }

    /// "3 passed, 1 failed, 2 skipped".
    pub fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped.len())
    }
}

/// Follows the output of `cargo test ... -- --show-output` line by line.
#[derive(Default)]
pub struct Reader {
    passed: usize,
    failed: usize,
    ignored: usize,
    /// A set: a test may say that it skipped both while it runs and in the summary of its output.
    skipped: BTreeSet<String>,
    ignored_names: Vec<String>,
    failed_names: Vec<String>,
    section: Section,
    /// How many tests the running program announced.
    announced: Option<usize>,
}

/// Where in one test program's output the reader is.
#[derive(Default, PartialEq, Eq)]
enum Section {
    /// Before the outputs of single tests are repeated.
    #[default]
    Running,
    /// The outputs of passed tests.
    Successes,
    /// The outputs of failed tests.
    Failures,
}

impl Reader {
    /// Takes one line; returns whether a person wants to see it.
    pub fn line(&mut self, line: &str) -> bool {
        let text = line.trim();
        if let Some(at) = text.find(SKIPPED)
            // Where output is not captured, libtest's `test name ... ` stands before it on the same line.
            && (at == 0 || text.starts_with("test "))
            && text[at..].contains(": ")
        {
            self.skipped.insert(text[at + SKIPPED.len()..].to_owned());
            return true;
        }
        if self.result(text) {
            return true;
        }
        match text {
            "successes:" => self.section = Section::Successes,
            "failures:" => self.section = Section::Failures,
            _ if self.section == Section::Running => self.verdict(text),
            _ => {}
        }
        self.section != Section::Successes
    }

    /// Takes a program's last line, if this is it; a test may print one that looks the same.
    fn result(&mut self, text: &str) -> bool {
        let Some(result) = text.strip_prefix("test result: ") else { return false };
        let [passed, failed, ignored] =
            [" passed", " failed", " ignored"].map(|word| number_before(result, word));
        if self.announced.is_some_and(|announced| announced != passed + failed + ignored) {
            return false;
        }
        self.passed += passed;
        self.failed += failed;
        self.ignored += ignored;
        self.announced = None;
        self.section = Section::Running;
        true
    }

    /// Takes a line of the part where the tests run.
    fn verdict(&mut self, text: &str) {
        if let Some(number) = text
            .strip_prefix("running ")
            .and_then(|rest| rest.strip_suffix(" tests").or_else(|| rest.strip_suffix(" test")))
        {
            self.announced = number.parse().ok();
        }
        let Some((name, verdict)) = text.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "))
        else {
            return;
        };
        if verdict == "FAILED" {
            self.failed_names.push(name.to_owned());
        } else if let Some(why) = verdict.strip_prefix("ignored") {
            let why = why.trim_start_matches([',', ' ']);
            let why = if why.is_empty() { "ignored without a reason" } else { why };
            self.ignored_names.push(format!("{name}: {why}"));
        }
    }

    /// The counts, given whether the command as a whole succeeded.
    ///
    /// A program that crashed or did not compile prints no result: that counts as one failure named `step`.
    pub fn finish(mut self, step: &str, success: bool) -> Counts {
        // The names are for people; the numbers are libtest's own.
        self.failed_names.truncate(self.failed);
        while self.failed_names.len() < self.failed {
            self.failed_names.push("a test whose name was not printed".into());
        }
        if !success && self.failed == 0 {
            self.failed_names.push("did not finish; see its output above".into());
        }
        self.ignored_names.truncate(self.ignored);
        while self.ignored_names.len() < self.ignored {
            self.ignored_names.push("a test whose name was not printed: ignored".into());
        }
        // A skipped test returned without a panic, so libtest counted it as passed.
        let passed = self.passed.saturating_sub(self.skipped.len());
        let in_step = |name: String| format!("{step}: {name}");
        let skipped = self.skipped.into_iter().chain(self.ignored_names).map(in_step).collect();
        Counts { passed, failed: self.failed_names.into_iter().map(in_step).collect(), skipped }
    }
}

/// The number before ` passed` in `ok. 3 passed; 0 failed`.
fn number_before(text: &str, word: &str) -> usize {
    text.split(word)
        .next()
        .filter(|before| before.len() < text.len())
        .and_then(|before| before.rsplit(|c: char| !c.is_ascii_digit()).next())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, success: bool) -> Counts {
        let mut reader = Reader::default();
        for line in text.lines() {
            reader.line(line);
        }
        reader.finish("step", success)
    }

    #[test]
    fn results_of_several_programs_are_summed() {
        let counts = read(
            "running 2 tests\ntest a ... ok\ntest b ... ok\n\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             test result: ok. 131 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.1s\n",
            true,
        );
        assert_eq!(counts.line(), "133 passed, 0 failed, 0 skipped");
    }

    #[test]
    fn failures_and_ignored_tests_keep_their_names() {
        let counts = read(
            "test parse::short ... FAILED\ntest slow ... ignored, takes an hour\ntest other ... ignored\n\
             test result: FAILED. 4 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0s\n",
            false,
        );
        assert_eq!(counts.line(), "4 passed, 1 failed, 2 skipped");
        assert_eq!(counts.failed, ["step: parse::short"]);
        assert_eq!(counts.skipped, ["step: slow: takes an hour", "step: other: ignored without a reason"]);
    }

    #[test]
    fn a_skipped_test_is_not_a_passed_one_and_counts_once() {
        let counts = read(
            "test s1 ... SKIPPED s1: not root\nok\n\nsuccesses:\n\n---- s1 stdout ----\nSKIPPED s1: not root\n\n\
             ---- s2 stdout ----\nSKIPPED s2: no veth in this kernel\n\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0s\n",
            true,
        );
        assert_eq!(counts.line(), "1 passed, 0 failed, 2 skipped");
        assert_eq!(counts.skipped, ["step: s1: not root", "step: s2: no veth in this kernel"]);
    }

    #[test]
    fn a_crash_is_a_failure() {
        let counts = read("running 2 tests\nerror: test failed (signal: 11, SIGSEGV)\n", false);
        assert_eq!(counts.line(), "0 passed, 1 failed, 0 skipped");
        // Also when another program of the same command was fine.
        let counts = read("test result: ok. 2 passed; 0 failed; 0 ignored\n", false);
        assert_eq!(counts.line(), "2 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn passed_tests_output_is_hidden_and_failures_are_shown() {
        let mut reader = Reader::default();
        let shown: Vec<_> = [
            "test a ... ok",
            "successes:",
            "---- a stdout ----",
            "noise",
            "SKIPPED a: no kernel",
            "failures:",
            "assertion failed: x",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored",
        ]
        .into_iter()
        .filter(|line| reader.line(line))
        .collect();
        assert_eq!(
            shown,
            [
                "test a ... ok",
                "SKIPPED a: no kernel",
                "failures:",
                "assertion failed: x",
                "test result: FAILED. 1 passed; 1 failed; 0 ignored"
            ]
        );
    }

    #[test]
    fn what_a_test_prints_is_not_taken_for_libtests_own_words() {
        let counts = read(
            "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nsuccesses:\n\n---- a stdout ----\n\
             test x ... FAILED\ntest result: FAILED. 1 passed; 7 failed; 0 ignored\nrunning 9 tests\n\n\
             failures:\n\n---- b stdout ----\ntest y ... FAILED\n\nfailures:\n    b\n\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n\
             running 1 test\ntest c ... FAILED\ntest result: FAILED. 0 passed; 1 failed; 0 ignored\n",
            false,
        );
        assert_eq!(counts.line(), "1 passed, 2 failed, 0 skipped");
        assert_eq!(counts.failed, ["step: b", "step: c"]);
    }

    #[test]
    fn counts_add_up() {
        let mut sum = Counts::single("fmt", true);
        sum.add(Counts::single("clippy", false));
        assert_eq!(sum.line(), "1 passed, 1 failed, 0 skipped");
        assert_eq!(sum.failed, ["clippy"]);
    }
}
