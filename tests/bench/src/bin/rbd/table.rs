// SPDX-License-Identifier: Apache-2.0
//! The table: medians, ratios within the rounds, and how they compare with what is wanted.

use crate::{
    cases::{Case, Sample},
    contenders::{CONTENDERS, Contender},
};

/// What one contender is to reach of another's rate.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    who: Contender,
    of: Contender,
    /// What is wanted. Whether it is met is said, and fails nothing.
    target: f64,
    /// Below it something is broken, on a machine that does other things besides, too.
    least: f64,
}

/// All limits.
pub const LIMITS: [Limit; 3] = [
    Limit { who: Contender::Driver, of: Contender::Fio, target: 0.95, least: 0.5 },
    Limit { who: Contender::Nbd, of: Contender::Fio, target: 0.9, least: 0.4 },
    Limit { who: Contender::Nbd, of: Contender::Qemu, target: 1.0, least: 0.5 },
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
    /// Whether the rounds were long enough to compare them with the targets.
    pub judged: bool,
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

    fn below(&self, wanted: impl Fn(&Limit) -> f64) -> Vec<String> {
        let below =
            |limit: &&Limit| self.ratio(limit).is_some_and(|ratio| ratio.0[1] < wanted(limit));
        let name = |limit: &Limit| format!("{} of {}", limit.who.name(), limit.of.name());
        let name = |limit: &Limit| format!("{}: {}", self.case.name(), name(limit));
        LIMITS.iter().filter(below).map(name).collect()
    }

    /// The comparisons that were made.
    pub fn compared(&self) -> usize {
        LIMITS.iter().filter(|limit| self.ratio(limit).is_some()).count()
    }

    /// The targets that are missed.
    pub fn missed(&self) -> Vec<String> {
        if self.judged { self.below(|limit| limit.target) } else { Vec::new() }
    }

    /// What cannot be but broken.
    pub fn broken(&self) -> Vec<String> {
        self.below(|limit| limit.least)
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
        let (of, target) = (limit.of.name(), limit.target);
        let word = if middle >= target { "met" } else { "MISSED" };
        let verdict = if self.judged { format!(", {target:.2}x {word}") } else { String::new() };
        Some(format!("  {middle:.2}x of {of} ({lowest:.2} to {highest:.2}){verdict}"))
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

    fn results(ours: [f64; 3], judged: bool) -> Results {
        let round = |rate| -> Round {
            let sample = |rate| Sample { rate, latency_us: None, cpu_us: 1.0 };
            vec![(Contender::Driver, sample(rate)), (Contender::Fio, sample(100.0))]
        };
        Results { case: CASES[0], rounds: ours.map(round).to_vec(), judged }
    }

    #[test]
    fn the_middle_round_counts() {
        assert!(results([10.0, 96.0, 900.0], true).missed().is_empty());
        assert_eq!(results([94.0, 900.0, 10.0], true).missed().len(), 1);
        assert!(results([94.0, 900.0, 10.0], false).missed().is_empty());
    }

    #[test]
    fn what_is_slow_beyond_doubt_is_broken_in_either_form() {
        let least = 100.0 * LIMITS[0].least;
        for judged in [false, true] {
            assert!(results([least + 1.0, 900.0, 10.0], judged).broken().is_empty());
            assert_eq!(results([least - 1.0, 900.0, 10.0], judged).broken().len(), 1);
        }
    }

    #[test]
    fn a_missed_target_is_said_and_who_is_not_there_has_no_line() {
        let lines = results([94.0, 94.0, 94.0], true).lines();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[1].contains("0.94x of fio's rbd engine") && lines[1].ends_with("MISSED"));
    }
}
