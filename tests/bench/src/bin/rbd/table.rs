// SPDX-License-Identifier: Apache-2.0
//! The table: medians, ratios within the rounds, and whether they suffice.

use crate::{
    cases::{Case, Sample},
    contenders::{CONTENDERS, Contender},
};

/// What one contender shall reach of another's rate.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    who: Contender,
    of: Contender,
    /// As a release must have it.
    least: f64,
    /// As any change must have it, on a machine that does other things besides, too.
    gross: f64,
}

/// All limits.
pub const LIMITS: [Limit; 3] = [
    Limit { who: Contender::Driver, of: Contender::Fio, least: 0.95, gross: 0.5 },
    Limit { who: Contender::Nbd, of: Contender::Fio, least: 0.9, gross: 0.4 },
    Limit { who: Contender::Nbd, of: Contender::Qemu, least: 1.0, gross: 0.5 },
];

/// What each contender gave in one round.
pub type Round = Vec<(Contender, Sample)>;

/// What all rounds of a case gave.
#[derive(Debug)]
pub struct Results {
    /// The case.
    pub case: Case,
    /// The rounds.
    pub rounds: Vec<Round>,
    /// Whether the limits are those of a release.
    pub strict: bool,
}

/// The least, the middle and the greatest of some figures.
struct Spread([f64; 3]);

impl Spread {
    fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let middle = figures.get(figures.len() / 2)?;
        Some(Self([*figures.first()?, *middle, *figures.last()?]))
    }
}

fn sample(round: &Round, who: Contender) -> Option<Sample> {
    round.iter().find(|(one, _)| *one == who).map(|(_, sample)| *sample)
}

impl Results {
    fn middle(&self, who: Contender, figure: impl Fn(Sample) -> Option<f64>) -> Option<f64> {
        let figures = self.rounds.iter().filter_map(|round| figure(sample(round, who)?));
        Spread::of(figures.collect()).map(|spread| spread.0[1])
    }

    /// The ratios within the rounds, in each of which they ran beside each other; none where one was not there.
    fn ratio(&self, limit: &Limit) -> Option<Spread> {
        let ratios = self.rounds.iter().filter_map(|round| {
            Some(sample(round, limit.who)?.rate / sample(round, limit.of)?.rate)
        });
        Spread::of(ratios.collect())
    }

    fn least(&self, limit: &Limit) -> f64 {
        if self.strict { limit.least } else { limit.gross }
    }

    /// The limits that are missed.
    pub fn missed(&self) -> Vec<String> {
        let missed =
            |limit: &&Limit| self.ratio(limit).is_some_and(|ratio| ratio.0[1] < self.least(limit));
        let name = |limit: &Limit| format!("{} of {}", limit.who.name(), limit.of.name());
        let name = |limit: &Limit| format!("{}: {}", self.case.name(), name(limit));
        LIMITS.iter().filter(missed).map(name).collect()
    }

    /// The lines of the table.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.case.name()];
        for who in CONTENDERS {
            let Some(rate) = self.middle(who, |sample| Some(sample.rate)) else { continue };
            let latency = |part: usize| {
                let middle = self.middle(who, |sample| Some(sample.latency_us?[part] / 1e3));
                middle.map_or_else(|| "-".to_owned(), |millis| format!("{millis:.2}"))
            };
            let cpu = self.middle(who, |sample| Some(sample.cpu_us)).unwrap_or_default();
            let mebibytes = rate * self.case.block as f64 / f64::from(1 << 20);
            let ratios = LIMITS.iter().filter(|limit| limit.who == who);
            let ratios: String = ratios.filter_map(|limit| self.verdict(limit)).collect();
            lines.push(format!(
                "  {:<18} {rate:>8.0} {mebibytes:>8.1} {:>8} {:>8} {cpu:>7.0}{ratios}",
                who.name(),
                latency(0),
                latency(1),
            ));
        }
        lines
    }

    fn verdict(&self, limit: &Limit) -> Option<String> {
        let Spread([lowest, middle, highest]) = self.ratio(limit)?;
        let least = self.least(limit);
        let word = if middle >= least { "met" } else { "MISSED" };
        let of = limit.of.name();
        Some(format!("  {middle:.2}x of {of} ({lowest:.2} to {highest:.2}), {least:.2}x {word}"))
    }
}

/// The line above the lines.
pub fn head() -> String {
    let [rate, bytes, half, most, cpu] = ["op/s", "MiB/s", "p50 ms", "p99 ms", "CPU us"];
    format!("  {:<18} {rate:>8} {bytes:>8} {half:>8} {most:>8} {cpu:>7}", "")
}

#[cfg(test)]
mod tests {
    use super::{LIMITS, Results, Round};
    use crate::{
        cases::{CASES, Sample},
        contenders::Contender,
    };

    fn results(ours: [f64; 3], strict: bool) -> Results {
        let round = |rate| -> Round {
            let sample = |rate| Sample { rate, latency_us: None, cpu_us: 1.0 };
            vec![(Contender::Driver, sample(rate)), (Contender::Fio, sample(100.0))]
        };
        Results { case: CASES[0], rounds: ours.map(round).to_vec(), strict }
    }

    #[test]
    fn the_middle_round_counts() {
        assert!(results([10.0, 96.0, 900.0], true).missed().is_empty());
        assert_eq!(results([94.0, 900.0, 10.0], true).missed().len(), 1);
    }

    #[test]
    fn a_short_form_only_misses_what_is_gross() {
        let gross = 100.0 * LIMITS[0].gross;
        assert!(results([gross + 1.0, 900.0, 10.0], false).missed().is_empty());
        assert_eq!(results([gross - 1.0, 900.0, 10.0], false).missed().len(), 1);
    }

    #[test]
    fn a_missed_limit_is_said_and_who_is_not_there_has_no_line() {
        let lines = results([94.0, 94.0, 94.0], true).lines();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[1].contains("0.94x of fio's rbd engine") && lines[1].ends_with("MISSED"));
    }
}
