// SPDX-License-Identifier: Apache-2.0
//! The table: medians, ratios to nbdkit, and whether the targets are met.

use crate::measure::{Row, Sample};

/// What all rounds of a row gave.
#[derive(Debug)]
pub struct Results {
    /// The row.
    pub row: Row,
    /// Its name.
    pub name: String,
    /// For each round a sample of each server: ours, nbdkit, qemu-nbd.
    pub rounds: Vec<[Sample; 3]>,
    /// For each round the round trips in a second of a bare socket.
    pub ping_pong: Vec<f64>,
}

/// The middle of some figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Results {
    fn median(&self, figure: impl Fn(&[Sample; 3]) -> f64) -> f64 {
        median(self.rounds.iter().map(figure).collect())
    }

    /// How many times nbdkit's rate ours is: the median of the rounds, in each of which they ran beside each other.
    pub fn ratio(&self) -> f64 {
        self.median(|[ours, nbdkit, _]| ours.rate / nbdkit.rate)
    }

    /// Whether the target is met.
    pub fn is_met(&self) -> bool {
        self.ratio() >= self.row.target
    }

    /// The ratio that a server would have which took no time at all: the client's own work bounds it.
    fn bound(&self) -> Option<f64> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let cores = self.row.client_cores(cores)? as f64;
        Some(self.median(|[ours, nbdkit, _]| cores * 1e6 / ours.client_us / nbdkit.rate))
    }

    /// The line of the table; `judged` says what became of the target.
    pub fn line(&self, judged: bool) -> String {
        let rate = |server: usize| self.median(|samples| samples[server].rate);
        let cpu = |server: usize| self.median(|samples| samples[server].cpu_us);
        let verdict = match (judged, self.is_met()) {
            (false, _) => "",
            (true, true) => "met",
            (true, false) => "MISSED",
        };
        let bound = self.bound().map_or("-".into(), |bound| format!("{bound:.2}x"));
        format!(
            "{:<24} {:>8.0} {:>8.0} {:>8.0} {:>4}/s {:>6.2}x {bound:>6} {:>6.2}x {verdict:<6} {:>7.1} {:>7.1} {:>7.1} {:>7.0}",
            self.name,
            rate(0),
            rate(1),
            rate(2),
            self.row.unit(),
            self.ratio(),
            self.row.target,
            cpu(0),
            cpu(1),
            cpu(2),
            median(self.ping_pong.clone()),
        )
    }
}

/// What the columns say that does not show by itself.
pub const LEGEND: &str = "bound: the ratio of a server that took no time at all, by the CPU time that the client itself needs\n\
    server CPU: microseconds for each operation, of a copy for each MiB; ping/s: round trips of a bare socket pair";

/// The line above the lines; what `bound` means stands in [`LEGEND`].
pub fn head() -> String {
    format!(
        "{:<24} {:>8} {:>8} {:>8} {:>6} {:>7} {:>6} {:>7} {:<6} {:>23} {:>7}",
        "load",
        "novastor",
        "nbdkit",
        "qemu-nbd",
        "",
        "ratio",
        "bound",
        "target",
        "",
        "server CPU us, as left",
        "ping/s",
    )
}

#[cfg(test)]
mod tests {
    use super::{Results, median};
    use crate::measure::{ROWS, Sample};

    fn results(ours: [f64; 3]) -> Results {
        let sample = |rate| Sample { rate, cpu_us: 1.0, client_us: 5000.0 };
        let rounds = ours.map(|rate| [sample(rate), sample(100.0), sample(10.0)]).to_vec();
        Results { row: ROWS[0], name: "a load".into(), rounds, ping_pong: vec![1.0] }
    }

    #[test]
    fn the_middle_is_taken() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn a_missed_target_is_said_plainly() {
        let (met, missed) = (results([100.0, 200.0, 900.0]), results([199.0, 900.0, 100.0]));
        assert!(met.is_met() && met.line(true).contains(" met "));
        assert!(!missed.is_met() && missed.line(true).contains(" MISSED "));
        assert!(!missed.line(false).contains("MISSED"));
    }

    #[test]
    fn the_clients_own_work_bounds_the_ratio() {
        assert_eq!(results([100.0; 3]).bound(), Some(2.0), "200 a second, nbdkit has 100");
        let fio = Results { row: ROWS[8], ..results([100.0; 3]) };
        assert_eq!(fio.bound(), None);
    }

    #[test]
    fn without_figures_nothing_is_met() {
        let empty = Results { rounds: Vec::new(), ..results([0.0; 3]) };
        assert!(!empty.is_met());
    }
}
