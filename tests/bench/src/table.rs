// SPDX-License-Identifier: Apache-2.0
//! The table: medians, ratios within the rounds, and whether they suffice.

use crate::load::Sample;

/// What one contender shall reach of another's rate, where both are.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Who shall reach it.
    pub who: &'static str,
    /// Whose rate is one.
    pub of: &'static str,
    /// As a release must have it.
    pub least: f64,
    /// As any change must have it, on a machine that does other things besides, too.
    pub gross: f64,
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

    fn least(&self, limit: &Limit) -> f64 {
        if self.strict { limit.least } else { limit.gross }
    }

    /// The limits that are missed.
    pub fn missed(&self) -> Vec<String> {
        let missed =
            |limit: &&Limit| self.ratio(limit).is_some_and(|ratio| ratio.0[1] < self.least(limit));
        let name = |limit: &Limit| format!("{}: {} of {}", self.name, limit.who, limit.of);
        self.limits.iter().filter(missed).map(name).collect()
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
        let least = self.least(limit);
        let word = if middle >= least { "met" } else { "MISSED" };
        let of = limit.of;
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
    use super::{Limit, Results, Round};
    use crate::load::Sample;

    const LIMITS: &[Limit] = &[
        Limit { who: "driver", of: "peer", least: 0.95, gross: 0.5 },
        Limit { who: "driver", of: "nobody", least: 0.95, gross: 0.5 },
    ];

    fn results(ours: [f64; 3], strict: bool) -> Results {
        let round = |rate| -> Round {
            let sample = |rate| Sample { rate, latency_us: None, cpu_us: 1.0 };
            vec![("driver", sample(rate)), ("peer", sample(100.0))]
        };
        let (name, rounds) = ("case".to_owned(), ours.map(round).to_vec());
        Results { name, block: 4096, rounds, limits: LIMITS, strict }
    }

    #[test]
    fn the_middle_round_counts() {
        assert!(results([10.0, 96.0, 900.0], true).missed().is_empty());
        assert_eq!(results([94.0, 900.0, 10.0], true).missed().len(), 1);
    }

    #[test]
    fn a_short_form_only_misses_what_is_gross() {
        assert!(results([51.0, 900.0, 10.0], false).missed().is_empty());
        assert_eq!(results([49.0, 900.0, 10.0], false).missed().len(), 1);
    }

    #[test]
    fn a_missed_limit_is_said_and_who_is_not_there_has_no_line() {
        let lines = results([94.0, 94.0, 94.0], true).lines();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[1].contains("0.94x of peer") && lines[1].ends_with("MISSED"));
    }
}
