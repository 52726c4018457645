//! The invariants of docs/architecture.md that a program can check.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::workspace::Workspace;

/// Which of the workspace's crates each may depend on. A crate that is not here may depend on none.
const MAY_DEPEND_ON: [(&str, &[&str]); 5] = [
    ("lb-ebpf", &["lb-common"]),
    ("bench-ebpf", &["lb-common", "lb-ebpf"]),
    ("lb-userspace", &["lb-common"]),
    ("lab", &["lb-common", "lb-ebpf", "lb-userspace"]),
    ("bench", &["lb-common", "lb-ebpf", "lb-userspace", "lab"]),
];

/// The pure modules, below lb-userspace/src: a file, or everything in the directory of that name.
const PURE: [&str; 5] = ["desired", "reconcile", "vrrp/packet", "vrrp/fsm", "health/fsm"];
/// What a pure module must not name: an event loop, the kernel, a socket, a file or a clock.
const IMPURE: [&str; 10] = [
    "tokio",
    "aya",
    "nix",
    "libc",
    "rtnetlink",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "SystemTime",
    "Instant::now",
];

/// Where a packet's raw pointers come from in an eBPF program.
const PACKET_POINTERS: [&str; 5] = [".data()", ".data_end()", ").data ", ").data_end ", "from_raw_parts"];

/// The files with a text that people or programs read.
const TEXT: [&str; 7] = ["rs", "toml", "md", "sh", "json", "yml", "txt"];

/// Checks the whole project; returns one line for each violation.
pub fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut violations = dependency_violations(&edges(&workspace.metadata()?)?);
    let mut files = Vec::new();
    collect(workspace.root(), &mut files)
        .with_context(|| format!("could not list {}", workspace.root().display()))?;
    files.sort();
    for path in files {
        let bytes = fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
        let relative = path.strip_prefix(workspace.root()).unwrap_or(&path);
        violations.extend(text_violations(&relative.to_string_lossy(), &String::from_utf8_lossy(&bytes)));
    }
    Ok(violations)
}

/// `from` depends on `to`; both are crates of the workspace.
type Edge = (String, String);

fn edges(metadata: &Value) -> Result<Vec<Edge>> {
    let packages = metadata["packages"].as_array().context("cargo metadata: no packages")?;
    let name = |value: &Value| value["name"].as_str().map(ToOwned::to_owned);
    let members: Vec<_> = packages.iter().filter_map(name).collect();
    let mut edges = Vec::new();
    for package in packages {
        let from = name(package).context("cargo metadata: a package without a name")?;
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            if let Some(to) = name(dependency).filter(|to| members.contains(to)) {
                edges.push((from.clone(), to));
            }
        }
    }
    Ok(edges)
}

fn dependency_violations(edges: &[Edge]) -> Vec<String> {
    let allowed = |from: &str| {
        MAY_DEPEND_ON.iter().find(|(name, _)| *name == from).map_or([].as_slice(), |(_, allowed)| allowed)
    };
    edges
        .iter()
        .filter(|(from, to)| !allowed(from).contains(&to.as_str()))
        .map(|(from, to)| {
            format!("{from} depends on {to}, but only {:?} of the workspace are allowed there", allowed(from))
        })
        .collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let kind = entry.file_type()?;
        // `target` and Git's own are not the project's. In a second work tree `.git` is a file.
        if name == "target" || name == ".git" {
            continue;
        }
        if kind.is_dir() {
            collect(&path, files)?;
        } else if kind.is_file()
            && path.extension().is_none_or(|extension| TEXT.iter().any(|text| extension == *text))
        {
            files.push(path);
        }
    }
    Ok(())
}

/// Checks one file; `path` is relative to the root.
fn text_violations(path: &str, text: &str) -> Vec<String> {
    let mut violations = Vec::new();
    // In pieces, or this file would find itself.
    let foreign = [concat!("/wor", "k/"), concat!("../sha", "red"), concat!("shared/des", "ign")];
    let agent = path.strip_prefix("lb-userspace/src/").filter(|_| path.ends_with(".rs"));
    let ebpf = path.strip_prefix("lb-ebpf/src/").filter(|_| path.ends_with(".rs"));
    for (number, line) in text.lines().enumerate() {
        let mut report = |what: String| violations.push(format!("{path}:{}: {what}", number + 1));
        if let Some(found) = foreign.iter().find(|foreign| line.contains(**foreign)) {
            report(format!("`{found}` is a place outside the project"));
        }
        let code = line.split("//").next().unwrap_or_default();
        if let Some(module) = agent {
            if !module.starts_with("dataplane/xdp") && names_crate(code, &["aya", "aya_log", "aya_obj"]) {
                report("only dataplane/xdp may use aya".into());
            }
            if is_pure(module)
                && let Some(found) = IMPURE.iter().find(|impure| has_word(code, impure))
            {
                report(format!("a pure module may not use `{found}`; take it as an argument"));
            }
        }
        if let Some(module) = ebpf
            && module != "packet.rs"
            && !module.starts_with("packet/")
            && let Some(found) = PACKET_POINTERS.iter().find(|pointer| code.contains(**pointer))
        {
            report(format!(
                "`{}` belongs in packet.rs, the only module with raw packet pointers",
                found.trim()
            ));
        }
    }
    violations
}

/// Whether a module (a path below lb-userspace/src) is one of [`PURE`]. Its tests must begin their time somewhere.
fn is_pure(module: &str) -> bool {
    if module.ends_with("/tests.rs") {
        return false;
    }
    PURE.iter()
        .any(|pure| module.strip_prefix(pure).is_some_and(|rest| rest == ".rs" || rest.starts_with('/')))
}

/// Whether code uses one of these crates: `use aya`, `aya::`, but not the word in a message.
fn names_crate(code: &str, crates: &[&str]) -> bool {
    crates.iter().any(|name| {
        words(code, name).any(|(before, after)| after.starts_with("::") || before.trim_end().ends_with("use"))
    })
}

fn has_word(code: &str, word: &str) -> bool {
    words(code, word).next().is_some()
}

/// What stands before and after each place where `word` is a whole word.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .map(move |(at, _)| (&code[..at], &code[at + word.len()..]))
        .filter(move |(before, after)| !before.ends_with(part) && !after.starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: &str, to: &str) -> Edge {
        (from.into(), to.into())
    }

    #[test]
    fn dependencies_point_inwards() {
        let fine = [
            edge("lb-ebpf", "lb-common"),
            edge("lb-userspace", "lb-common"),
            edge("lab", "lb-userspace"),
            edge("bench", "lab"),
            edge("bench-ebpf", "lb-ebpf"),
        ];
        assert_eq!(dependency_violations(&fine), Vec::<String>::new());
        for (from, to) in [
            ("lb-common", "lb-ebpf"),
            ("lb-ebpf", "lb-userspace"),
            ("lb-userspace", "lb-ebpf"),
            ("lb-userspace", "lab"),
            ("lab", "bench"),
            ("xtask", "lab"),
        ] {
            let violations = dependency_violations(&[edge(from, to)]);
            assert_eq!(violations.len(), 1, "{from} -> {to}");
            assert!(violations[0].starts_with(&format!("{from} depends on {to}")), "{violations:?}");
        }
    }

    #[test]
    fn edges_are_read_from_cargo_metadata() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "lb-common", "dependencies": [{ "name": "aya" }] },
            { "name": "lab", "dependencies": [{ "name": "lb-common" }, { "name": "libc" }] },
        ]});
        assert_eq!(edges(&metadata).unwrap(), [edge("lab", "lb-common")]);
    }

    #[test]
    fn aya_stays_in_the_xdp_data_plane() {
        assert_eq!(text_violations("lb-userspace/src/agent.rs", "use aya::Ebpf;\n").len(), 1);
        assert_eq!(text_violations("lb-userspace/src/agent.rs", "let x: aya_log::EbpfLogger;\n").len(), 1);
        assert!(text_violations("lb-userspace/src/dataplane/xdp/load.rs", "use aya::Ebpf;\n").is_empty());
        assert!(text_violations("lb-userspace/src/dataplane/xdp.rs", "use aya::Ebpf;\n").is_empty());
        // A message, a comment and a longer word are not a use.
        let fine = "// through aya::Ebpf\nprintln!(\"events come through aya\");\nlet maya::x;\n";
        assert_eq!(text_violations("lb-userspace/src/agent.rs", fine), Vec::<String>::new());
        assert!(text_violations("bench/src/main.rs", "use aya::Ebpf;\n").is_empty());
    }

    #[test]
    fn pure_modules_have_no_clock_and_no_kernel() {
        for (module, code) in [
            ("desired.rs", "let now = std::time::Instant::now();"),
            ("desired/health.rs", "use std::time::SystemTime;"),
            ("reconcile.rs", "use tokio::sync::mpsc;"),
            ("vrrp/fsm.rs", "let s: UdpSocket;"),
            ("vrrp/packet.rs", "use libc::c_int;"),
            ("health/fsm.rs", "nix::unistd::getpid()"),
        ] {
            let found = text_violations(&format!("lb-userspace/src/{module}"), code);
            assert_eq!(found.len(), 1, "{module}: {found:?}");
        }
        let fine = "use std::time::{Duration, Instant};\nfn poll(now: Instant) {}\n// Instant::now() is the driver's\n";
        assert!(text_violations("lb-userspace/src/vrrp/fsm.rs", fine).is_empty());
        assert!(text_violations("lb-userspace/src/vrrp/driver.rs", "Instant::now()").is_empty());
        assert!(!is_pure("desired_state.rs"));
    }

    #[test]
    fn packet_pointers_stay_in_packet_rs() {
        let code = "    let start = ctx.data();\n";
        let found = text_violations("lb-ebpf/src/forward/nat.rs", code);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("lb-ebpf/src/forward/nat.rs:1: "), "{found:?}");
        assert!(text_violations("lb-ebpf/src/packet.rs", code).is_empty());
        assert!(text_violations("tests/ebpf/src/main.rs", code).is_empty());
    }

    #[test]
    fn nothing_refers_outside_the_project() {
        for foreign in [concat!("/wor", "k/main"), concat!("../sha", "red/x"), concat!("shared/des", "ign/x")]
        {
            assert_eq!(text_violations("README.md", foreign).len(), 1, "{foreign}");
        }
        assert!(text_violations("README.md", "network/wordings").is_empty());
    }

    #[test]
    fn this_project_is_listed_without_its_build_output() {
        let workspace = Workspace::find().unwrap();
        let mut files = Vec::new();
        collect(workspace.root(), &mut files).unwrap();
        assert!(files.contains(&workspace.root().join("xtask/src/invariants.rs")));
        assert!(!files.iter().any(|file| file.starts_with(workspace.root().join("target"))));
    }
}
