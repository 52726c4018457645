//! System calls that aya does not offer (kernel/bpf/syscall.c): many elements of a map at once, and running a program from
//! another thread than the one that owns it.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_LINK_DETACH: libc::c_long = 34;

/// The part of `union bpf_attr` for batches.
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// How many elements one system call asks for: a few hundred kilobytes for the largest values.
const AT_ONCE: u32 = 4096;

/// Calls `each` with every element of a map, a key of `K` and `size` bytes of value (the kernel's, for all CPUs), until that
/// says false.
///
/// Elements that come or go meanwhile may be missed.
///
/// # Errors
/// The kernel's.
pub fn each<K: aya::Pod>(
    map: impl AsFd,
    size: usize,
    mut each: impl FnMut(K, &[u8]) -> bool,
) -> io::Result<()> {
    let mut keys = vec![0u8; AT_ONCE as usize * size_of::<K>()];
    let mut values = vec![0u8; AT_ONCE as usize * size];
    // A hash map's position is a number of 32 bits, an array's is its key.
    let (mut position, mut next) = ([0u64; 4], [0u64; 4]);
    let mut is_first = true;
    // A hash bucket that does not fit into what is left is refused with ENOSPC; ours are short.
    loop {
        let mut attr = Batch {
            in_batch: if is_first { 0 } else { position.as_mut_ptr() as u64 },
            out_batch: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: AT_ONCE,
            map_fd: map.as_fd().as_raw_fd() as u32,
            ..Batch::default()
        };
        // SAFETY: every pointer leads to as much memory as `count` elements need, and stays valid during the call.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attr, size_of::<Batch>()) };
        let error = (result < 0).then(io::Error::last_os_error);
        let is_end = match &error {
            None => false,
            // The end of the map.
            Some(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Some(_) => return Err(error.expect("just looked at")),
        };
        for index in 0..attr.count as usize {
            // SAFETY: as many bytes as a key has, and any bytes are one.
            let key = unsafe { keys.as_ptr().add(index * size_of::<K>()).cast::<K>().read_unaligned() };
            if !each(key, &values[index * size..(index + 1) * size]) {
                return Ok(());
            }
        }
        if is_end || attr.count == 0 {
            return Ok(());
        }
        std::mem::swap(&mut position, &mut next);
        is_first = false;
    }
}

/// The part of `union bpf_attr` for test runs.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    reserved: u32,
}

/// Runs an XDP program on an empty frame of the shortest length that the kernel takes; gives the frame's first four bytes
/// afterwards.
///
/// # Errors
/// The kernel's.
pub fn run_on_empty_frame(program: impl AsFd) -> io::Result<u32> {
    let (frame, mut told) = ([0u8; 64], [0u8; 64]);
    let mut attr = TestRun {
        prog_fd: program.as_fd().as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_size_out: told.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: told.as_mut_ptr() as u64,
        ..TestRun::default()
    };
    // SAFETY: both pointers lead to as many bytes as the sizes say, and stay valid during the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attr, size_of::<TestRun>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::from_ne_bytes([told[0], told[1], told[2], told[3]]))
}

/// What a pinned link of an XDP program says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpLinkInfo {
    /// Number of the program.
    pub program: u32,
    /// Index of the interface in the namespace of the link; 0: the interface is gone.
    pub ifindex: u32,
}

/// Looks at a pinned link (`struct bpf_link_info`).
///
/// # Errors
/// The kernel's, and when it is a link of another kind.
pub fn xdp_link_info(path: &Path) -> io::Result<XdpLinkInfo> {
    const BPF_LINK_TYPE_XDP: u32 = 6;
    #[repr(C)]
    #[derive(Default)]
    struct GetInfo {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let fd = open_pinned(path)?;
    // type, id, prog_id, padding, ifindex.
    let mut info = [0u32; 16];
    let mut ask = GetInfo {
        bpf_fd: fd.as_raw_fd() as u32,
        info_len: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: as much memory as is told.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw mut ask, size_of::<GetInfo>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if info[0] != BPF_LINK_TYPE_XDP {
        return Err(io::Error::other(format!("{} is no link of an XDP program", path.display())));
    }
    Ok(XdpLinkInfo { program: info[2], ifindex: info[4] })
}

/// Takes the program of a pinned link off its interface, at once; removing the pin would do that some time later.
///
/// # Errors
/// The kernel's.
pub fn detach_link(path: &Path) -> io::Result<()> {
    let link = open_pinned(path)?;
    let mut attr = link.as_raw_fd() as u32;
    // SAFETY: this command's part of `union bpf_attr` is one descriptor.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, &raw mut attr, size_of_val(&attr)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct ObjGet {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut get = ObjGet { pathname: name.as_ptr() as u64, ..ObjGet::default() };
    // SAFETY: a path that ends with a zero byte.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw mut get, size_of::<ObjGet>()) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
