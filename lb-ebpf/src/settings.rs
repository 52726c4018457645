//! What the agent sets before it loads the program: read-only memory, so constants to the verifier, which removes
//! what is switched off.

use aya_ebpf::Global;
use lb_common::{
    FlowHash, FlowKey,
    conn::STATES,
    flow::HashKeys,
    settings::{SETTINGS as NAME, Settings},
};

const _: () = assert!(matches!(NAME.as_bytes(), b"SETTINGS"));

#[unsafe(no_mangle)]
static SETTINGS: Global<Settings> = Global::new(Settings {
    hash_keys: HashKeys([0; 10]),
    buckets: 0,
    clock_shift: 0,
    netns_cookie: [0; 2],
    fragment_timeout: 0,
    reserved: 0,
    timeouts: [0; STATES],
});

/// Whether debug events are sent to the agent; 0 removes them from the program.
#[unsafe(no_mangle)]
static TRACE: Global<u8> = Global::new(0);

/// One word of the settings, by its number. `Global::load` would copy all of them for each.
#[inline(always)]
fn word(number: usize) -> u32 {
    let base = (&raw const SETTINGS).cast::<u32>();
    // SAFETY: the callers below pass numbers of words inside `Settings`, which is words only, and `Global<T>` is
    // transparent. Volatile, because the compiler believes in the initial value.
    unsafe { base.add(number).read_volatile() }
}

/// The flow's hash under this program's secret.
#[inline(always)]
pub fn hash(flow: &FlowKey) -> FlowHash {
    const AT: usize = core::mem::offset_of!(Settings, hash_keys) / 4;
    let k = |i: usize| word(AT + i);
    flow.hash(&HashKeys([k(0), k(1), k(2), k(3), k(4), k(5), k(6), k(7), k(8), k(9)]))
}

/// [`hash`] for paths where its size counts more than its speed.
#[inline(always)]
pub fn hash_slowly(flow: &FlowKey) -> FlowHash {
    // SAFETY: a reference is a valid pointer.
    FlowHash::from_raw(unsafe { settings_hash(flow) })
}

#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn settings_hash(flow: *const FlowKey) -> u64 {
    // SAFETY: null or a flow, by the contract of this function.
    unsafe { flow.as_ref() }.map_or(0, |flow| hash(flow).to_raw())
}

/// Buckets of the connection table.
#[inline(always)]
pub fn buckets() -> u32 {
    word(core::mem::offset_of!(Settings, buckets) / 4)
}

/// The network namespace whose own connections are balanced.
#[inline(always)]
pub fn netns_cookie() -> u64 {
    const AT: usize = core::mem::offset_of!(Settings, netns_cookie) / 4;
    word(AT) as u64 | (word(AT + 1) as u64) << 32
}

/// The present time in ticks.
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: a helper without arguments; the kernel replaces it by a load.
    let jiffies = unsafe { aya_ebpf::helpers::generated::bpf_jiffies64() };
    (jiffies >> (word(core::mem::offset_of!(Settings, clock_shift) / 4) & 31)) as u32
}

/// Ticks after which the fragments of a packet are forgotten.
#[inline(always)]
pub fn fragment_timeout() -> u32 {
    word(core::mem::offset_of!(Settings, fragment_timeout) / 4)
}

/// Ticks after which a connection in `state` is forgotten.
#[inline(always)]
pub fn timeout(state: u8) -> u32 {
    word(core::mem::offset_of!(Settings, timeouts) / 4 + (state as usize & (STATES - 1)))
}

/// Whether debug events are wanted.
#[inline(always)]
pub fn trace() -> bool {
    TRACE.load() != 0
}
