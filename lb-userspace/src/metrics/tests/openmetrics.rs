//! Reads the OpenMetrics text format strictly, as far as the page uses it.

use std::collections::BTreeSet;

/// One line of a family.
#[derive(Debug)]
pub(super) struct Sample {
    /// As it stands there.
    pub name: String,
    /// As docs/metrics.md names it: the family's name, with `_total` for counters and `_info` for texts.
    pub documented: String,
    pub labels: Vec<(String, String)>,
    pub value: String,
}

/// The samples of a page that keeps the rules.
pub(super) fn check(page: &str) -> Result<Vec<Sample>, String> {
    let body = page.strip_suffix("# EOF\n").ok_or("the end mark is missing")?;
    let mut families = BTreeSet::new();
    let mut series = BTreeSet::new();
    let mut samples = Vec::new();
    let mut lines = body.lines().peekable();
    while let Some(line) = lines.next() {
        let wrong = |what: &str| format!("{what}: {line}");
        let (family, help) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
            .ok_or_else(|| wrong("a family begins with its help"))?;
        if !is_name(family) || !family.starts_with("xdirector") || !help.ends_with('.') || help.contains('\\')
        {
            return Err(wrong("a wrong name or help"));
        }
        if !families.insert(family.to_owned()) {
            return Err(wrong("the family is there twice"));
        }
        let kind = lines
            .next()
            .and_then(|line| line.strip_prefix("# TYPE "))
            .and_then(|rest| rest.strip_prefix(family)?.strip_prefix(' '))
            .ok_or_else(|| wrong("no type after the help"))?;
        let unit = ["seconds", "bytes"].into_iter().find(|unit| family.ends_with(&format!("_{unit}")));
        if let Some(unit) = unit
            && lines.next() != Some(&format!("# UNIT {family} {unit}"))
        {
            return Err(wrong("no unit after the type"));
        }
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            "histogram" => &["_sum", "_count", "_bucket"],
            _ => return Err(wrong("an unknown type")),
        };
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let mut sample = sample(line).map_err(|what| format!("{what}: {line}"))?;
            let suffix = sample.name.strip_prefix(family).filter(|suffix| suffixes.contains(suffix));
            if suffix.is_none() {
                return Err(format!("not a {kind} of the family {family}: {line}"));
            }
            if !series.insert((sample.name.clone(), sample.labels.clone())) {
                return Err(format!("there twice: {line}"));
            }
            if kind == "info" && sample.value != "1"
                || kind == "counter" && sample.value.parse::<u64>().is_err()
            {
                return Err(format!("a wrong value: {line}"));
            }
            sample.documented = match kind {
                "histogram" => family.to_owned(),
                _ => sample.name.clone(),
            };
            samples.push(sample);
        }
    }
    Ok(samples)
}

fn sample(line: &str) -> Result<Sample, &'static str> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name) {
        return Err("a wrong name");
    }
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or("a label without a value")?;
            if !is_name(label) || labels.iter().any(|(known, _)| known == label) {
                return Err("a wrong label");
            }
            let (value, after) = unescaped(after)?;
            labels.push((label.to_owned(), value));
            match after.split_at_checked(1) {
                Some((",", after)) => rest = after,
                Some(("}", after)) => {
                    rest = after;
                    break;
                }
                _ => return Err("the labels do not end"),
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    if !value.parse::<f64>().is_ok_and(|value| value.is_finite() && value >= 0.0) {
        return Err("a wrong value");
    }
    Ok(Sample { name: name.to_owned(), documented: String::new(), labels, value: value.to_owned() })
}

/// The text before the closing quote, and what follows that.
fn unescaped(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match letters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, letter @ ('\\' | '"'))) => value.push(letter),
                _ => return Err("a wrong escape"),
            },
            _ => value.push(letter),
        }
    }
    Err("a value without an end")
}

fn is_name(name: &str) -> bool {
    name.starts_with(|letter: char| letter.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[test]
fn mistakes_are_found() {
    let good =
        "# HELP xdirector_a A.\n# TYPE xdirector_a counter\nxdirector_a_total{b=\"c\\\"d\"} 1\n# EOF\n";
    check(good).unwrap();
    for (from, to) in [
        ("# EOF\n", ""),
        ("_total", ""),
        (" 1\n", " 1\nxdirector_a_total{b=\"c\\\"d\"} 2\n"),
        (" 1\n", " -1\n"),
        (" 1\n", "\n"),
        ("\\\"", "\""),
        ("\\\"", "\\x"),
        ("# TYPE xdirector_a counter\n", ""),
        ("counter", "summary"),
        ("# EOF", "# HELP xdirector_a A.\n# TYPE xdirector_a gauge\n# EOF"),
        ("A.", "A"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        assert!(check(&bad).is_err(), "{bad}");
    }
}
