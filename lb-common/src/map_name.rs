//! The names of the program's maps, for who opens them. The program's own definitions stand in its `maps.rs`; the
//! packet suite checks that both name the same maps.

/// [`crate::service::ServiceKey`] -> [`crate::service::Service`].
pub const SERVICES: &str = "SERVICES";
/// Service index -> [`crate::service::Cursor`]; mapped into memory.
pub const CURSORS: &str = "CURSORS";
/// Slot -> [`crate::service::Slot`]; mapped into memory.
pub const SLOTS: &str = "SLOTS";
/// Server number -> [`crate::server::Server`]; mapped into memory.
pub const SERVERS: &str = "SERVERS";
/// Server number -> [`crate::server::Load`]; mapped into memory.
pub const LOADS: &str = "LOADS";
/// Address, port and protocol of a NAT real server ([`crate::service::ServiceKey`]) -> server number.
pub const NAT_SERVERS: &str = "NAT_SERVERS";
/// Server number -> [`crate::server::ServerStats`] of each CPU.
pub const SERVER_STATS: &str = "SERVER_STATS";
/// 0 -> [`crate::verdict::Counters`] of each CPU.
pub const COUNTERS: &str = "COUNTERS";
/// Bucket -> [`crate::conn::TagBucket`]; mapped into memory.
pub const TAGS: &str = "TAGS";
/// Place -> [`crate::conn::Connection`]; mapped into memory.
pub const CONNECTIONS: &str = "CONNECTIONS";
/// Word -> bits of [`crate::filter`]; mapped into memory.
pub const FILTER: &str = "FILTER";
/// [`crate::fragment::FragmentKey`] -> [`crate::fragment::Fragment`].
pub const FRAGMENTS: &str = "FRAGMENTS";

/// Number of a role -> a word ([`crate::service::MAX_ROLES`]); mapped into memory.
pub const ROLES: &str = "ROLES";

/// 0 -> [`crate::settings::Identity`].
pub const IDENTITY: &str = "IDENTITY";

/// All of them.
pub const ALL: [&str; 14] = [
    SERVICES,
    CURSORS,
    SLOTS,
    SERVERS,
    LOADS,
    NAT_SERVERS,
    SERVER_STATS,
    COUNTERS,
    TAGS,
    CONNECTIONS,
    FILTER,
    FRAGMENTS,
    ROLES,
    IDENTITY,
];
