//! Bringing the program into the kernel, and saying plainly why that failed.

use std::{io, time::Duration};

use aya::{
    Ebpf, EbpfError, EbpfLoader, include_bytes_aligned,
    maps::MapError,
    programs::{Program, ProgramError},
};
use lb_common::{
    conn::{Clock, STATES, State, WAYS, buckets_for},
    flow::HashKeys,
    fragment, map_name,
    settings::{SETTINGS, Settings, TRACE},
};

use super::{local, pins::Pins};
use crate::config::Timeouts;

/// The program, as `cargo xtask build` made it; empty when it was not built.
pub static OBJECT: &[u8] = include_bytes_aligned!(env!("XDIRECTOR_XDP_OBJECT_COPY"));

/// Name of the program inside the object.
pub const PROGRAM: &str = "xdirector";

/// The oldest kernel (major, minor) that has everything, and what it brought: atomic operations, `bpf_check_mtu`.
const OLDEST_KERNEL: (u32, u32) = (5, 12);

/// How large the maps are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// NAT connections that surely fit.
    pub max_connections: u32,
    /// Virtual servers.
    pub services: u32,
    /// Real servers.
    pub servers: u32,
    /// Slots of all virtual servers.
    pub slots: u32,
}

impl Sizes {
    /// Whether maps of this size hold what `wanted` was made for, with some room to spare (`tables::sizes_for` doubles
    /// what is needed).
    pub fn holds(&self, wanted: &Self) -> bool {
        let enough = |have: u32, want: u32| u64::from(have) * 4 >= u64::from(want) * 3;
        enough(self.services, wanted.services)
            && enough(self.servers, wanted.servers)
            && enough(self.slots, wanted.slots)
    }

    /// No map smaller than `least`.
    #[must_use]
    pub fn at_least(self, least: &Self) -> Self {
        Self {
            max_connections: self.max_connections,
            services: self.services.max(least.services),
            servers: self.servers.max(least.servers),
            slots: self.slots.max(least.slots),
        }
    }
}

/// Why the program is not in the kernel.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// This binary carries no program.
    #[error("this xdirector was built without its XDP program; build it with `cargo xtask build`")]
    NotBuilt,
    /// The kernel does not allow it.
    #[error("not allowed to {0}: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    NotAllowed(&'static str),
    /// The kernel lacks something.
    #[error(
        "Linux {release} is too old: XDP balancing needs {}.{} or later (BPF atomic operations, bpf_check_mtu)",
        OLDEST_KERNEL.0, OLDEST_KERNEL.1
    )]
    TooOld {
        /// What `uname -r` says.
        release: String,
    },
    /// The kernel has no memory for a map.
    #[error(
        "no memory for map {map} ({error}); director.max_connections = {max_connections} needs about {mib} MiB \
         of kernel memory"
    )]
    NoMemory {
        /// The map.
        map: String,
        /// The kernel's answer.
        error: io::Error,
        /// As configured.
        max_connections: u32,
        /// What the table takes.
        mib: u64,
    },
    /// The verifier refused the program.
    #[error("the kernel's verifier refuses the program ({error}); it says last:\n{tail}")]
    Verifier {
        /// The kernel's answer.
        error: io::Error,
        /// The last lines of its log.
        tail: String,
    },
    /// Anything else.
    #[error("cannot load the XDP program: {0}")]
    Other(#[from] EbpfError),
}

/// Loads the program and its maps, not yet attached to anything.
///
/// # Errors
/// See [`LoadError`].
pub fn load(
    object: &[u8],
    sizes: Sizes,
    settings: &Settings,
    trace: bool,
    pins: Option<&Pins>,
) -> Result<Ebpf, LoadError> {
    if object.is_empty() {
        return Err(LoadError::NotBuilt);
    }
    let trace = u8::from(trace);
    let buckets = settings.buckets;
    let mut loader = EbpfLoader::new();
    for name in map_name::ALL.into_iter().filter(|_| pins.is_some()) {
        if let Some(pins) = pins {
            // Taken from there if it is there already, else made and pinned there.
            loader.map_pin_path(name, pins.map(name));
        }
    }
    let mut ebpf = loader
        .override_global(SETTINGS, settings, true)
        .override_global(TRACE, &trace, true)
        .map_max_entries(map_name::SERVICES, sizes.services)
        .map_max_entries(map_name::CURSORS, sizes.services)
        .map_max_entries(map_name::SLOTS, sizes.slots)
        .map_max_entries(map_name::SERVERS, sizes.servers)
        .map_max_entries(map_name::LOADS, sizes.servers)
        .map_max_entries(map_name::NAT_SERVERS, sizes.servers)
        .map_max_entries(map_name::SERVER_STATS, sizes.servers)
        .map_max_entries(map_name::TAGS, buckets)
        .map_max_entries(map_name::CONNECTIONS, buckets * WAYS)
        .load(object)
        .map_err(|error| explain(error, sizes))?;
    for (_, program) in ebpf.programs_mut() {
        let loaded = match program {
            Program::Xdp(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            _ => continue,
        };
        loaded.map_err(|error| explain(EbpfError::ProgramError(error), sizes))?;
    }
    Ok(ebpf)
}

/// The settings of a program for this configuration.
pub fn settings(clock: Clock, max_connections: u32, timeouts: &Timeouts, hash_keys: HashKeys) -> Settings {
    Settings {
        hash_keys,
        buckets: buckets_for(max_connections),
        clock_shift: clock.shift(),
        netns_cookie: local::netns_cookie(),
        fragment_timeout: clock.ticks(fragment::TIMEOUT),
        reserved: 0,
        timeouts: state_timeouts(clock, timeouts),
    }
}

/// A new secret for the flow hash.
///
/// # Errors
/// When the kernel gives no random numbers.
pub fn new_hash_keys() -> io::Result<HashKeys> {
    let mut random = [0u8; 40];
    let mut filled = 0;
    while filled < random.len() {
        let rest = &mut random[filled..];
        // SAFETY: writes at most `rest.len()` bytes to `rest`.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        filled += usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    }
    let mut keys = [0; 10];
    for (key, bytes) in keys.iter_mut().zip(random.chunks_exact(4)) {
        *key = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    Ok(HashKeys(keys))
}

/// By state: after how many ticks without a packet a connection is forgotten. The configuration sets what `ipvsadm
/// --set` sets; all others are IPVS's.
pub fn state_timeouts(clock: Clock, timeouts: &Timeouts) -> [u32; STATES] {
    let in_ticks = |time: Duration| clock.ticks(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    let mut table = [0; STATES];
    for state in State::ALL {
        table[state as usize] = in_ticks(match state {
            State::Established => timeouts.tcp,
            State::FinWait => timeouts.tcp_fin,
            State::Udp => timeouts.udp,
            other => Duration::from_secs(other.default_timeout().into()),
        });
    }
    table
}

fn explain(error: EbpfError, sizes: Sizes) -> LoadError {
    /// Lines of the verifier's log that are worth showing: the refused instruction and its reason stand at the end.
    const TAIL: usize = 12;
    if let Some(release) = too_old() {
        return LoadError::TooOld { release };
    }
    match error {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) if is_refusal(&io_error) => {
            LoadError::NotAllowed("create BPF maps")
        }
        EbpfError::MapError(MapError::CreateError { name, io_error })
            if matches!(io_error.raw_os_error(), Some(libc::ENOMEM | libc::E2BIG)) =>
        {
            let places = u64::from(buckets_for(sizes.max_connections)) * u64::from(WAYS);
            LoadError::NoMemory {
                map: name,
                error: io_error,
                max_connections: sizes.max_connections,
                mib: places * 68 / (1 << 20) + 1,
            }
        }
        EbpfError::ProgramError(ProgramError::LoadError { io_error, verifier_log }) => {
            let log = verifier_log.to_string();
            if is_refusal(&io_error) && log.trim().is_empty() {
                return LoadError::NotAllowed("load BPF programs");
            }
            let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
            let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
            LoadError::Verifier { error: io_error, tail }
        }
        other => LoadError::Other(other),
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}

/// The running kernel's release if it is too old.
fn too_old() -> Option<String> {
    let release = nix::sys::utsname::uname().ok()?.release().to_string_lossy().into_owned();
    is_too_old(&release).then_some(release)
}

fn is_too_old(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) < OLDEST_KERNEL,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        assert!(is_too_old("5.4.0-150-generic") && is_too_old("5.11.22") && is_too_old("4.19.0-1-amd64"));
        assert!(!is_too_old("5.12.0") && !is_too_old("6.1.0-37-amd64") && !is_too_old("10.0.1"));
        assert!(!is_too_old("something else"));
    }

    #[test]
    fn only_the_three_configured_times_differ_from_those_of_ipvs() {
        let timeouts = Timeouts {
            tcp: Duration::from_secs(30),
            tcp_fin: Duration::from_secs(20),
            udp: Duration::from_secs(10),
        };
        let clock = Clock::new(1_000_000);
        let table = state_timeouts(clock, &timeouts);
        let seconds = |state: State| f64::from(table[state as usize]) * 0.016;
        assert!((seconds(State::Established) - 30.0).abs() < 0.1);
        assert!((seconds(State::FinWait) - 20.0).abs() < 0.1);
        assert!((seconds(State::Udp) - 10.0).abs() < 0.1);
        assert!((seconds(State::SynRecv) - 60.0).abs() < 0.1);
        assert_eq!(table[0], 0);
    }
}
