//! Whether somebody else than root could put another program in a program's place.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

/// As many symbolic links as the kernel follows.
const MAX_LINKS: usize = 40;
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Checks that nobody but root can change what is executed as `program`: the file, its directories, every symbolic
/// link on the way and theirs belong to root, and neither group nor others may write (keepalived's
/// `enable_script_security`). A directory with the sticky bit, as /tmp, may be written: there nobody can replace
/// what belongs to root.
///
/// Scripts among the arguments, as of `/bin/sh SCRIPT`, and interpreters (`#!`) are not looked at.
///
/// # Errors
/// What is wrong and what to do, or which file cannot be looked at.
pub fn check_safe(program: &Path) -> Result<(), String> {
    inspect(program).map_err(|error| error.to_string())
}

/// [`check_safe`] with [`io::ErrorKind::PermissionDenied`] for what is wrong, and another kind when a file cannot be
/// looked at.
pub(super) fn inspect(program: &Path) -> io::Result<()> {
    let refuse = |why: String| {
        let program = program.display();
        io::Error::new(io::ErrorKind::PermissionDenied, format!("refusing to run {program} as root: {why}"))
    };
    if !program.is_absolute() {
        return Err(refuse("the path is not absolute; give it from / on".into()));
    }
    let mut left = components(program);
    let mut here = PathBuf::from("/");
    let mut links = 0;
    let mut metadata = look_at(&here)?;
    check_root_only(&here, &metadata).map_err(refuse)?;
    while let Some(component) = left.pop_front() {
        if !metadata.is_dir() {
            let why = format!("{} is not a directory", here.display());
            return Err(io::Error::new(io::ErrorKind::NotADirectory, why));
        }
        if component == ".." {
            here.pop();
            metadata = look_at(&here)?;
            continue;
        }
        let next = here.join(&component);
        metadata = look_at(&next)?;
        check_root_only(&next, &metadata).map_err(refuse)?;
        if !metadata.is_symlink() {
            here = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(refuse(format!(
                "more than {MAX_LINKS} symbolic links; do not let them point in a circle"
            )));
        }
        let target = fs::read_link(&next)?;
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        for component in components(&target).into_iter().rev() {
            left.push_front(component);
        }
        // Links stand in directories, and targets start in one.
        metadata = look_at(&here)?;
    }
    Ok(())
}

fn check_root_only(path: &Path, metadata: &Metadata) -> Result<(), String> {
    let path = path.display();
    if metadata.uid() != 0 {
        return Err(format!("{path} belongs to user {}; `chown root` it or set script_user", metadata.uid()));
    }
    // A link's mode means nothing.
    let guarded = metadata.is_symlink() || metadata.is_dir() && metadata.mode() & STICKY != 0;
    if !guarded && metadata.mode() & OTHERS_WRITE != 0 {
        return Err(format!("others than root may write {path}; `chmod go-w` it or set script_user"));
    }
    Ok(())
}

fn look_at(path: &Path) -> io::Result<Metadata> {
    fs::symlink_metadata(path)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot look at {}: {error}", path.display())))
}

/// Without `/` and `.`.
fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .map(|component| component.as_os_str().to_owned())
        .collect()
}
