use super::*;

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The example of an IPv4 header that many texts compute by hand: its checksum is 0xb861.
#[test]
fn ipv4_checksum_is_the_known_one() {
    let packet =
        Packet::bare_ipv4([192, 168, 0, 1], [192, 168, 0, 199]).protocol(17).payload(&[0; 95]).build();
    assert_eq!(packet[..12], [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61]);
}

/// One's complement sum of 16-bit words, written apart from pnet.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut bytes = parts.concat();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    let mut total: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).unwrap()
}

#[test]
fn every_checksum_sums_to_all_ones() {
    for payload in [b"".as_slice(), b"odd", b"even"] {
        let tcp = Packet::bare_ipv4([10, 0, 0, 1], [10, 0, 0, 2])
            .tcp(1, 2)
            .options(&[2, 4, 5, 0xb4])
            .payload(payload);
        let tcp = tcp.build();
        let len = u8::try_from(tcp.len() - 20).unwrap();
        assert_eq!(sum(&[&tcp[..20]]), 0xffff);
        assert_eq!(sum(&[&tcp[12..20], &[0, 6, 0, len], &tcp[20..]]), 0xffff);

        let client: Ipv6Addr = "fd00::1".parse().unwrap();
        let server: Ipv6Addr = "fd00::2".parse().unwrap();
        let udp = Packet::bare_ipv6(client, server).udp(1, 2).payload(payload).build();
        let len = u8::try_from(udp.len() - 40).unwrap();
        assert_eq!(sum(&[&udp[8..40], &[0, 17, 0, len], &udp[40..]]), 0xffff);

        let icmp = Packet::bare_ipv6(client, server).echo_request(7, 1).payload(payload).build();
        assert_eq!(icmp[40], 128);
        assert_eq!(sum(&[&icmp[8..40], &[0, 58, 0, len], &icmp[40..]]), 0xffff);

        let icmp = Packet::bare_ipv4([10, 0, 0, 1], [10, 0, 0, 2]).echo_reply(7, 1).payload(payload).build();
        assert_eq!(icmp[20], 0);
        assert_eq!(sum(&[&icmp[20..]]), 0xffff);
    }
}

#[test]
fn headers_name_what_they_hold() {
    let frame = Packet::eth(A, B).service_vlan(5).vlan(10).ipv4([1, 1, 1, 1], [2, 2, 2, 2]).udp(1, 2).build();
    assert_eq!(frame[..12], [B, A].concat());
    assert_eq!(frame[12..22], [0x88, 0xa8, 0, 5, 0x81, 0, 0, 10, 0x08, 0]);
    assert_eq!(frame[22 + 9], 17);

    let v6: Ipv6Addr = "fd00::1".parse().unwrap();
    let chain = Packet::bare_ipv6(v6, v6)
        .ipv6_extension(extension::HOP_BY_HOP, &[5, 2, 0, 0])
        .ipv6_extension(extension::DESTINATION, &[0; 10])
        .ipv6_fragment(0, true, 9)
        .tcp(1, 2)
        .build();
    assert_eq!((chain[6], chain[40], chain[41], chain[48], chain[49], chain[64]), (0, 60, 0, 44, 1, 6));
    assert_eq!(chain[66..72], [0, 1, 0, 0, 0, 9]);

    for (protocol, tunnel) in [
        (4, Packet::bare_ipv4([1, 1, 1, 1], [2, 2, 2, 2]).ipv4([3, 3, 3, 3], [4, 4, 4, 4])),
        (41, Packet::bare_ipv4([1, 1, 1, 1], [2, 2, 2, 2]).ipv6(v6, v6)),
    ] {
        assert_eq!(tunnel.udp(1, 2).build()[9], protocol);
    }
    assert_eq!(Packet::bare_ipv6(v6, v6).ipv6(v6, v6).udp(1, 2).build()[6], 41);
}

#[test]
fn wrong_values_are_kept() {
    let packet = Packet::bare_ipv4([1, 1, 1, 1], [2, 2, 2, 2]).length(9).header_length(4).checksum(7);
    let packet = packet.udp(1, 2).length(3).checksum(0).build();
    assert_eq!((packet[0], packet[3], packet[11], packet[25]), (0x44, 9, 7, 3));
    assert_eq!(packet[26..28], [0, 0]);
}

#[test]
#[should_panic(expected = "ttl: the last layer has none")]
fn a_field_of_another_layer_is_an_error() {
    let _ = Packet::bare_ipv4([1, 1, 1, 1], [2, 2, 2, 2]).udp(1, 2).ttl(3);
}
