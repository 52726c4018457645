//! A network namespace in which sockets of checks stand, and the veth that leads out of it. A thread of its own is inside; it
//! goes with the thread and the last socket.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use netlink_packet_route::{
    address::AddressHeaderFlags,
    link::{InfoData, InfoVeth},
};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use socket2::{Domain, SockAddr, Socket, Type};

use super::ethtool;

/// The end inside.
const INNER: &str = "probe";
/// Who answers for everything, for the kernel: a neighbour whose MAC address is that of the veth's other end.
const GATEWAY4: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The thread answers in microseconds, with netlink in milliseconds.
const ANSWER: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce(&tokio::runtime::Runtime) + Send>;

/// The namespace.
#[derive(Debug)]
pub struct Namespace {
    /// Name of the veth's end on the director.
    pub name: String,
    /// The way out.
    pub veth: Veth,
    jobs: mpsc::Sender<Job>,
    /// Addresses that the inside has.
    addresses: Mutex<BTreeSet<IpAddr>>,
}

/// The interface by which packets of checks arrive.
#[derive(Debug, Clone, Copy)]
pub struct Veth {
    /// Its interface index.
    pub link: u32,
    /// Its MAC address.
    pub outer_mac: [u8; 6],
    /// That of the other end, where the packets come from.
    pub inner_mac: [u8; 6],
}

impl Namespace {
    /// Makes it, with the veth up and everything routed there.
    ///
    /// # Errors
    /// When that is not permitted, or the kernel has no veth.
    pub async fn make(instance: &str) -> anyhow::Result<Self> {
        let (jobs, inside) = enter()?;
        let (outer_mac, inner_mac) = (random_mac(), random_mac());
        let name = name_for(instance);
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let task = tokio::spawn(connection);
        let made = connect(&handle, &name, &inside, outer_mac, inner_mac).await;
        task.abort();
        let link = made.with_context(|| format!("interface {name}"))?;
        let veth = Veth { link, outer_mac, inner_mac };
        let new = Self { name, veth, jobs, addresses: Mutex::default() };
        new.run(move |runtime| runtime.block_on(set_up(outer_mac)))??;
        Ok(new)
    }

    /// Gives the inside an address from which sockets may send.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take_address(&self, address: IpAddr) -> anyhow::Result<()> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.contains(&address) {
            return Ok(());
        }
        self.run(move |runtime| runtime.block_on(add_address(address)))??;
        addresses.insert(address);
        Ok(())
    }

    /// A socket in the namespace, bound and not blocking.
    ///
    /// # Errors
    /// The kernel's.
    pub fn socket(&self, from: SocketAddr, kind: Type) -> io::Result<Socket> {
        self.run(move |_| {
            let socket = Socket::new(Domain::for_address(from), kind, None)?;
            socket.set_nonblocking(true)?;
            if kind == Type::STREAM {
                // A connection that has ended keeps its port towards one virtual server only.
                socket.set_reuse_address(true)?;
            }
            socket.bind(&SockAddr::from(from))?;
            Ok(socket)
        })
        .map_err(io::Error::other)?
    }

    /// Runs something inside.
    fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&tokio::runtime::Runtime) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let (answer, answered) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |runtime| {
            // Nobody waits any more: he has given up.
            let _ = answer.send(job(runtime));
        });
        self.jobs.send(job).ok().context("the thread of the probe namespace has ended")?;
        answered.recv_timeout(ANSWER).context("the thread of the probe namespace does not answer")
    }
}

/// Begins the thread that is inside; gives its namespace.
fn enter() -> anyhow::Result<(mpsc::Sender<Job>, OwnedFd)> {
    let (jobs, work) = mpsc::channel::<Job>();
    let (tell, told) = mpsc::sync_channel(1);
    thread::Builder::new().name("probe-net".to_owned()).spawn(move || {
        let runtime = match inside() {
            Ok((runtime, namespace)) => {
                let _ = tell.send(Ok(namespace));
                runtime
            }
            Err(error) => {
                let _ = tell.send(Err(error));
                return;
            }
        };
        for job in work {
            job(&runtime);
        }
    })?;
    Ok((jobs, told.recv_timeout(ANSWER).context("its thread does not begin")??))
}

fn inside() -> anyhow::Result<(tokio::runtime::Runtime, OwnedFd)> {
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => {}
        Err(nix::errno::Errno::EPERM) => bail!("not permitted: needs root, or CAP_SYS_ADMIN"),
        Err(error) => bail!("{}", error.desc()),
    }
    let namespace = File::open("/proc/thread-self/ns/net")?.into();
    Ok((tokio::runtime::Builder::new_current_thread().enable_all().build()?, namespace))
}

/// Makes the veth; gives the index of its end here.
async fn connect(
    handle: &Handle,
    name: &str,
    inside: &OwnedFd,
    outer_mac: [u8; 6],
    inner_mac: [u8; 6],
) -> anyhow::Result<u32> {
    if let Ok(old) = if_nametoindex(name) {
        // Of an agent that ended a moment ago; the kernel takes its time.
        let _ = handle.link().del(old).execute().await;
    }
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(INNER)
        .address(inner_mac.to_vec())
        .setns_by_fd(inside.as_raw_fd())
        .build();
    let pair = LinkVeth::new(name, INNER)
        .address(outer_mac.to_vec())
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    handle.link().add(pair).execute().await?;
    let link = if_nametoindex(name)?;
    handle.link().set(LinkUnspec::new_with_index(link).up().build()).execute().await?;
    Ok(link)
}

/// Inside: the features that XDP on the other end needs, and the way out.
async fn set_up(outer_mac: [u8; 6]) -> anyhow::Result<()> {
    // Checksums are finished here, as no card will do it.
    ethtool::set(INNER, ethtool::STXCSUM, false).context("checksums")?;
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let task = tokio::spawn(connection);
    let link = if_nametoindex(INNER)?;
    for index in [if_nametoindex("lo")?, link] {
        handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?;
    }
    // Frames that XDP sends here are taken only with this. Once it is up: before, the other end does not hear of it
    // (`veth_set_features`).
    ethtool::set(INNER, ethtool::SGRO, true).context("GRO")?;
    for gateway in [IpAddr::V4(GATEWAY4), IpAddr::V6(GATEWAY6)] {
        let routed = route(&handle, link, gateway, outer_mac).await;
        // A kernel without IPv6 is one where nobody wants it.
        if gateway.is_ipv4() {
            routed?;
        }
    }
    task.abort();
    Ok(())
}

async fn route(handle: &Handle, link: u32, gateway: IpAddr, mac: [u8; 6]) -> anyhow::Result<()> {
    handle.neighbours().add(link, gateway).link_layer_address(&mac).execute().await?;
    let route = match gateway {
        IpAddr::V4(gateway) => {
            RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(link).onlink().build()
        }
        IpAddr::V6(gateway) => {
            RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).output_interface(link).onlink().build()
        }
    };
    Ok(handle.route().add(route).execute().await?)
}

async fn add_address(address: IpAddr) -> anyhow::Result<()> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let task = tokio::spawn(connection);
    let link = if_nametoindex(INNER)?;
    let mut request = handle.address().add(link, address, if address.is_ipv4() { 32 } else { 128 }).replace();
    // Nobody else is here who could have it.
    request.message_mut().header.flags = AddressHeaderFlags::Nodad;
    let added = request.execute().await;
    task.abort();
    added.with_context(|| format!("address {address} in the probe namespace"))
}

/// At most 15 characters, and not the same for two instances of one machine.
fn name_for(instance: &str) -> String {
    let simple =
        instance.len() <= 7 && instance.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if simple {
        return format!("xdprobe-{instance}");
    }
    // FNV-1a: the same in every run.
    let hash = instance
        .bytes()
        .fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("xdprobe{hash:08x}")
}

/// A locally administered one.
fn random_mac() -> [u8; 6] {
    let mut mac = [0; 6];
    mac.fill_with(|| fastrand::u8(..));
    mac[0] = mac[0] & 0xfc | 2;
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        assert_eq!(name_for("default"), "xdprobe-default");
        let long = ["a-very-long-instance", "a-very-long-instancf", "with.dot", "longer-8"];
        let names: BTreeSet<String> = long.iter().map(|instance| name_for(instance)).collect();
        assert_eq!(names.len(), long.len());
        assert!(names.iter().all(|name| name.len() <= 15), "{names:?}");
    }

    #[test]
    fn macs_are_of_one_machine() {
        for _ in 0..100 {
            assert_eq!(random_mac()[0] & 3, 2);
        }
    }
}
