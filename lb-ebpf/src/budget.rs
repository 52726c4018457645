//! How much of a rare thing one CPU may do in one second.

use aya_ebpf::{helpers::generated::bpf_ktime_get_coarse_ns, macros::map, maps::PerCpuArray};

/// What is limited.
#[derive(Clone, Copy)]
pub enum Budget {
    /// Debug events.
    Trace = 0,
    /// ICMP errors of our own: without a limit anybody could make the director send them to anybody else. The
    /// number is the kernel's `icmp_msgs_per_sec`.
    Reply = 1,
}

impl Budget {
    const fn per_second(self) -> u64 {
        match self {
            Self::Trace => 100,
            Self::Reply => 1000,
        }
    }
}

/// For each budget the second in which this CPU counts and what it has spent in it. A second has 2^30 ns here.
#[map]
static BUDGETS: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(2, 0);

/// Spends one, if there is one left in this second.
#[inline(always)]
pub fn may_spend(what: Budget) -> bool {
    let Some(budget) = BUDGETS.get_ptr_mut(what as u32) else { return false };
    // SAFETY: this CPU's own value; a helper without arguments.
    unsafe {
        let second = bpf_ktime_get_coarse_ns() >> 30;
        if (*budget)[0] != second {
            *budget = [second, 0];
        }
        (*budget)[1] += 1;
        (*budget)[1] <= what.per_second()
    }
}
