//! What a reload of the configuration or a change in the network does to connections that are there.

use anyhow::ensure;
use lab::Packet;
use lb_common::{Event, Verdict};
use lb_userspace::config::Protocol::{Tcp, Udp};

use crate::{
    case::Case,
    forwarding::verdict,
    scene::{
        CLIENT_MAC, CLIENTS, Client, DIRECTOR_MAC, FAMILIES, Family, GONE, LOST, MODES, Mode, Problem,
        SERVERS, SWEPT, Target, WEIGHTLESS, director_error,
    },
    setup::Setup::Forwarding,
};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for mode in MODES {
            cases.push(weight(mode, family));
            cases.push(gone(mode, family));
            cases.push(lost(mode, family));
            cases.push(swept(mode, family));
        }
        cases.push(answer_of_gone(family));
    }
    cases
}

fn refused(c: &Client, target: &Target, packet: &Packet) -> Packet {
    let frame = Packet::eth(DIRECTOR_MAC, CLIENT_MAC);
    director_error(frame, target.vip(), c.address, Problem::PortUnreachable, packet)
}

fn weight(mode: Mode, family: Family) -> Case {
    let target = Target::new(mode, family, WEIGHTLESS);
    let (id, server) = (target.id(Tcp), target.server());
    let [old, new, later] = [(); 3].map(|()| Client::new(family));
    let port = target.server_port(Tcp);
    let refusal = new.to(target.vip()).tcp(new.port, 80).syn();
    let title = format!(
        "changes {} {}: weight 0 keeps old connections and takes no new ones",
        mode.name(),
        family.name()
    );
    Case::new(Forwarding, title)
        .before(CLIENTS, old.to(target.vip()).tcp(old.port, 80).syn(), verdict(mode))
        .happens("the weight becomes 0", move |plane| plane.set_weight(&id, server, 0))
        .arrives(CLIENTS, old.to(target.vip()).tcp(old.port, 80).payload(b"more"))
        .redirects(verdict(mode), target.forwarded(&old).tcp(old.port, port).payload(b"more"))
        .arrives(CLIENTS, refusal.clone())
        .transmits(Verdict::ReplyNoServer, refused(&new, &target, &refusal))
        .happens("the weight becomes 1", move |plane| plane.set_weight(&id, server, 1))
        .arrives(CLIENTS, later.to(target.vip()).tcp(later.port, 80).syn())
        .redirects(verdict(mode), target.forwarded(&later).tcp(later.port, port).syn())
}

fn gone(mode: Mode, family: Family) -> Case {
    let target = Target::new(mode, family, GONE);
    let (id, server) = (target.id(Tcp), target.server());
    let (old, new) = (Client::new(family), Client::new(family));
    let refusal = new.to(target.vip()).tcp(new.port, 80).syn();
    Case::new(Forwarding, format!("changes {} {}: a real server is removed", mode.name(), family.name()))
        .before(CLIENTS, old.to(target.vip()).tcp(old.port, 80).syn(), verdict(mode))
        .happens("the server is removed", move |plane| plane.remove_server(&id, server))
        .arrives(CLIENTS, old.to(target.vip()).tcp(old.port, 80).payload(b"more"))
        .passes(Verdict::PassNoConnection)
        .counting(&[Event::ConnectionMoved])
        .arrives(CLIENTS, refusal.clone())
        .transmits(Verdict::ReplyNoServer, refused(&new, &target, &refusal))
        .leaves_state(&old, &target, Tcp, None)
}

fn answer_of_gone(family: Family) -> Case {
    let target = Target::new(Mode::Nat, family, GONE);
    let (id, server) = (target.id(Udp), target.server());
    let c = Client::new(family);
    Case::new(Forwarding, format!("changes nat {}: the answer of a server that was removed", family.name()))
        .before(CLIENTS, c.to(target.vip()).udp(c.port, 53), Verdict::ForwardNat)
        .happens("the server is removed", move |plane| plane.remove_server(&id, server))
        .arrives(SERVERS, target.answer(&c).udp(5353, c.port).payload(b"answer"))
        .redirects(Verdict::ReverseNat, target.answered(&c).udp(53, c.port).payload(b"answer"))
}

/// The agent ends connections whose server is gone, whether another packet comes or not.
fn swept(mode: Mode, family: Family) -> Case {
    let target = Target::new(mode, family, SWEPT);
    let clients = [(); 3].map(|()| Client::new(family));
    Case::new(
        Forwarding,
        format!("changes {} {}: a removed server's places are freed", mode.name(), family.name()),
    )
    .happens("the server is removed and the agent looks", move |plane| {
        plane.sweep()?;
        let free = plane.free_places()?;
        for c in clients {
            for packet in [c.to(target.vip()).tcp(c.port, 80).syn(), c.to(target.vip()).udp(c.port, 53)] {
                plane.run(CLIENTS, &packet.build(), 0)?;
            }
        }
        let opened = clients.len() * 2 * if mode == Mode::Nat { 2 } else { 1 };
        let left = plane.free_places()?;
        ensure!(left + opened == free, "{free} places were free, and then {left}");
        for protocol in [Tcp, Udp] {
            plane.remove_server(&target.id(protocol), target.server())?;
        }
        plane.sweep()?;
        let left = plane.free_places()?;
        ensure!(left == free, "{free} places were free, and in the end {left}");
        Ok(())
    })
}

fn lost(mode: Mode, family: Family) -> Case {
    let target = Target::new(mode, family, LOST);
    let server = target.server();
    let c = Client::new(family);
    Case::new(Forwarding, format!("changes {} {}: a neighbour is lost", mode.name(), family.name()))
        .before(CLIENTS, c.to(target.vip()).tcp(c.port, 80).syn(), verdict(mode))
        .happens("the neighbour does not answer", move |plane| plane.lose_neighbour(server))
        .arrives(CLIENTS, c.to(target.vip()).tcp(c.port, 80).payload(b"more"))
        .drops(Verdict::DropNoNextHop)
}
