//! Reading a file again of which little has changed: only what is new is parsed.
//!
//! ```text
//! text = head | [[virtual_server]] ... | [[virtual_server]] ... | ...
//!                      same               new: parsed with the head
//! ```
//!
//! Everything about VRRP is in the head, or the text is not cut. A virtual server names an instance of it, which is the same for
//! old and new ones; an instance names virtual servers, for which the parser is told the names of those that stay.
//!
//! A shortcut and nothing else: wherever it could come to another result than [`super::parse`], or there is anything to
//! say about the file, the whole text is parsed.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    ops::Range,
    sync::Arc,
};

use super::{
    Config, ConfigErrors, Diagnostic, Forward, MAX_HEALTH_CHECKS, MAX_REAL_SERVERS, MAX_VIRTUAL_SERVERS,
    Protocol, VirtualServer, parse, parse_beside,
};

/// Begins the piece of a virtual server.
const HEADER: &str = "[[virtual_server]]";
/// How every other header within such a piece begins.
const OWN_TABLES: &str = "virtual_server";

/// The text of a configuration about which there is nothing to say, cut into pieces.
#[derive(Debug)]
pub struct Source {
    text: String,
    /// Where each virtual server stands; they follow each other to the end of the text.
    pieces: Vec<Range<usize>>,
}

/// Parses a text; of `last`, the configuration in force and its text, what is still the same is taken over. The result is
/// that of [`parse`], and the source for the next time, if it has one.
///
/// # Errors
/// As [`parse`].
pub fn parse_after(
    name: &str,
    text: String,
    last: Option<(&Config, &Source)>,
) -> Result<(Config, Vec<Diagnostic>, Option<Source>), ConfigErrors> {
    if let Some((config, source)) = last
        && let Some((config, pieces)) = source.reuse(config, name, &text)
    {
        return Ok((config, Vec::new(), Some(Source { text, pieces })));
    }
    let (config, warnings) = parse(name, &text)?;
    let source = if warnings.is_empty() { Source::new(text, &config) } else { None };
    Ok((config, warnings, source))
}

impl Source {
    /// `None` when the text cannot be cut.
    fn new(text: String, config: &Config) -> Option<Self> {
        let pieces = cut(&text, 0..text.len())?;
        // Another way to write the header would hide a virtual server in the piece of the one before.
        (pieces.len() == config.virtual_servers.len()).then_some(Self { text, pieces })
    }

    fn head(&self) -> &str {
        &self.text[..self.pieces.first().map_or(self.text.len(), |piece| piece.start)]
    }

    /// The configuration of `text`, and its pieces; `None` when all of it must be parsed.
    fn reuse(&self, config: &Config, name: &str, text: &str) -> Option<(Config, Vec<Range<usize>>)> {
        let same = self.same_pieces(text)?;
        let offset = |at: usize| at + text.len() - self.text.len();
        let after = self.pieces.len() - same.after;
        let begin = match same.before {
            0 => self.head().len(),
            count => self.pieces[count - 1].end,
        };
        let end = self.pieces.get(after).map_or(text.len(), |piece| offset(piece.start));
        let middle = cut(text, begin..end)?;

        let known: HashMap<&str, usize> =
            (same.before..after).map(|index| (&self.text[self.pieces[index].clone()], index)).collect();
        let from: Vec<Option<usize>> =
            middle.iter().map(|piece| known.get(&text[piece.clone()]).copied()).collect();
        let mut pieces = self.pieces[..same.before].to_vec();
        pieces.extend(middle.iter().cloned());
        pieces.extend(self.pieces[after..].iter().map(|piece| offset(piece.start)..offset(piece.end)));
        let from: Vec<Option<usize>> =
            (0..same.before).map(Some).chain(from).chain((after..self.pieces.len()).map(Some)).collect();
        let config = assemble(config, name, text, &pieces, &from)?;
        Some((config, pieces))
    }

    /// How many pieces at the beginning and at the end of both texts are the same.
    fn same_pieces(&self, text: &str) -> Option<Same> {
        let (old, new) = (self.text.as_bytes(), text.as_bytes());
        let prefix = common(old.chunks(CHUNK), new.chunks(CHUNK), |one| one.iter());
        let most = old.len().min(new.len()) - prefix;
        let suffix = common(old.rchunks(CHUNK), new.rchunks(CHUNK), |one| one.iter().rev()).min(most);
        if !text.starts_with(self.head()) || !is_header(text, self.head().len()) {
            return None;
        }
        let mut before = self.pieces.partition_point(|piece| piece.end <= prefix);
        if before > 0 && !is_header(text, self.pieces[before - 1].end) {
            // It ends elsewhere now.
            before -= 1;
        }
        let first = self.pieces.partition_point(|piece| piece.start < old.len() - suffix).max(before);
        let mut after = self.pieces.len() - first;
        if let Some(piece) = self.pieces.get(first) {
            let start = piece.start + new.len() - old.len();
            if !new[..start].ends_with(b"\n") {
                // It begins elsewhere now.
                after -= 1;
            }
        }
        Some(Same { before, after })
    }
}

struct Same {
    before: usize,
    after: usize,
}

/// So many bytes are compared at a time.
const CHUNK: usize = 4096;

/// The length of what two texts begin with, given in chunks and, for the chunk in which they differ, byte by byte.
fn common<'t, B: Iterator<Item = &'t u8>>(
    one: impl Iterator<Item = &'t [u8]>,
    other: impl Iterator<Item = &'t [u8]>,
    bytes: impl Fn(&'t [u8]) -> B,
) -> usize {
    let mut length = 0;
    for (one, other) in one.zip(other) {
        if one == other {
            length += one.len();
        } else {
            return length + bytes(one).zip(bytes(other)).take_while(|(one, other)| one == other).count();
        }
    }
    length
}

/// Whether the line that begins here is the header of a virtual server.
fn is_header(text: &str, at: usize) -> bool {
    let is_line = at == 0 || text.as_bytes().get(at - 1) == Some(&b'\n');
    is_line && text.get(at..).is_some_and(|line| line.trim_start_matches([' ', '\t']).starts_with(HEADER))
}

/// The pieces within a part of a text; `None` when one might not stand for itself: a text of several lines may hold what
/// looks like a header, and a table that belongs to no virtual server concerns the whole file.
fn cut(text: &str, part: Range<usize>) -> Option<Vec<Range<usize>>> {
    let mut pieces: Vec<Range<usize>> = Vec::new();
    let mut at = part.start;
    let all = text.get(part.clone())?;
    if all.contains("\"\"\"") || all.contains("'''") {
        return None;
    }
    for line in all.split_inclusive('\n') {
        let words = line.trim_start_matches([' ', '\t']);
        if words.starts_with(HEADER) {
            if let Some(last) = pieces.last_mut() {
                last.end = at;
            }
            pieces.push(at..part.end);
        } else if words.starts_with('[') && !pieces.is_empty() {
            let path = words.trim_start_matches(['[', ' ', '\t']);
            if !path.starts_with(OWN_TABLES) {
                return None;
            }
        }
        at += line.len();
    }
    Some(pieces)
}

/// Parses the pieces that come `from` nowhere, and puts them together with the others.
fn assemble(
    old: &Config,
    name: &str,
    text: &str,
    pieces: &[Range<usize>],
    from: &[Option<usize>],
) -> Option<Config> {
    let head = &text[..pieces.first()?.start];
    let mut fresh: Vec<usize> = (0..pieces.len()).filter(|&index| from[index].is_none()).collect();
    if fresh.is_empty() {
        // A file without virtual servers is something to say a word about.
        fresh.push(0);
    }
    let mut part = head.to_owned();
    part.extend(fresh.iter().map(|&index| &text[pieces[index].clone()]));
    let kept: Vec<usize> = from.iter().filter_map(|index| *index).collect();
    // VRRP instances may track them.
    let others: HashSet<&str> = kept.iter().map(|&index| old.virtual_servers[index].name.as_str()).collect();
    let (part, warnings) = parse_beside(name, &part, &others).ok()?;
    // What virtual servers are checked against: those that are kept have been checked against the old one.
    let is_same_head = part.director.router_id == old.director.router_id
        && part.vrrp == old.vrrp
        && part.mail.is_some() == old.mail.is_some()
        && part.virtual_servers.len() == fresh.len();
    if !warnings.is_empty() || !is_same_head {
        return None;
    }
    let Config { director, timeouts, metrics, mail, vrrp, virtual_servers: parsed } = part;
    if kept.iter().collect::<HashSet<_>>().len() != kept.len() {
        // One piece twice: two virtual servers of one name.
        return None;
    }
    if fresh.first().is_some_and(|&index| from[index].is_none())
        && !get_along(&parsed, kept.iter().map(|&index| &*old.virtual_servers[index]))
    {
        return None;
    }
    let mut parsed = fresh.into_iter().zip(parsed).filter(|(index, _)| from[*index].is_none());
    let virtual_servers: Option<Vec<Arc<VirtualServer>>> = from
        .iter()
        .map(|index| match index {
            Some(index) => old.virtual_servers.get(*index).cloned(),
            None => parsed.next().map(|(_, server)| server),
        })
        .collect();
    let config = Config { director, timeouts, metrics, mail, vrrp, virtual_servers: virtual_servers? };
    is_in_limits(&config).then_some(config)
}

/// Whether no rule between virtual servers says anything about a `fresh` one beside one that was there. Says no more often
/// than the rules do.
fn get_along<'c>(fresh: &[Arc<VirtualServer>], mut others: impl Iterator<Item = &'c VirtualServer>) -> bool {
    let names: HashSet<&str> = fresh.iter().map(|one| one.name.as_str()).collect();
    let addresses: HashSet<(IpAddr, u16, Protocol)> =
        fresh.iter().map(|one| (one.address, one.port, one.protocol)).collect();
    let mut translated: HashMap<(Protocol, IpAddr), Vec<u16>> = HashMap::new();
    for (protocol, server) in fresh.iter().flat_map(|one| nat_servers(one)) {
        translated.entry((protocol, server.0)).or_default().push(server.1);
    }
    others.all(|one| {
        !names.contains(one.name.as_str())
            && !addresses.contains(&(one.address, one.port, one.protocol))
            && nat_servers(one).all(|(protocol, (address, port))| {
                let ports = translated.get(&(protocol, address));
                // Port 0 stands for all of them.
                !ports
                    .is_some_and(|ports| ports.iter().any(|&other| other == port || other == 0 || port == 0))
            })
    })
}

fn nat_servers(one: &VirtualServer) -> impl Iterator<Item = (Protocol, (IpAddr, u16))> + '_ {
    let translated = one.real_servers.iter().filter(|server| server.forward == Forward::Nat);
    translated.map(|server| (one.protocol, (server.address, server.port)))
}

fn is_in_limits(config: &Config) -> bool {
    let servers = || config.virtual_servers.iter().flat_map(|one| &one.real_servers);
    config.virtual_servers.len() <= MAX_VIRTUAL_SERVERS
        && servers().count() <= MAX_REAL_SERVERS
        && servers().map(|server| server.health_checks.len()).sum::<usize>() <= MAX_HEALTH_CHECKS
}

#[cfg(test)]
mod tests;
