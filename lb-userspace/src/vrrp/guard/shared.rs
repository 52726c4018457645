//! The page of memory that agent and guard share.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{
        AtomicU8, AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Release},
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        mman::{MapFlags, ProtFlags, mmap, munmap},
        stat::fstat,
    },
    time::{ClockId, clock_gettime},
    unistd::ftruncate,
};

use crate::config::vrrp::MAX_VRRP_INSTANCES;

/// Size of the memory, in bytes: a page on most machines.
const SIZE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Says that it is this memory, and this layout of it.
const MAGIC: u64 = u64::from_ne_bytes(*b"xdguard1");

/// What lies in it. Both sides are the same program, so there is no other version to be compatible with.
#[derive(Debug)]
#[repr(C)]
pub struct Shared {
    magic: AtomicU64,
    /// When the driver last showed that it lives: nanoseconds of CLOCK_MONOTONIC.
    beat: AtomicU64,
    /// A [`Phase`].
    phase: AtomicU32,
    /// Keeps the banks apart from what changes often.
    _reserved: [u32; 11],
    /// Which instances are master. A plan has the bank of its generation (even or odd): positions mean something else in each
    /// plan, and at any moment one of them is in force as a whole.
    masters: [[AtomicU8; MAX_VRRP_INSTANCES]; 2],
}

const _: () = assert!(size_of::<Shared>() <= SIZE.get());
const _: () = assert!(std::mem::offset_of!(Shared, masters) == 64);

/// Who has the addresses in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// The agent.
    Agent = 0,
    /// The guard gives them up at this moment.
    Seized = 1,
    /// It has done so, and the agent has not noticed yet.
    Done = 2,
}

impl Shared {
    /// Who has the addresses in hand.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Acquire) {
            0 => Phase::Agent,
            1 => Phase::Seized,
            _ => Phase::Done,
        }
    }

    /// Goes from one phase to the next. False: it was another one, and nothing has changed. This decides between a driver that
    /// has just woken up and a guard that is about to act.
    pub fn change(&self, from: Phase, to: Phase) -> bool {
        self.phase.compare_exchange(from as u32, to as u32, AcqRel, Acquire).is_ok()
    }

    /// When the driver last showed that it lives.
    pub fn beat(&self) -> Duration {
        Duration::from_nanos(self.beat.load(Acquire))
    }

    /// The driver lives, at this time of [`monotonic`].
    pub fn set_beat(&self, at: Duration) {
        self.beat.store(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX), Release);
    }

    /// Whether an instance of the plan `generation` is master.
    pub fn is_master(&self, generation: u32, instance: usize) -> bool {
        self.bank(generation).get(instance).is_some_and(|word| word.load(Acquire) != 0)
    }

    /// Says that an instance of the plan `generation` is master, or not. One that no plan can have is left out.
    pub fn set_master(&self, generation: u32, instance: usize, is_master: bool) {
        if let Some(word) = self.bank(generation).get(instance) {
            word.store(is_master.into(), Release);
        }
    }

    /// The positions of those that are master, of `count` instances.
    pub fn masters(&self, generation: u32, count: usize) -> impl Iterator<Item = usize> {
        (0..count).filter(move |&instance| self.is_master(generation, instance))
    }

    /// None of them is master.
    pub fn clear_masters(&self, generation: u32) {
        self.bank(generation).iter().for_each(|word| word.store(0, Release));
    }

    fn bank(&self, generation: u32) -> &[AtomicU8; MAX_VRRP_INSTANCES] {
        &self.masters[generation as usize % 2]
    }
}

/// Now, on the clock that beats are given in. It stands still while the machine sleeps, for both sides.
pub fn monotonic() -> Duration {
    // The clock cannot be missing, and its nanoseconds are below 10^9.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// [`Shared`], mapped.
#[derive(Debug)]
pub struct Page {
    base: NonNull<Shared>,
    file: OwnedFd,
}

// SAFETY: the memory stays mapped until drop, and `Shared` is made of atomics only.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    /// New memory with a beat of this moment and no master. Its size is sealed: nobody can take it away from under the other.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn create() -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        // Linux 6.3 and later like to be told that it is no program (vm.memfd_noexec); earlier ones do not know the flag.
        let noexec = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
        let file = match memfd_create(c"xdirector-guard", flags | noexec) {
            Err(Errno::EINVAL) => memfd_create(c"xdirector-guard", flags)?,
            other => other?,
        };
        ftruncate(&file, SIZE.get() as libc::off_t)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        let page = Self::map(file)?;
        page.magic.store(MAGIC, Release);
        page.set_beat(monotonic());
        Ok(page)
    }

    /// The guard's view of what [`Page::create`] has made.
    ///
    /// # Errors
    /// When it is something else, or cannot be mapped.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        let sealed = fcntl(&file, FcntlArg::F_GET_SEALS).is_ok_and(|seals| seals & libc::F_SEAL_SHRINK != 0);
        if !sealed || fstat(&file)?.st_size != SIZE.get() as libc::off_t {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let page = Self::map(file)?;
        if page.magic.load(Acquire) != MAGIC {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(page)
    }

    fn map(file: OwnedFd) -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { mmap(None, SIZE, protection, MapFlags::MAP_SHARED, &file, 0) }?;
        Ok(Self { base: base.cast(), file })
    }
}

impl std::ops::Deref for Page {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        // SAFETY: SIZE bytes are mapped at the start of a page, cannot be cut off (sealed), and any bytes are a `Shared`.
        unsafe { self.base.as_ref() }
    }
}

impl AsFd for Page {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; nothing borrows it any more. It cannot fail with these values.
        let _ = unsafe { munmap(self.base.cast(), SIZE.get()) };
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _};

    use super::*;

    #[test]
    fn both_sides_see_the_same() {
        let agent = Page::create().unwrap();
        let guard = Page::open(agent.file.try_clone().unwrap()).unwrap();
        assert_eq!(guard.phase(), Phase::Agent);
        assert!(guard.beat() <= monotonic() && guard.beat() > Duration::ZERO);

        agent.set_beat(Duration::new(5, 7));
        assert_eq!(guard.beat(), Duration::new(5, 7));

        agent.set_master(1, 0, true);
        agent.set_master(1, MAX_VRRP_INSTANCES - 1, true);
        assert_eq!(guard.masters(1, MAX_VRRP_INSTANCES).collect::<Vec<_>>(), [0, MAX_VRRP_INSTANCES - 1]);
        assert_eq!(guard.masters(1, 5).collect::<Vec<_>>(), [0]);
        agent.set_master(1, 0, false);
        assert!(!guard.is_master(1, 0));
        guard.clear_masters(1);
        assert!(!agent.is_master(1, MAX_VRRP_INSTANCES - 1));
    }

    #[test]
    fn plans_have_banks_of_their_own() {
        let page = Page::create().unwrap();
        page.set_master(4, 3, true);
        assert!(page.is_master(4, 3) && !page.is_master(5, 3));
        page.set_master(5, 2, true);
        page.clear_masters(4);
        assert!(page.is_master(5, 2) && !page.is_master(4, 3));
    }

    #[test]
    fn no_position_is_outside() {
        let page = Page::create().unwrap();
        for instance in [MAX_VRRP_INSTANCES, usize::MAX] {
            page.set_master(0, instance, true);
            assert!(!page.is_master(0, instance));
        }
        assert_eq!(page.masters(0, usize::from(u16::MAX)).count(), 0);
        assert_eq!(page.masters(1, usize::from(u16::MAX)).count(), 0);
    }

    #[test]
    fn one_of_two_gets_the_phase() {
        let page = Page::create().unwrap();
        assert!(!page.change(Phase::Seized, Phase::Done));
        assert!(page.change(Phase::Agent, Phase::Seized));
        assert!(!page.change(Phase::Agent, Phase::Seized));
        assert_eq!(page.phase(), Phase::Seized);
        assert!(page.change(Phase::Seized, Phase::Done));
        assert!(page.change(Phase::Done, Phase::Agent));
        assert_eq!(page.phase(), Phase::Agent);
    }

    #[test]
    fn nobody_can_cut_it_off() {
        let page = Page::create().unwrap();
        assert_eq!(ftruncate(&page.file, 0), Err(Errno::EPERM));
        assert_eq!(fstat(&page.file).unwrap().st_size, 4096);
    }

    #[test]
    fn something_else_is_refused() {
        let file = File::from(memfd_create(c"zeros", MFdFlags::MFD_ALLOW_SEALING).unwrap());
        file.set_len(4096).unwrap();
        assert!(Page::open(file.try_clone().unwrap().into()).is_err(), "not sealed");
        fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
        assert!(Page::open(file.try_clone().unwrap().into()).is_err(), "no magic");
        (&file).write_all(&MAGIC.to_ne_bytes()).unwrap();
        assert!(Page::open(file.try_clone().unwrap().into()).is_ok());
        file.set_len(8192).unwrap();
        assert!(Page::open(file.into()).is_err(), "another size");
        assert!(Page::open(File::open("/dev/null").unwrap().into()).is_err(), "no such file");
    }
}
