//! The kernel's list of IPVS connections. Netlink has none; `ipvsadm -Lc` reads the same file.
//!
//! ```text
//! Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
//! TCP 0A420010 D2F0 0A420064 0050 0A420101 0050 ESTABLISHED     899
//! TCP 2001:0db8:...:0010 D2F0 2001:0db8:...:0064 0050 0A420101 0050 ESTABLISHED     899
//! ```

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::Context as _;

use crate::config::Protocol;

/// Of the thread, which may have another network namespace than the process began in.
const FILE: &str = "/proc/thread-self/net/ip_vs_conn";

/// One connection, or one persistence template, whose client has port 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Layer 4.
    pub protocol: Protocol,
    /// Who opened it.
    pub client: SocketAddr,
    /// What the client asked for.
    pub virtual_address: SocketAddr,
    /// Who serves it.
    pub real: SocketAddr,
    /// `ESTABLISHED` and so on.
    pub state: String,
    /// Seconds until it is forgotten.
    pub expires: u32,
}

impl Entry {
    /// Of one line; `None` for the header, for protocols that xdirector does not have, and for what makes no sense.
    pub fn read(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let protocol = match words.next()? {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            _ => return None,
        };
        let mut next = || Some(SocketAddr::new(address(words.next()?)?, port(words.next()?)?));
        let (client, virtual_address, real) = (next()?, next()?, next()?);
        let (state, expires) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        Some(Self { protocol, client, virtual_address, real, state, expires })
    }

    /// Whether it remembers a client's server for its next connections, and is no connection itself.
    pub fn is_template(&self) -> bool {
        self.client.port() == 0
    }
}

fn address(word: &str) -> Option<IpAddr> {
    if word.contains(':') {
        return word.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    u32::from_str_radix(word, 16).ok().map(|number| Ipv4Addr::from(number).into())
}

fn port(word: &str) -> Option<u16> {
    u16::from_str_radix(word, 16).ok()
}

/// Calls `each` for every connection of this network namespace; stops when that says false.
///
/// # Errors
/// When the file cannot be read.
pub fn each(mut each: impl FnMut(Entry) -> bool) -> anyhow::Result<()> {
    let file = File::open(FILE).with_context(|| format!("cannot open {FILE}"))?;
    for line in BufReader::with_capacity(1 << 16, file).lines() {
        let line = line.with_context(|| format!("cannot read {FILE}"))?;
        if let Some(entry) = Entry::read(&line)
            && !each(entry)
        {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_families_are_read() {
        let line = "TCP 0A420010 D2F0 0A420064 0050 0A420101 1F90 ESTABLISHED     899";
        let entry = Entry::read(line).unwrap();
        assert_eq!(entry.client, "10.66.0.16:54000".parse().unwrap());
        assert_eq!(entry.virtual_address, "10.66.0.100:80".parse().unwrap());
        assert_eq!(entry.real, "10.66.1.1:8080".parse().unwrap());
        assert_eq!((entry.state.as_str(), entry.expires, entry.is_template()), ("ESTABLISHED", 899, false));
        let line = "UDP 2001:0db8:0000:0000:0000:0000:0000:0010 0000 2001:0db8:0000:0000:0000:0000:0000:0064 0035 0A420101 0035 UDP 59 sip abc";
        let entry = Entry::read(line).unwrap();
        assert_eq!(entry.client, "[2001:db8::10]:0".parse().unwrap());
        assert_eq!(entry.real, "10.66.1.1:53".parse().unwrap());
        assert!(entry.is_template());
    }

    #[test]
    fn what_is_no_connection_is_passed_over() {
        let header = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData";
        for line in
            [header, "", "TCP", "SCTP 0A420010 D2F0 0A420064 0050 0A420101 1F90 ESTABLISHED 899", "TCP x y"]
        {
            assert_eq!(Entry::read(line), None, "{line}");
        }
    }
}
