//! Attaching the program to interfaces.

use std::{fmt::Write as _, io};

use aya::{
    programs::{ProgramError, Xdp, XdpMode as AyaMode, loaded_programs, xdp::XdpLink},
    sys::SyscallError,
};
use futures_util::TryStreamExt;
use netlink_packet_route::link::{LinkAttribute, LinkXdp, XdpAttached};

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
         xdp off`, or give xdirector another interface"
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

/// Where and how the program is attached. Dropping it detaches.
pub struct Attachment {
    /// Name of the interface.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// How.
    pub mode: Attached,
    _link: XdpLink,
}

/// Checks that every interface is there and free; gives their indices.
///
/// # Errors
/// [`AttachError::Missing`], [`AttachError::Occupied`] or [`AttachError::Netlink`].
pub async fn check(names: &[String]) -> Result<Vec<u32>, AttachError> {
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
    let mut indices = Vec::new();
    for name in names {
        let Some(link) = links.iter().find(|link| name_of(&link.attributes).as_ref() == Some(name)) else {
            let others = links.iter().filter_map(|link| name_of(&link.attributes)).collect();
            return Err(AttachError::Missing { name: name.clone(), others });
        };
        if let Some(id) = occupant(&link.attributes) {
            return Err(AttachError::Occupied { name: name.clone(), program: program_name(id), id });
        }
        indices.push(link.header.index);
    }
    Ok(indices)
}

/// The number of the XDP program on an interface.
fn occupant(attributes: &[LinkAttribute]) -> Option<u32> {
    let xdp = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    })?;
    let is_attached =
        xdp.iter().any(|part| matches!(part, LinkXdp::Attached(how) if !matches!(how, XdpAttached::None)));
    let id = xdp.iter().find_map(|part| match part {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    });
    if is_attached { Some(id.unwrap_or(0)) } else { None }
}

fn program_name(id: u32) -> String {
    loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "without a name".to_owned())
}

/// Attaches the program to one interface.
///
/// # Errors
/// [`AttachError::NotNative`] or [`AttachError::Refused`].
pub fn attach(program: &mut Xdp, name: &str, ifindex: u32, mode: XdpMode) -> Result<Attachment, AttachError> {
    let native = |program: &mut Xdp| attach_as(program, name, ifindex, Attached::Native);
    match mode {
        XdpMode::Native => native(program)
            .map_err(|error| AttachError::NotNative { name: name.to_owned(), error: plain(&error) }),
        XdpMode::Generic => attach_as(program, name, ifindex, Attached::Generic)
            .map_err(|error| AttachError::Refused { name: name.to_owned(), error: plain(&error) }),
        XdpMode::Auto => native(program).or_else(|error| {
            tracing::warn!(
                "interface {name} cannot run XDP in its driver ({}); using generic mode, which is slower",
                plain(&error)
            );
            attach_as(program, name, ifindex, Attached::Generic)
                .map_err(|error| AttachError::Refused { name: name.to_owned(), error: plain(&error) })
        }),
    }
}

fn attach_as(
    program: &mut Xdp,
    name: &str,
    ifindex: u32,
    mode: Attached,
) -> Result<Attachment, ProgramError> {
    let aya_mode = match mode {
        Attached::Native => AyaMode::Driver,
        Attached::Generic => AyaMode::Skb,
    };
    let id = program.attach_to_if_index(ifindex, aya_mode)?;
    // On EINVAL aya attaches by netlink instead of by a BPF link; no kernel that has all the rest gives that answer. Dropping
    // detaches both kinds.
    let link = program.take_link(id)?;
    Ok(Attachment { name: name.to_owned(), ifindex, mode, _link: link })
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
