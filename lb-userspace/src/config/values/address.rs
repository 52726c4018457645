//! Addresses and ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use toml::de::DeValue;

use super::{Problem, integer, string};

/// The address of a virtual server: address and port.
pub(in crate::config) fn virtual_address(value: &DeValue<'_>) -> Result<(IpAddr, u16), Problem> {
    let expected =
        "ADDRESS:PORT, such as \"192.168.10.50:80\" or \"[2001:db8::50]:443\"; port 0 is every port";
    match machine(endpoint(value, expected)?)? {
        (address, Some(port)) => Ok((address, port)),
        (_, None) => Err(Problem::new("no port").expected(expected)),
    }
}

/// The address of a real server: the port may be left out.
pub(in crate::config) fn real_address(value: &DeValue<'_>) -> Result<(IpAddr, Option<u16>), Problem> {
    let expected = "ADDRESS or ADDRESS:PORT, such as \"192.168.1.101:8080\" or \"[2001:db8::101]:8080\"";
    machine(endpoint(value, expected)?)
}

/// `metrics.listen`: an address of this machine, or the unspecified one for all of them.
pub(in crate::config) fn listen(value: &DeValue<'_>) -> Result<SocketAddr, Problem> {
    let expected =
        "ADDRESS:PORT, such as \"127.0.0.1:9108\" or \"[::1]:9108\"; 0.0.0.0 and [::] are every address";
    let wrong = |what: &str| Problem::new(what).expected(expected);
    match endpoint(value, expected)? {
        (_, None) => Err(wrong("no port")),
        (_, Some(0)) => Err(wrong("port 0, which nobody could find")),
        (IpAddr::V4(address), _) if address.is_multicast() || address.is_broadcast() => {
            Err(wrong("not the address of one machine"))
        }
        (IpAddr::V6(address), _) if address.is_multicast() => Err(wrong("not the address of one machine")),
        (IpAddr::V6(address), _) if address.is_unicast_link_local() => {
            Err(wrong("a link-local address, which would need an interface"))
        }
        (address, Some(port)) => Ok(SocketAddr::new(address, port)),
    }
}

/// `connect_address` and `bind_address` of a check: without a port. Loopback is fine, for a tunnel or an agent.
pub(in crate::config) fn check_address(value: &DeValue<'_>) -> Result<IpAddr, Problem> {
    let expected = "ADDRESS without a port, such as \"192.168.1.101\" or \"2001:db8::101\"";
    match endpoint(value, expected)? {
        (_, Some(_)) => Err(Problem::new("a port, which has a key of its own").expected(expected)),
        (address, None) if address.is_loopback() => Ok(address),
        (address, None) => machine((address, None)).map(|(address, _)| address),
    }
}

/// One of an instance's `addresses`, with its prefix: all its bits unless given. A link-local address is fine.
pub(in crate::config) fn instance_address(value: &DeValue<'_>) -> Result<(IpAddr, u8), Problem> {
    let expected = "ADDRESS or ADDRESS/PREFIX, such as \"192.168.10.50/24\" or \"2001:db8::50/64\", or a table \
                    with \"address\"";
    let (address, prefix) = prefixed(value, expected)?;
    if prefix == 0 {
        return Err(Problem::new("prefix 0, which is everything").expected(expected));
    }
    Ok((on_a_link(address, expected)?, prefix))
}

/// A network: a destination of a route, or an end of a rule.
pub(in crate::config) fn network(value: &DeValue<'_>) -> Result<(IpAddr, u8), Problem> {
    let expected = "ADDRESS/PREFIX, such as \"10.0.0.0/8\"; \"0.0.0.0/0\" and \"::/0\" are everything";
    let (address, prefix) = prefixed(value, expected)?;
    let network = masked(address, prefix);
    if network == address {
        return Ok((address, prefix));
    }
    let problem = Problem::new("address bits after the prefix").expected(format!("\"{network}/{prefix}\""));
    Err(problem)
}

/// The address of a machine on one of our links: a gateway, a peer, our own. A link-local address is fine.
pub(in crate::config) fn neighbour(value: &DeValue<'_>) -> Result<IpAddr, Problem> {
    let expected = "ADDRESS without a port, such as \"192.168.1.1\" or \"fe80::1\"";
    match endpoint(value, expected)? {
        (_, Some(_)) => Err(Problem::new("a port, which has no meaning here").expected(expected)),
        (address, None) => on_a_link(address, expected),
    }
}

/// Where a tracked port is: address and port. Loopback is fine.
pub(in crate::config) fn service(value: &DeValue<'_>) -> Result<SocketAddr, Problem> {
    let expected = "ADDRESS:PORT, such as \"127.0.0.1:443\" or \"[::1]:443\"";
    let wrong = |what: &str| Problem::new(what).expected(expected);
    match endpoint(value, expected)? {
        (_, None) => Err(wrong("no port")),
        (_, Some(0)) => Err(wrong("port 0")),
        (address, Some(port)) if address.is_loopback() => Ok(SocketAddr::new(address, port)),
        (address, port) => {
            let (address, port) = machine((address, port))?;
            Ok(SocketAddr::new(address, port.unwrap_or_default()))
        }
    }
}

/// A port of its own key.
pub(in crate::config) fn port(value: &DeValue<'_>) -> Result<u16, Problem> {
    let port = integer(value, 1..=u16::MAX.into())?;
    Ok(u16::try_from(port).expect("the range says so"))
}

/// Refuses addresses that no machine behind a director can have.
fn machine((address, port): (IpAddr, Option<u16>)) -> Result<(IpAddr, Option<u16>), Problem> {
    match special(address) {
        Some(kind) => {
            Err(Problem::new(format!("{kind} address")).expected("the unicast address of a machine"))
        }
        None => Ok((address, port)),
    }
}

/// Refuses addresses that no machine on a link can have.
fn on_a_link(address: IpAddr, expected: &str) -> Result<IpAddr, Problem> {
    let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    match special(address) {
        Some(kind) if !is_link_local => Err(Problem::new(format!("{kind} address")).expected(expected)),
        _ => Ok(address),
    }
}

/// Splits `ADDRESS` and `ADDRESS/PREFIX`.
fn prefixed(value: &DeValue<'_>, expected: &str) -> Result<(IpAddr, u8), Problem> {
    let text = string(value, expected)?;
    let wrong = |what: String| Problem::new(what).expected(expected);
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr =
        address.parse().map_err(|_| wrong("not an IP address (names are not looked up)".to_owned()))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => most,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let prefix = digits.parse::<u8>().ok().filter(|prefix| *prefix <= most);
            prefix.ok_or_else(|| wrong(format!("the prefix is longer than {most}")))?
        }
        Some(_) => return Err(wrong("the prefix is not a number".to_owned())),
    };
    Ok((address, prefix))
}

/// The address with all bits after the prefix zero.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

/// Splits `ADDRESS`, `ADDRESS:PORT`, `[V6]` and `[V6]:PORT`.
fn endpoint(value: &DeValue<'_>, expected: &str) -> Result<(IpAddr, Option<u16>), Problem> {
    let text = string(value, expected)?;
    let wrong = |what: String| Problem::new(what).expected(expected);
    let (address, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((inner, rest)) = rest.split_once(']') else {
            return Err(wrong("\"[\" without \"]\"".to_owned()));
        };
        let inner: Ipv6Addr =
            inner.parse().map_err(|_| wrong("not an IPv6 address between the brackets".to_owned()))?;
        match rest.strip_prefix(':') {
            Some(port) => (IpAddr::V6(inner), Some(port)),
            None if rest.is_empty() => (IpAddr::V6(inner), None),
            None => return Err(wrong("something other than \":PORT\" after the \"]\"".to_owned())),
        }
    } else if let Ok(address) = text.parse::<IpAddr>() {
        (address, None)
    } else {
        let (address, port) = match text.rsplit_once(':') {
            Some((address, port)) => (address, Some(port)),
            None => (text, None),
        };
        match address.parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) => return Err(wrong("an IPv6 address with a port needs brackets".to_owned())),
            Ok(address) => (address, port),
            Err(_) => return Err(wrong("not an IP address (names are not looked up)".to_owned())),
        }
    };
    let port = match port {
        None => None,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let port = digits.parse::<u16>();
            Some(port.map_err(|_| wrong("the port is larger than 65535".to_owned()))?)
        }
        Some(_) => return Err(wrong("the port is not a number".to_owned())),
    };
    Ok((address, port))
}

/// Why packets cannot be sent to an address of this kind through a director.
fn special(address: IpAddr) -> Option<&'static str> {
    let kinds = match address {
        IpAddr::V4(v4) => [
            // RFC 1122 section 3.2.1.3: all of 0/8 means "this network", not a destination.
            (v4.octets()[0] == 0, "an unspecified"),
            (v4.is_loopback(), "a loopback"),
            (v4.is_multicast(), "a multicast"),
            (v4.is_broadcast(), "a broadcast"),
            (false, ""),
        ],
        IpAddr::V6(v6) => [
            (v6.is_unspecified(), "an unspecified"),
            (v6.is_loopback(), "a loopback"),
            (v6.is_multicast(), "a multicast"),
            // Never on the wire (RFC 4291 section 2.5.5.2): it means the IPv4 address.
            (v6.to_ipv4_mapped().is_some(), "an IPv4-mapped"),
            // It would need an interface beside it; IPVS refuses it as well.
            (v6.is_unicast_link_local(), "a link-local"),
        ],
    };
    kinds.into_iter().find(|(is, _)| *is).map(|(_, kind)| kind)
}
