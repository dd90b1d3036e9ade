// SPDX-License-Identifier: Apache-2.0
//! The table: medians, ratios within the rounds, and how they compare with what is wanted.

use end_to_end::failure::{Outcome, ensure};

use crate::load::Sample;

/// What one contender is to reach of another's rate, where both are.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Who is to reach it.
    pub who: &'static str,
    /// Whose rate is one.
    pub of: &'static str,
    /// What is wanted. Whether it is met is said, and fails nothing.
    pub target: f64,
    /// Below it something is broken, on a machine that does other things besides, too.
    pub least: f64,
}

/// What each contender gave in one round.
pub type Round = Vec<(&'static str, Sample)>;

/// What all rounds of a case gave.
#[derive(Debug)]
pub struct Results {
    /// The case's name.
    pub name: String,
    /// Bytes of an operation.
    pub block: usize,
    /// The rounds; the first one has all contenders, in the order of the table.
    pub rounds: Vec<Round>,
    /// All limits.
    pub limits: &'static [Limit],
    /// Whether the rounds were long enough to compare them with the targets.
    pub judged: bool,
}

/// What came of all cases together.
#[derive(Debug, Default)]
pub struct Tally {
    compared: usize,
    missed: Vec<String>,
    broken: Vec<String>,
}

impl Tally {
    /// Counts a case.
    pub fn count(&mut self, results: &Results) {
        self.compared += results.compared();
        self.missed.extend(results.missed());
        self.broken.extend(results.broken());
    }

    /// Says how many targets were met, if they were judged.
    ///
    /// # Errors
    /// When something is so slow that it must be broken.
    pub fn end(&self, judged: bool) -> Outcome {
        if judged {
            println!("{} of {} targets met", self.compared - self.missed.len(), self.compared);
        }
        ensure(self.broken.is_empty(), || format!("far too slow:\n{}", self.broken.join("\n")))
    }
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

fn sample(round: &Round, who: &str) -> Option<Sample> {
    round.iter().find(|(one, _)| *one == who).map(|(_, sample)| *sample)
}

impl Results {
    fn middle(&self, who: &str, figure: impl Fn(Sample) -> Option<f64>) -> Option<f64> {
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
        let name = |limit: &Limit| format!("{}: {} of {}", self.name, limit.who, limit.of);
        self.limits.iter().filter(below).map(name).collect()
    }

    /// How many comparisons were made.
    pub fn compared(&self) -> usize {
        self.limits.iter().filter(|limit| self.ratio(limit).is_some()).count()
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
        let mut lines = vec![self.name.clone()];
        for (who, _) in self.rounds.first().into_iter().flatten() {
            let Some(rate) = self.middle(who, |sample| Some(sample.rate)) else { continue };
            let latency = |part: usize| {
                let middle = self.middle(who, |sample| Some(sample.latency_us?[part] / 1e3));
                middle.map_or_else(|| "-".to_owned(), |millis| format!("{millis:.2}"))
            };
            let cpu = self.middle(who, |sample| Some(sample.cpu_us)).unwrap_or_default();
            let mebibytes = rate * self.block as f64 / f64::from(1 << 20);
            let ratios = self.limits.iter().filter(|limit| limit.who == *who);
            let ratios: String = ratios.filter_map(|limit| self.verdict(limit)).collect();
            lines.push(format!(
                "  {who:<18} {rate:>8.0} {mebibytes:>8.1} {:>8} {:>8} {cpu:>7.0}{ratios}",
                latency(0),
                latency(1),
            ));
        }
        lines
    }

    fn verdict(&self, limit: &Limit) -> Option<String> {
        let Spread([lowest, middle, highest]) = self.ratio(limit)?;
        let (of, target) = (limit.of, limit.target);
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
    use super::{Limit, Results, Round};
    use crate::load::Sample;

    const LIMITS: &[Limit] = &[
        Limit { who: "driver", of: "peer", target: 0.95, least: 0.5 },
        Limit { who: "driver", of: "nobody", target: 0.95, least: 0.5 },
    ];

    fn results(ours: [f64; 3], judged: bool) -> Results {
        let round = |rate| -> Round {
            let sample = |rate| Sample { rate, latency_us: None, cpu_us: 1.0 };
            vec![("driver", sample(rate)), ("peer", sample(100.0))]
        };
        let (name, rounds) = ("case".to_owned(), ours.map(round).to_vec());
        Results { name, block: 4096, rounds, limits: LIMITS, judged }
    }

    #[test]
    fn the_middle_round_counts() {
        assert!(results([10.0, 96.0, 900.0], true).missed().is_empty());
        assert_eq!(results([94.0, 900.0, 10.0], true).missed().len(), 1);
        assert!(results([94.0, 900.0, 10.0], false).missed().is_empty());
    }

    #[test]
    fn what_is_slow_beyond_doubt_is_broken_in_either_form() {
        for judged in [false, true] {
            assert!(results([51.0, 900.0, 10.0], judged).broken().is_empty());
            assert_eq!(results([49.0, 900.0, 10.0], judged).broken().len(), 1);
        }
    }

    #[test]
    fn a_missed_target_is_said_and_who_is_not_there_has_no_line() {
        let lines = results([94.0, 94.0, 94.0], true).lines();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[1].contains("0.94x of peer") && lines[1].ends_with("MISSED"));
    }
}
