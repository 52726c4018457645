//! Packets for people: whole-packet comparison that shows where two differ.

use std::fmt::Write as _;

const ROW: usize = 16;

/// How two packets differ, as a hex dump of the rows that do; `None` when they are the same.
#[must_use]
pub fn difference(expected: &[u8], actual: &[u8]) -> Option<String> {
    if expected == actual {
        return None;
    }
    let mut text = String::new();
    if expected.len() != actual.len() {
        let _ = writeln!(text, "length: expected {}, actual {}", expected.len(), actual.len());
    }
    for start in (0..expected.len().max(actual.len())).step_by(ROW) {
        let (want, have) = (row(expected, start), row(actual, start));
        if want == have {
            continue;
        }
        let marks: String =
            (0..ROW).map(|column| if want.get(column) == have.get(column) { "   " } else { "^^ " }).collect();
        let _ = writeln!(text, "{start:04x}  expected  {}", hex(want));
        let _ = writeln!(text, "      actual    {}", hex(have));
        let _ = writeln!(text, "                {}", marks.trim_end());
    }
    Some(text)
}

/// Fails, showing the difference, unless two packets are the same in every byte.
///
/// # Panics
/// When they differ.
#[track_caller]
pub fn assert_same(expected: &[u8], actual: &[u8], what: &str) {
    if let Some(difference) = difference(expected, actual) {
        panic!("{what}: the packets differ\n{difference}");
    }
}

fn row(packet: &[u8], start: usize) -> &[u8] {
    &packet[start.min(packet.len())..(start + ROW).min(packet.len())]
}

fn hex(bytes: &[u8]) -> String {
    let words: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_only_the_rows_that_differ() {
        let expected: Vec<u8> = (0..40).collect();
        let mut actual = expected.clone();
        actual[17] = 0xff;
        assert_eq!(
            difference(&expected, &actual).unwrap(),
            "0010  expected  10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f\n      \
             actual    10 ff 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f\n                   ^^\n"
        );
        actual.truncate(20);
        assert!(difference(&expected, &actual).unwrap().starts_with("length: expected 40, actual 20\n"));
        assert_eq!(difference(&expected, &expected), None);
    }
}
