//! What an operator orders for real servers: body of `POST /v1/servers`, and how it is checked. docs/api.md describes
//! the same fields for other programs: change both together.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// Body of `POST /v1/servers`: what an operator orders for a real server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "OrderBody")]
pub struct Order {
    /// `ADDRESS` or `ADDRESS:PORT` of the real server, as [`ServerAddress`] reads it; without a port all ports of the
    /// address.
    pub server: String,
    /// Name of one virtual server; null: all that have the server.
    pub virtual_server: Option<String>,
    /// What is ordered.
    #[serde(flatten)]
    pub action: Action,
}

/// What an operator can order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "action")]
pub enum Action {
    /// No new connections; the old ones go on.
    Drain {
        /// After so many seconds it is taken out with the connections it still has; null: never.
        #[serde(default)]
        timeout_seconds: Option<u64>,
    },
    /// Taken out, as if a check had failed.
    Disable,
    /// Every order for it is lifted.
    Enable,
    /// Another weight than the configuration's.
    Weight {
        /// 0 to 65,535.
        weight: u32,
    },
}

/// Which real servers an [`Order`] means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerAddress {
    /// Their address.
    pub address: IpAddr,
    /// Their port; `None`: every port.
    pub port: Option<u16>,
}

impl ServerAddress {
    /// Whether it means the real server at `server`.
    pub fn matches(&self, server: SocketAddr) -> bool {
        self.address == server.ip() && self.port.is_none_or(|port| port == server.port())
    }
}

/// Reads `ADDRESS`, `ADDRESS:PORT`, `[V6]` and `[V6]:PORT`.
impl FromStr for ServerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>()
            && (address.is_ipv6() || bare.len() == text.len())
        {
            return Ok(Self { address, port: None });
        }
        match text.parse::<SocketAddr>() {
            Ok(server) => Ok(Self { address: server.ip(), port: Some(server.port()) }),
            Err(_) => Err("not the address of a real server; expected ADDRESS or ADDRESS:PORT, such as \
                           192.168.1.101, 192.168.1.101:80 or [2001:db8::101]:80"
                .into()),
        }
    }
}

/// As [`Order::server`] has it.
impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
            None => self.address.fmt(f),
        }
    }
}

/// The largest weight of a real server.
pub const MAX_WEIGHT: u32 = 65_535;
/// The longest drain in seconds: 31 days, as the longest time of the configuration.
pub const LONGEST_DRAIN: u64 = 31 * 24 * 3600;

/// An [`Order`] as it comes. serde cannot refuse unknown fields beside a flattened enum, so each action's own fields
/// are looked at by hand: a misspelt `timeout_seconds` must not drain for ever.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderBody {
    server: String,
    #[serde(default)]
    virtual_server: Option<String>,
    action: ActionName,
    #[serde(default)]
    timeout_seconds: Option<u64>,
    #[serde(default)]
    weight: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ActionName {
    Drain,
    Disable,
    Enable,
    Weight,
}

impl TryFrom<OrderBody> for Order {
    type Error = String;

    fn try_from(body: OrderBody) -> Result<Self, String> {
        let OrderBody { server, virtual_server, action, timeout_seconds, weight } = body;
        server.parse::<ServerAddress>().map_err(|error| format!("server: {error}"))?;
        if timeout_seconds.is_some() && action != ActionName::Drain {
            return Err("timeout_seconds belongs to the action \"drain\" only".into());
        }
        if weight.is_some() && action != ActionName::Weight {
            return Err("weight belongs to the action \"weight\" only".into());
        }
        let action = match action {
            ActionName::Drain if timeout_seconds.is_some_and(|seconds| seconds > LONGEST_DRAIN) => {
                return Err(format!("timeout_seconds is larger than {LONGEST_DRAIN} (31 days)"));
            }
            ActionName::Drain => Action::Drain { timeout_seconds },
            ActionName::Disable => Action::Disable,
            ActionName::Enable => Action::Enable,
            ActionName::Weight => match weight {
                None => return Err("the action \"weight\" needs weight, 0 to 65535".into()),
                Some(weight) if weight > MAX_WEIGHT => {
                    return Err(format!("weight {weight} is out of range; expected 0 to {MAX_WEIGHT}"));
                }
                Some(weight) => Action::Weight { weight },
            },
        };
        Ok(Self { server, virtual_server, action })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(json: &str) -> Result<Order, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn orders_survive_the_way() {
        for action in [
            Action::Drain { timeout_seconds: None },
            Action::Drain { timeout_seconds: Some(LONGEST_DRAIN) },
            Action::Disable,
            Action::Enable,
            Action::Weight { weight: 0 },
            Action::Weight { weight: MAX_WEIGHT },
        ] {
            for virtual_server in [None, Some("web".to_owned())] {
                let sent = Order { server: "192.168.1.101:80".into(), virtual_server, action };
                assert_eq!(order(&serde_json::to_string(&sent).unwrap()), Ok(sent));
            }
        }
        assert_eq!(
            order(r#"{"server":"2001:db8::1","action":"drain"}"#),
            Ok(Order {
                server: "2001:db8::1".into(),
                virtual_server: None,
                action: Action::Drain { timeout_seconds: None }
            })
        );
    }

    #[test]
    fn a_wrong_order_is_refused_with_what_was_expected() {
        for (json, word) in [
            ("", "EOF"),
            ("[]", "struct OrderBody"),
            ("{}", "missing field `server`"),
            (r#"{"server":"192.0.2.1"}"#, "missing field `action`"),
            (r#"{"server":"192.0.2.1","action":"drian"}"#, "expected one of `drain`, `disable`"),
            (r#"{"server":"192.0.2.1","action":"drain","timeout":9}"#, "unknown field `timeout`"),
            (r#"{"server":"192.0.2.1","action":"drain","timeout_seconds":-9}"#, "u64"),
            (r#"{"server":"192.0.2.1","action":"drain","timeout_seconds":2678401}"#, "31 days"),
            (r#"{"server":"192.0.2.1","action":"drain","weight":1}"#, "\"weight\" only"),
            (r#"{"server":"192.0.2.1","action":"enable","timeout_seconds":1}"#, "\"drain\" only"),
            (r#"{"server":"192.0.2.1","action":"weight"}"#, "needs weight"),
            (r#"{"server":"192.0.2.1","action":"weight","weight":65536}"#, "expected 0 to 65535"),
            (r#"{"server":"www.example.com","action":"disable"}"#, "server: not the address"),
        ] {
            let error = order(json).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        }
    }

    #[test]
    fn addresses() {
        let read = |text: &str| text.parse::<ServerAddress>();
        for (text, shown) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("192.0.2.1:0", "192.0.2.1:0"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8:0::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ] {
            assert_eq!(read(text).unwrap().to_string(), shown);
            assert_eq!(read(shown), read(text));
        }
        for wrong in
            ["", "web", "[192.0.2.1]", "192.0.2.1:", "192.0.2.1:65536", "192.0.2", "[2001:db8::1", "::1]"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn without_a_port_every_port_is_meant() {
        let matches = |order: &str, server: &str| {
            order.parse::<ServerAddress>().unwrap().matches(server.parse().unwrap())
        };
        assert!(matches("192.0.2.1", "192.0.2.1:80"));
        assert!(matches("192.0.2.1:80", "192.0.2.1:80"));
        assert!(!matches("192.0.2.1:80", "192.0.2.1:81"));
        assert!(!matches("192.0.2.2", "192.0.2.1:80"));
        assert!(matches("2001:db8::1", "[2001:db8::1]:443"));
    }
}
