//! What the paths should cost at most.

/// What the floor program cost on the machine for which the targets were set.
pub const FLOOR_OF_TARGETS: f64 = 9.0;

/// The target for a figure of the report, in ns on that machine. What counts is the ratio to the floor.
pub fn target(name: &str) -> Option<f64> {
    Some(match name {
        "pass_ns" => 18.0,
        "dr_hit_ns" => 42.0,
        "tun_hit_ns" => 52.0,
        "nat_forward_ns" | "nat_reverse_ns" => 60.0,
        "new_flow_ns" => 450.0,
        "new_flow_nat_ns" => 800.0,
        "4096" => 75.0,
        "65536" => 110.0,
        "1048576" => 250.0,
        _ => return None,
    })
}

/// Bytes for a NAT connection.
pub const BYTES_PER_CONNECTION: f64 = 256.0;

/// The ratio to the floor that a target allows.
pub fn allowed_ratio(target: f64) -> f64 {
    target / FLOOR_OF_TARGETS
}
