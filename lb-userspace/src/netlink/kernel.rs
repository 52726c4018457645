//! The netlink sockets: single lookups, and the stream of notifications.

use std::{io, net::IpAddr, time::Duration};

use futures_util::{StreamExt, TryStreamExt, future, stream::BoxStream};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressAttribute,
    link::LinkExtentMask,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteMessage},
};
use rtnetlink::{
    Handle, MulticastGroup,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    sys::AsyncSocket,
};
use tokio::{task::JoinSet, time::timeout};

use super::{
    Error, Reason,
    event::{Event, NeighbourKey},
    link::{Link, LinkTable},
    neighbour::Neighbour,
    route::Route,
};

/// Every change that can make another answer right.
const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv6Rule,
];

/// Room for notifications in bytes, so that a burst seldom costs a full resync. The kernel grants at most
/// `net.core.rmem_max`.
const NOTIFICATION_BUFFER: libc::c_int = 1 << 20;

/// Netlink answers in microseconds. An answer later than this was lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The socket for requests. Must be used inside a tokio runtime; its task ends when this is dropped.
pub(super) struct Kernel {
    handle: Handle,
    _task: JoinSet<()>,
}

impl Kernel {
    pub fn open() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
        let mut task = JoinSet::new();
        task.spawn(connection);
        Ok(Self { handle, _task: task })
    }

    /// All interfaces, without their addresses.
    pub async fn links(&self) -> Result<LinkTable, Error> {
        let request = self
            .handle
            .link()
            .get()
            .set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats])
            .execute();
        dump("RTM_GETLINK", request.map_ok(|message| Link::from(&message)).try_collect()).await
    }

    /// Fills in the addresses of `links`.
    pub async fn add_addresses(&self, links: &mut LinkTable) -> Result<(), Error> {
        let request = self.handle.address().get().execute().try_for_each(|message| {
            // Of a point-to-point address `Address` is the other end, and `Local` this machine.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let address = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            if let Some(address) = local.or(address) {
                links.add_address(message.header.index, address);
            }
            future::ready(Ok(()))
        });
        dump("RTM_GETADDR", request).await
    }

    /// The kernel's own lookup for `target`.
    pub async fn route(&self, target: IpAddr) -> Result<Result<Route, Reason>, Error> {
        let mut message = RouteMessage::default();
        (message.header.address_family, message.header.destination_prefix_length) = match target {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.attributes.push(RouteAttribute::Destination(target.into()));
        let request = RouteNetlinkMessage::GetRoute(message);
        match self.request("RTM_GETROUTE", request, NLM_F_REQUEST).await {
            Ok(Some(RouteNetlinkMessage::NewRoute(route))) => Ok(Route::decode(&route)),
            Ok(_) => Err(Error::NoAnswer { request: "RTM_GETROUTE" }),
            Err(Error::Request { request, source }) => match source.raw_os_error().and_then(Route::refused) {
                Some(reason) => Ok(Err(reason)),
                None => Err(Error::Request { request, source }),
            },
            Err(error) => Err(error),
        }
    }

    /// The entry of one neighbour.
    pub async fn neighbour(&self, key: NeighbourKey) -> Result<Neighbour, Error> {
        let request = RouteNetlinkMessage::GetNeighbour(neighbour_message(key));
        match self.request("RTM_GETNEIGH", request, NLM_F_REQUEST).await {
            Ok(Some(RouteNetlinkMessage::NewNeighbour(entry))) => Ok(Neighbour::from(&entry)),
            Ok(_) => Err(Error::NoAnswer { request: "RTM_GETNEIGH" }),
            // ENODEV: the interface has just gone; its event is on the way.
            Err(Error::Request { source, .. })
                if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) =>
            {
                Ok(Neighbour::MISSING)
            }
            Err(error) => Err(error),
        }
    }

    /// Has the kernel find or confirm a neighbour, as if it had a packet to send there.
    ///
    /// The entry stays an ordinary one that the kernel ages. Not for permanent entries: `NTF_USE` takes that
    /// state from them (`__neigh_update` in `net/core/neighbour.c`).
    pub async fn ask(&self, key: NeighbourKey) -> Result<(), Error> {
        let mut message = neighbour_message(key);
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        let request = RouteNetlinkMessage::NewNeighbour(message);
        self.request("RTM_NEWNEIGH", request, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE).await.map(|_| ())
    }

    /// Sends one request; the first answer, or `None` for a bare acknowledgement.
    async fn request(
        &self,
        name: &'static str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        let no_answer = || Error::NoAnswer { request: name };
        let mut message = NetlinkMessage::from(request);
        message.header.flags = flags;
        let mut answers = self.handle.clone().request(message).map_err(|_| no_answer())?;
        let answer = timeout(ANSWER_TIMEOUT, answers.next()).await.map_err(|_| no_answer())?;
        match answer.map(|answer| answer.payload) {
            Some(NetlinkPayload::InnerMessage(inner)) => Ok(Some(inner)),
            Some(NetlinkPayload::Error(error)) => {
                Err(Error::Request { request: name, source: error.to_io() })
            }
            Some(_) | None => Ok(None),
        }
    }
}

/// Waits for a whole table.
async fn dump<T>(
    name: &'static str,
    answers: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, Error> {
    match timeout(ANSWER_TIMEOUT, answers).await {
        Ok(Ok(table)) => Ok(table),
        Ok(Err(rtnetlink::Error::NetlinkError(error))) => {
            Err(Error::Request { request: name, source: error.to_io() })
        }
        Ok(Err(_)) | Err(_) => Err(Error::NoAnswer { request: name }),
    }
}

fn neighbour_message((ifindex, address): NeighbourKey) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    let (family, destination) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    message.header.family = family;
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}

/// The kernel's notifications, on a socket of their own so that a flood of them cannot push out an answer.
/// Ends when the socket breaks.
pub(super) struct Events {
    stream: BoxStream<'static, Event>,
    _task: JoinSet<()>,
}

impl Events {
    pub fn open() -> Result<Self, Error> {
        let (mut connection, _, messages) =
            rtnetlink::new_multicast_connection(&GROUPS).map_err(Error::Open)?;
        let socket = connection.socket_mut().socket_mut();
        socket.set_rx_buf_sz(NOTIFICATION_BUFFER).map_err(Error::Open)?;
        let mut task = JoinSet::new();
        task.spawn(connection);
        // Any process may send to a netlink socket; the kernel's port is 0.
        let from_kernel = messages.filter(|(_, sender)| future::ready(sender.port_number() == 0));
        let stream = from_kernel.filter_map(|(message, _)| future::ready(Event::decode(&message))).boxed();
        Ok(Self { stream, _task: task })
    }

    pub async fn next(&mut self) -> Result<Event, Error> {
        let closed = || Error::Open(io::Error::from(io::ErrorKind::BrokenPipe));
        self.stream.next().await.ok_or_else(closed)
    }
}
