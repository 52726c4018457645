//! What goes over the wire, byte by byte. The same frames are expected of keepalived and of xdirector.

use anyhow::{Context as _, Result, ensure};
use lab::{
    failover::{Advert, Instance, Kind, Scene, VIP4, VIP6, start},
    require_routers,
    wire::Wire,
};
use std::time::{Duration, Instant};

use crate::support::SOON;

/// IPv4 header of an advert to 224.0.0.18 from 10.66.0.1, without identification and checksum: TOS 0xc0, TTL 255.
const MULTICAST4: &str = "45c0____________ff70____0a420001e0000012";
/// The same to 10.66.0.2.
const UNICAST4: &str = "45c0____________ff70____0a4200010a420002";
/// IPv6 header to ff02::12 from fe80::66:ff:fe00:1: hop limit 255, length 40.
const MULTICAST6: &str = "6_______002870fffe80000000000000006600fffe000001ff020000000000000000000000000012";

/// One configuration and what it sends.
struct Vector {
    instance: Instance,
    ip: &'static str,
    /// Ethernet destination and source.
    ethernet: &'static str,
    message: &'static str,
    /// The message at the stop; `None` where it follows from the other ones.
    last: Option<&'static str>,
}

/// Makes a test of each vector, for both programs.
macro_rules! vectors {
    ($($keepalived:ident, $xdirector:ident: $vector:expr;)*) => {$(
        #[test]
        fn $keepalived() -> Result<()> {
            require_routers!(stringify!($keepalived), Kind::Keepalived);
            sends(stringify!($keepalived), Kind::Keepalived, &$vector)
        }

        #[test]
        fn $xdirector() -> Result<()> {
            require_routers!(stringify!($xdirector), Kind::Xdirector);
            sends(stringify!($xdirector), Kind::Xdirector, &$vector)
        }
    )*};
}

vectors! {
    lab_keepalived_v2_password, xdirector_v2_password: Vector {
        instance: Instance::ipv4(51, 150).address("10.66.0.101/32").v2().password("secret12345"),
        ip: MULTICAST4,
        ethernet: "01005e000012026600000001",
        message: "213396020101c4fd0a4200640a4200657365637265743132",
        last: Some("2133000201015afe0a4200640a4200657365637265743132"),
    };
    lab_keepalived_v2, xdirector_v2: Vector {
        instance: Instance::ipv4(52, 150).v2(),
        ip: MULTICAST4,
        ethernet: "01005e000012026600000001",
        message: "2134960100013e230a4200640000000000000000",
        last: Some("213400010001d4230a4200640000000000000000"),
    };
    lab_keepalived_v3, xdirector_v3: Vector {
        instance: Instance::ipv4(53, 150).every(Duration::from_millis(500)),
        ip: MULTICAST4,
        ethernet: "01005e000012026600000001",
        message: "313596010032431f0a420064",
        last: Some("313500010032d91f0a420064"),
    };
    lab_keepalived_v3_ipv6, xdirector_v3_ipv6: Vector {
        instance: Instance::ipv6(54, 150).every(Duration::from_secs(1)),
        ip: MULTICAST6,
        ethernet: "333300000012026600000001",
        message: "3136960200643c80fe800000000000000000000000660100fd660000000000000000000000000100",
        last: None,
    };
    lab_keepalived_v3_unicast, xdirector_v3_unicast: Vector {
        instance: Instance::ipv4(55, 150).every(Duration::from_secs(1)).unicast("10.66.0.1", &["10.66.0.2"]),
        ip: UNICAST4,
        ethernet: "026600000002026600000001",
        message: "31379601006418ba0a420064",
        last: None,
    };
    lab_keepalived_v3_vmac, xdirector_v3_vmac: Vector {
        instance: Instance::ipv4(57, 150).every(Duration::from_secs(1)).vmac("vrrp.57"),
        ip: MULTICAST4,
        ethernet: "01005e00001200005e000139",
        message: "31399601006442e90a420064",
        last: None,
    };
}

/// RFC 9568's checksum has no pseudo-header; keepalived 2.2.7 cannot send it.
#[test]
fn xdirector_v3_with_the_checksum_of_rfc_9568() -> Result<()> {
    require_routers!("xdirector_v3_with_the_checksum_of_rfc_9568", Kind::Xdirector);
    let instance = Instance::ipv4(53, 150).every(Duration::from_millis(500));
    let vector = Vector {
        instance: instance.toml_line("checksum = \"rfc9568\""),
        ip: MULTICAST4,
        ethernet: "01005e000012026600000001",
        message: "3135960100322df10a420064",
        last: None,
    };
    sends("xdirector_rfc9568", Kind::Xdirector, &vector)
}

#[test]
fn lab_keepalived_announces_its_addresses() -> Result<()> {
    require_routers!("lab_keepalived_announces_its_addresses", Kind::Keepalived);
    announces("ka-announces", Kind::Keepalived)
}

#[test]
fn xdirector_announces_its_addresses() -> Result<()> {
    require_routers!("xdirector_announces_its_addresses", Kind::Xdirector);
    announces("xd-announces", Kind::Xdirector)
}

fn sends(label: &str, kind: Kind, vector: &Vector) -> Result<()> {
    // A unicast peer is there, and says nothing.
    let scene = Scene::new(&label.replace('_', "-"), 2)?;
    let alpha = &scene.machines[0];
    let wire = Wire::open(scene.lab.switch(), alpha.port.name())?;
    let mut router = start(kind, alpha, std::slice::from_ref(&vector.instance))?;
    let advert = next(&wire, |advert| advert.priority() != 0).with_context(|| router.log())?;
    same("Ethernet header", &advert.frame[..12], vector.ethernet)?;
    same("IP header", advert.ip_header(), vector.ip)?;
    same("message", advert.message(), vector.message)?;
    router.stop()?;
    let last = next(&wire, |advert| advert.priority() == 0)?;
    same("IP header of the last", last.ip_header(), vector.ip)?;
    if let Some(message) = vector.last {
        same("last message", last.message(), message)?;
    }
    Ok(())
}

fn next(wire: &Wire, wanted: impl Fn(&Advert) -> bool) -> Result<Advert> {
    let mut found = None;
    wire.find(SOON, |frame| {
        found = Advert::read(frame, Instant::now()).filter(&wanted);
        found.is_some()
    })?;
    found.context("no advert was sent")
}

/// Gratuitous ARP and unsolicited neighbour advertisement: five of each at once.
fn announces(label: &str, kind: Kind) -> Result<()> {
    let scene = Scene::new(label, 1)?;
    let alpha = &scene.machines[0];
    let wire = Wire::open(scene.lab.switch(), alpha.port.name())?;
    let mut router = start(kind, alpha, &[Instance::ipv4(53, 150), Instance::ipv6(54, 150)])?;
    let (mut arp, mut neighbour) = (Vec::new(), Vec::new());
    wire.find(SOON, |frame| {
        match frame.get(12..14) {
            // An ARP request whose sender is the virtual address.
            Some([8, 6]) if frame.get(28..32) == Some(&VIP4.octets()) => arp.push(frame.to_owned()),
            // ICMPv6, type 136.
            Some([0x86, 0xdd])
                if frame.get(20) == Some(&58)
                    && frame.get(54) == Some(&136)
                    && frame.get(62..78) == Some(&VIP6.octets()) =>
            {
                neighbour.push(frame.to_owned());
            }
            _ => {}
        }
        arp.len() >= 5 && neighbour.len() >= 5
    })?;
    ensure!(
        arp.len() >= 5 && neighbour.len() >= 5,
        "{} and {}\n{}",
        arp.len(),
        neighbour.len(),
        router.log()
    );
    for frame in arp {
        same(
            "ARP",
            &frame,
            "ffffffffffff026600000001080600010800060400010266000000010a420064ffffffffffff0a420064",
        )?;
    }
    for frame in neighbour {
        same("Ethernet header", &frame[..14], "33330000000102660000000186dd")?;
        same(
            "neighbour advertisement",
            &frame[54..],
            "8800____20000000fd6600000000000000000000000001000201026600000001",
        )?;
    }
    router.stop()
}

/// Compares with hexadecimal digits, of which `_` may be anything.
fn same(what: &str, bytes: &[u8], wanted: &str) -> Result<()> {
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let fits = text.len() == wanted.len()
        && text.chars().zip(wanted.chars()).all(|(is, should)| should == '_' || is == should);
    ensure!(fits, "{what}:\n  is     {text}\n  should {wanted}");
    Ok(())
}
