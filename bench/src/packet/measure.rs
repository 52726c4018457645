//! Runs, and what comes out of them.

use anyhow::Result;

/// How often something is measured.
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    /// Runs, of which the median counts.
    pub count: usize,
    /// Packets in a run.
    pub repeats: u32,
}

impl Runs {
    /// The method of docs/performance.md.
    pub const FULL: Self = Self { count: 11, repeats: 2_000_000 };
    /// A look.
    pub const QUICK: Self = Self { count: 5, repeats: 500_000 };

    /// Measures `run`, which gives the nanoseconds a packet of one run of `repeats`.
    pub fn measure(self, repeats: u32, mut run: impl FnMut(u32) -> Result<f64>) -> Result<Measurement> {
        let runs = (0..self.count).map(|_| run(repeats)).collect::<Result<Vec<_>>>()?;
        Ok(Measurement::of(runs))
    }
}

/// Nanoseconds a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measurement {
    /// Median of the runs.
    pub median: f64,
    /// The best run.
    pub min: f64,
    /// The worst run.
    pub max: f64,
}

impl Measurement {
    fn of(mut runs: Vec<f64>) -> Self {
        runs.sort_by(f64::total_cmp);
        match (runs.first(), runs.get(runs.len() / 2), runs.last()) {
            (Some(&min), Some(&median), Some(&max)) => Self { median, min, max },
            _ => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_disturbed_run_does_not_move_the_median() {
        let of = Measurement::of(vec![10.0, 9.0, 500.0, 9.5, 9.2]);
        assert_eq!(of, Measurement { median: 9.5, min: 9.0, max: 500.0 });
    }
}
