//! Errors that say what was tried, and which capability is missing.

use std::{error, fmt, io};

/// The operating system's number behind an error of this module, such as `libc::ENODEV`.
pub fn os_code(error: &io::Error) -> Option<i32> {
    let named = || error.get_ref()?.downcast_ref::<Named>().map(|named| named.refusal.code);
    error.raw_os_error().or_else(named)
}

/// What an operation needs that root has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capability {
    /// Changing addresses, links, routes and rules.
    NetAdmin,
    /// Raw and packet sockets.
    NetRaw,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
        })
    }
}

/// A number from the kernel, with its words where it has any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Such as `libc::EEXIST`.
    pub code: i32,
    /// From netlink's extended acknowledgement; mostly empty.
    pub text: String,
}

impl Refusal {
    /// Without words.
    pub fn of(code: i32) -> Self {
        Self { code, text: String::new() }
    }

    /// The error for whoever called: "`what`: the kernel's words".
    pub fn during(self, what: impl fmt::Display, needs: Capability) -> io::Error {
        let kind = io::Error::from_raw_os_error(self.code).kind();
        io::Error::new(kind, Named { what: what.to_string(), needs, refusal: self })
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match os_code(&error) {
            Some(code) => Self::of(code),
            None => Self { code: libc::EIO, text: error.to_string() },
        }
    }
}

impl From<nix::Error> for Refusal {
    fn from(error: nix::Error) -> Self {
        Self::of(error as i32)
    }
}

#[derive(Debug)]
struct Named {
    what: String,
    needs: Capability,
    refusal: Refusal,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, io::Error::from_raw_os_error(self.refusal.code))?;
        if !self.refusal.text.is_empty() {
            write!(f, ": {}", self.refusal.text)?;
        }
        if matches!(self.refusal.code, libc::EPERM | libc::EACCES) {
            write!(f, "; this needs {}", self.needs)?;
        }
        Ok(())
    }
}

impl error::Error for Named {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_what_was_tried_and_what_is_missing() {
        let error = Refusal::of(libc::EPERM).during("cannot add 10.0.0.1/32 to eth0", Capability::NetAdmin);
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(os_code(&error), Some(libc::EPERM));
        assert_eq!(
            error.to_string(),
            "cannot add 10.0.0.1/32 to eth0: Operation not permitted (os error 1); this needs CAP_NET_ADMIN"
        );
        let worded = Refusal { code: libc::EINVAL, text: "Invalid prefix".to_owned() };
        let error = worded.during("cannot add a route", Capability::NetAdmin);
        assert_eq!(error.to_string(), "cannot add a route: Invalid argument (os error 22): Invalid prefix");
        assert_eq!(Refusal::from(error).code, libc::EINVAL);
        assert_eq!(os_code(&io::Error::from_raw_os_error(libc::ENODEV)), Some(libc::ENODEV));
        assert_eq!(os_code(&io::Error::other("words")), None);
    }
}
