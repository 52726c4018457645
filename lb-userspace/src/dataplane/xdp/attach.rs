//! Attaching the program to interfaces.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    programs::{
        ProgramError, Xdp, XdpMode as AyaMode,
        links::{FdLink, LinkError, PinnedLink},
        loaded_programs,
        xdp::XdpLink,
    },
    sys::SyscallError,
};
use futures_util::TryStreamExt;
use netlink_packet_route::link::{LinkAttribute, LinkXdp, XdpAttached};

use super::{pins::Pins, syscall};
use crate::{api::types::XdpMode as Attached, config::XdpMode};

/// Why the program is not attached to an interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The configuration names an interface that is not there.
    #[error("interface {name} does not exist{}", seen(.others))]
    Missing {
        /// The interface.
        name: String,
        /// Those that are there.
        others: Vec<String>,
    },
    /// Somebody else's program is attached.
    #[error(
        "interface {name} already has an XDP program: {program} (id {id}); detach it with `ip link set dev {name} \
         xdp off` or `bpftool link detach`, or give xdirector another interface"
    )]
    Occupied {
        /// The interface.
        name: String,
        /// The program's name.
        program: String,
        /// Its number in the kernel.
        id: u32,
    },
    /// The driver cannot, and the configuration insists.
    #[error(
        "interface {name} cannot run XDP in its driver ({error}); xdp_mode = \"generic\" or \"auto\" runs it in the \
         kernel's network stack"
    )]
    NotNative {
        /// The interface.
        name: String,
        /// The kernel's answer.
        error: String,
    },
    /// Anything else.
    #[error("cannot attach to interface {name}: {error}")]
    Refused {
        /// The interface.
        name: String,
        /// The kernel's answer.
        error: String,
    },
    /// Netlink did not work.
    #[error("cannot ask the kernel about its interfaces: {0}")]
    Netlink(String),
}

fn seen(others: &[String]) -> String {
    let mut text = String::new();
    if !others.is_empty() {
        let _ = write!(text, "; there are {}", others.join(", "));
    }
    text
}

/// Where and how the program is attached.
pub struct Attachment {
    /// Name of the interface.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// How.
    pub mode: Attached,
    hold: Hold,
}

/// What keeps the program attached.
enum Hold {
    /// This process; dropping it detaches.
    Process(XdpLink),
    /// A pin, which outlives the process.
    Pin(PathBuf),
}

impl Attachment {
    /// Detaches, also what is pinned.
    pub fn detach(self) {
        if let Hold::Pin(path) = self.hold {
            // Removing the pin detaches too, only later.
            let _ = syscall::detach_link(&path);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!("cannot remove {}: {error}", path.display());
            }
        }
    }

    /// Whether the program with this number still is on the interface: somebody may have detached or replaced it, or have
    /// deleted the interface.
    pub fn is_there(&self, program: u32) -> bool {
        match &self.hold {
            Hold::Process(_) => true,
            Hold::Pin(path) => syscall::xdp_link_info(path)
                .is_ok_and(|link| (link.ifindex, link.program) == (self.ifindex, program)),
        }
    }
}

/// An interface of the configuration, as it is now.
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// How a program is attached, if one is.
    mode: Option<Attached>,
}

/// Checks that every interface is there and free, or has a program that an earlier agent has pinned.
///
/// # Errors
/// [`AttachError::Missing`], [`AttachError::Occupied`] or [`AttachError::Netlink`].
pub async fn check(names: &[String], pins: Option<&Pins>) -> Result<Vec<Interface>, AttachError> {
    let own = own_programs(pins);
    let netlink = |error: &dyn std::fmt::Display| AttachError::Netlink(error.to_string());
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| netlink(&error))?;
    let connection = tokio::spawn(connection);
    let links: Result<Vec<_>, _> = handle.link().get().execute().try_collect().await;
    connection.abort();
    let links = links.map_err(|error| netlink(&error))?;
    let name_of = |attributes: &[LinkAttribute]| {
        attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })
    };
    let mut interfaces = Vec::new();
    for name in names {
        let Some(link) = links.iter().find(|link| name_of(&link.attributes).as_ref() == Some(name)) else {
            let others = links.iter().filter_map(|link| name_of(&link.attributes)).collect();
            return Err(AttachError::Missing { name: name.clone(), others });
        };
        let occupant = occupant(&link.attributes);
        if let Some((id, _)) = occupant
            && !own.contains(&id)
        {
            return Err(AttachError::Occupied { name: name.clone(), program: program_name(id), id });
        }
        let mode = occupant.map(|(_, mode)| mode);
        interfaces.push(Interface { name: name.clone(), ifindex: link.header.index, mode });
    }
    Ok(interfaces)
}

/// The numbers of the programs that earlier agents have pinned.
fn own_programs(pins: Option<&Pins>) -> BTreeSet<u32> {
    let Some(pins) = pins else { return BTreeSet::new() };
    let own = pins.linked_interfaces().unwrap_or_default();
    let links = own.iter().map(|name| pins.link(name)).chain(pins.foreign_links().into_values());
    links.filter_map(|path| syscall::xdp_link_info(&path).ok()).map(|link| link.program).collect()
}

/// The number of the XDP program on an interface, and how it is attached.
fn occupant(attributes: &[LinkAttribute]) -> Option<(u32, Attached)> {
    let xdp = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    })?;
    let mode = xdp.iter().find_map(|part| match part {
        LinkXdp::Attached(XdpAttached::None) => None,
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(Attached::Generic),
        LinkXdp::Attached(_) => Some(Attached::Native),
        _ => None,
    })?;
    let id = xdp.iter().find_map(|part| match part {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    });
    Some((id.unwrap_or(0), mode))
}

fn program_name(id: u32) -> String {
    loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "without a name".to_owned())
}

/// Brings the program to every interface, or to none that has not had one. Where an earlier agent has pinned its program, that
/// is replaced in one step; so no packet is missed.
///
/// # Errors
/// [`AttachError::NotNative`] or [`AttachError::Refused`].
pub fn attach_all(
    program: &mut Xdp,
    interfaces: &[Interface],
    mode: XdpMode,
    pins: Option<&Pins>,
) -> Result<Vec<Attachment>, AttachError> {
    let mut attachments = Vec::new();
    // New ones first: they may fail, and then nothing has changed.
    let (taken, new): (Vec<_>, Vec<_>) =
        interfaces.iter().partition(|interface| pinned_link(interface, mode, pins).is_some());
    for interface in new {
        match attach(program, &interface.name, interface.ifindex, mode, pins) {
            Ok(attachment) => attachments.push(attachment),
            Err(error) => {
                attachments.into_iter().for_each(Attachment::detach);
                if let Some(before) = interface.mode {
                    // It served in another mode, and does so again.
                    let _ = attach_as(program, &interface.name, interface.ifindex, before, pins)
                        .inspect_err(|error| tracing::error!("interface {}: {error}", interface.name));
                }
                return Err(error);
            }
        }
    }
    for interface in taken {
        let replaced =
            pinned_link(interface, mode, pins).map(|path| replace(program, interface, &path, pins));
        if let Some(attachment) = replaced {
            attachments.push(attachment?);
        }
    }
    attachments.sort_by_key(|attachment| interfaces.iter().position(|one| one.name == attachment.name));
    Ok(attachments)
}

/// Whether any link that an earlier agent has pinned still leads to an interface.
pub fn any_alive(pins: &Pins) -> bool {
    let own = pins.linked_interfaces().unwrap_or_default();
    own.iter().any(|name| syscall::xdp_link_info(&pins.link(name)).is_ok_and(|link| link.ifindex != 0))
}

/// Removes the pins of links to interfaces that are not in use: the program leaves them.
pub fn release_others(names: &[String], pins: &Pins) {
    for name in pins.linked_interfaces().unwrap_or_default() {
        if !names.contains(&name) {
            tracing::info!("interface {name} is not in use any more: detached");
            if let Err(error) = fs::remove_file(pins.link(&name)) {
                tracing::warn!("cannot detach from interface {name}: {error}");
            }
        }
    }
}

/// The link that an earlier agent has pinned for an interface, if it still leads there and in the mode that is wanted.
fn pinned_link(interface: &Interface, mode: XdpMode, pins: Option<&Pins>) -> Option<PathBuf> {
    let pins = pins?;
    let is_own_name = pins.link(&interface.name);
    let fits = match mode {
        XdpMode::Auto => true,
        XdpMode::Native => interface.mode == Some(Attached::Native),
        XdpMode::Generic => interface.mode == Some(Attached::Generic),
    };
    // Under another name: the interface has been renamed.
    let renamed = pins.linked_interfaces().unwrap_or_default().into_iter().map(|name| pins.link(&name));
    let paths = std::iter::once(is_own_name).chain(renamed).chain(pins.foreign_links().into_values());
    let leads_there =
        |path: &PathBuf| syscall::xdp_link_info(path).is_ok_and(|link| link.ifindex == interface.ifindex);
    paths.into_iter().find(leads_there).filter(|_| fits)
}

fn replace(
    program: &mut Xdp,
    interface: &Interface,
    path: &Path,
    pins: Option<&Pins>,
) -> Result<Attachment, AttachError> {
    let refused = |error: &dyn std::fmt::Display| AttachError::Refused {
        name: interface.name.clone(),
        error: error.to_string(),
    };
    let link = PinnedLink::from_pin(path).map_err(|error| refused(&error))?;
    let link = XdpLink::try_from(FdLink::from(link)).map_err(|error| refused(&error))?;
    let id = program.attach_to_link(link).map_err(|error| refused(&plain(&error)))?;
    let link = program.take_link(id).map_err(|error| refused(&error))?;
    let mut pin = path.to_owned();
    if let Some(pins) = pins
        && pins.link(&interface.name) != path
    {
        // Left by an agent with other maps.
        pin = pins.link(&interface.name);
        FdLink::try_from(link)
            .map_err(|error| refused(&error))?
            .pin(&pin)
            .map_err(|error| refused(&error))?;
    }
    let mode = interface.mode.unwrap_or(Attached::Native);
    Ok(Attachment { name: interface.name.clone(), ifindex: interface.ifindex, mode, hold: Hold::Pin(pin) })
}

/// Replaces the program on an interface that this process holds without a pin, in one step.
///
/// # Errors
/// [`AttachError::Refused`]; then it is detached.
pub fn take_over(program: &mut Xdp, attachment: Attachment) -> Result<Attachment, AttachError> {
    let Attachment { name, ifindex, mode, hold } = attachment;
    let refused = |error: String| AttachError::Refused { name: name.clone(), error };
    let hold = match hold {
        Hold::Process(link) => {
            let id = program.attach_to_link(link).map_err(|error| refused(plain(&error)))?;
            Hold::Process(program.take_link(id).map_err(|error| refused(error.to_string()))?)
        }
        pinned @ Hold::Pin(_) => pinned,
    };
    Ok(Attachment { name, ifindex, mode, hold })
}

/// Attaches the program to one interface.
///
/// # Errors
/// [`AttachError::NotNative`] or [`AttachError::Refused`].
pub fn attach(
    program: &mut Xdp,
    name: &str,
    ifindex: u32,
    mode: XdpMode,
    pins: Option<&Pins>,
) -> Result<Attachment, AttachError> {
    if let Some(pins) = pins {
        // Pins that lead nowhere, or not as they should. The kernel takes one program and one mode at a time.
        let foreign = pins.foreign_links().remove(name);
        for path in foreign.into_iter().chain([pins.link(name)]) {
            let _ = syscall::detach_link(&path);
            let _ = fs::remove_file(path);
        }
    }
    let native = |program: &mut Xdp| attach_as(program, name, ifindex, Attached::Native, pins);
    let refused =
        |error: NotAttached| AttachError::Refused { name: name.to_owned(), error: error.to_string() };
    match mode {
        XdpMode::Native => native(program)
            .map_err(|error| AttachError::NotNative { name: name.to_owned(), error: error.to_string() }),
        XdpMode::Generic => attach_as(program, name, ifindex, Attached::Generic, pins).map_err(refused),
        XdpMode::Auto => native(program).or_else(|error| {
            tracing::warn!(
                "interface {name} cannot run XDP in its driver ({error}); using generic mode, which is slower"
            );
            attach_as(program, name, ifindex, Attached::Generic, pins).map_err(refused)
        }),
    }
}

/// Why one way of attaching failed.
#[derive(Debug, thiserror::Error)]
enum NotAttached {
    #[error("{}", plain(.0))]
    Program(#[from] ProgramError),
    #[error("the kernel gave no link that can be pinned")]
    NoLink(#[from] LinkError),
    #[error("cannot pin the link: {0}")]
    Pin(#[from] aya::pin::PinError),
}

fn attach_as(
    program: &mut Xdp,
    name: &str,
    ifindex: u32,
    mode: Attached,
    pins: Option<&Pins>,
) -> Result<Attachment, NotAttached> {
    let aya_mode = match mode {
        Attached::Native => AyaMode::Driver,
        Attached::Generic => AyaMode::Skb,
    };
    let id = program.attach_to_if_index(ifindex, aya_mode)?;
    // On EINVAL aya attaches by netlink instead of by a BPF link; no kernel that has all the rest gives that answer. Such a link
    // cannot be pinned, which is an error below; dropping detaches both kinds.
    let link = program.take_link(id)?;
    let hold = match pins {
        None => Hold::Process(link),
        Some(pins) => {
            let path = pins.link(name);
            // Somebody may have removed it.
            let _ = path.parent().map(fs::create_dir_all);
            FdLink::try_from(link)?.pin(&path)?;
            Hold::Pin(path)
        }
    };
    Ok(Attachment { name: name.to_owned(), ifindex, mode, hold })
}

/// The kernel's own words, without the wrapping.
fn plain(error: &ProgramError) -> String {
    match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => words(io_error),
        other => other.to_string(),
    }
}

fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EBUSY) => "another XDP program is attached".to_owned(),
        Some(libc::EOPNOTSUPP) => "the driver has no XDP, or not for this MTU or queue set-up".to_owned(),
        Some(libc::EPERM) => "not permitted: needs root, or CAP_NET_ADMIN and CAP_BPF".to_owned(),
        _ => error.to_string(),
    }
}
