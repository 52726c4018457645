//! The frames that tell a network where an address is now: pure.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Length of a gratuitous ARP in bytes, without padding.
const ARP_LEN: usize = 42;
/// Length of an unsolicited neighbour advertisement in bytes.
const NA_LEN: usize = 86;
/// `All nodes` (RFC 4291 2.7.1), and its MAC address (RFC 2464 7).
const ALL_NODES: (Ipv6Addr, [u8; 6]) = (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), [0x33, 0x33, 0, 0, 0, 1]);
/// ICMPv6's protocol number.
const ICMPV6: u8 = 58;

/// The frame of a gratuitous ARP: a request whose sender and target are both `address` (RFC 5227 3). The target's MAC is all
/// ones, as keepalived has it.
///
/// ```text
///  0               6               12      14
///  +---------------+---------------+-------+
///  | ff:ff:ff:ff:ff:ff     mac     |  0806 |
///  +-------+-------+---+---+-------+-------+---------------+---------------+
///  |  1    |  0800 | 6 | 4 |   1   |  mac  |    address    | ff..ff address|
///  +-------+-------+---+---+-------+-------+---------------+---------------+
/// ```
pub fn arp_frame(mac: [u8; 6], address: Ipv4Addr) -> [u8; ARP_LEN] {
    let mut frame = [0; ARP_LEN];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    // EtherType ARP; hardware Ethernet, protocol IPv4, 6 and 4 bytes of address, operation "request".
    frame[12..22].copy_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&mac);
    frame[28..32].copy_from_slice(&address.octets());
    frame[32..38].fill(0xff);
    frame[38..].copy_from_slice(&address.octets());
    frame
}

/// The frame of an unsolicited neighbour advertisement (RFC 4861 4.4, 7.2.6) from `address` itself to all nodes, with the
/// override flag, as keepalived sends it.
///
/// ```text
///  0              14                      54                        62          78        86
///  +--------------+-----------------------+-------------------------+-----------+---------+
///  | Ethernet     | IPv6, hop limit 255   | 136 | 0 | csum | R,0,O  |  address  |2,1, mac |
///  +--------------+-----------------------+-------------------------+-----------+---------+
/// ```
pub fn na_frame(mac: [u8; 6], address: Ipv6Addr, is_router: bool) -> [u8; NA_LEN] {
    let (group, group_mac) = ALL_NODES;
    let mut frame = [0; NA_LEN];
    frame[..6].copy_from_slice(&group_mac);
    frame[6..12].copy_from_slice(&mac);
    // EtherType IPv6; version 6, no class and flow label; 32 bytes of ICMPv6, hop limit 255.
    frame[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
    frame[22..38].copy_from_slice(&address.octets());
    frame[38..54].copy_from_slice(&group.octets());
    // Neighbour advertisement; its checksum comes last.
    frame[54] = 136;
    frame[58] = 0x20 | if is_router { 0x80 } else { 0 };
    frame[62..78].copy_from_slice(&address.octets());
    // Option "target link-layer address", of 8 bytes.
    frame[78..80].copy_from_slice(&[2, 1]);
    frame[80..].copy_from_slice(&mac);
    let checksum = checksum(&frame[22..]);
    frame[56..58].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// ICMPv6's checksum (RFC 4443 2.3) over both addresses and the message that follows them.
fn checksum(addresses_and_message: &[u8]) -> u16 {
    let message_len = addresses_and_message.len() - 32;
    let words = addresses_and_message.chunks(2).map(|word| {
        let low = word.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([word[0], low]))
    });
    let mut sum = words.sum::<u32>() + message_len as u32 + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use pnet_packet::icmpv6::{self, Icmpv6Packet};

    use super::*;

    const MAC: [u8; 6] = [0x02, 0x66, 0, 0, 0, 1];

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_gratuitous_arp_is_keepalived_s() {
        assert_eq!(
            hex(&arp_frame(MAC, Ipv4Addr::new(10, 66, 0, 100))),
            concat!(
                "ffffffffffff",
                "026600000001",
                "0806",
                "0001080006040001",
                "026600000001",
                "0a420064",
                "ffffffffffff",
                "0a420064",
            )
        );
    }

    #[test]
    fn a_neighbour_advertisement_is_keepalived_s() {
        let address: Ipv6Addr = "fd66::100".parse().unwrap();
        let frame = na_frame(MAC, address, false);
        let group: Ipv6Addr = "ff02::1".parse().unwrap();
        let message = Icmpv6Packet::new(&frame[54..]).unwrap();
        let checksum = icmpv6::checksum(&message, &address, &group);
        assert_eq!(
            hex(&frame),
            format!(
                "{}{}{}{}{}{checksum:04x}{}{}{}",
                "333300000001",
                "026600000001",
                "86dd",
                "6000000000203aff",
                "fd660000000000000000000000000100ff0200000000000000000000000000018800",
                "20000000",
                "fd660000000000000000000000000100",
                "0201026600000001",
            )
        );
    }

    #[test]
    fn a_router_says_so() {
        let address: Ipv6Addr = "fe80::66:100".parse().unwrap();
        let [host, router] = [false, true].map(|is_router| na_frame(MAC, address, is_router));
        assert_eq!((host[58], router[58]), (0x20, 0xa0));
        for frame in [host, router] {
            let message = Icmpv6Packet::new(&frame[54..]).unwrap();
            let checksum = icmpv6::checksum(&message, &address, &ALL_NODES.0);
            assert_eq!(message.get_checksum(), checksum);
        }
    }
}
