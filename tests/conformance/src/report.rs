// SPDX-License-Identifier: Apache-2.0
//! What was asked, what was answered, and the matrix of claimed against shown.

use std::fmt;

use driver_api::Abilities;
use serde::Serialize;

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "reason")]
pub enum Outcome {
    /// The promise was kept.
    Passed,
    /// The promise was broken, so.
    Failed(String),
    /// The driver does not claim what the check asks for.
    NotClaimed(String),
}

/// One check and its outcome.
#[derive(Clone, Debug, Serialize)]
pub struct CheckResult {
    /// The part of the contract it belongs to.
    pub area: &'static str,
    /// Its name in that area.
    pub name: &'static str,
    /// What a driver promises, in one sentence.
    pub promise: &'static str,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How long it took, in milliseconds.
    pub millis: u64,
    #[serde(skip)]
    pub(crate) needs: Abilities,
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, reason) = match &self.outcome {
            Outcome::Passed => ("ok", None),
            Outcome::Failed(reason) => ("FAILED", Some(reason)),
            Outcome::NotClaimed(reason) => ("not claimed", Some(reason)),
        };
        let Self { area, name, promise, millis, .. } = self;
        write!(f, "{word:11}  {area}/{name} ({millis} ms): {promise}")?;
        reason.map_or(Ok(()), |reason| write!(f, "\n             {reason}"))
    }
}

/// The outcome of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// All checks that were run, in order.
    pub checks: Vec<CheckResult>,
    /// The abilities that the driver claims for volumes of this plan.
    pub claimed: Vec<&'static str>,
    /// Those of which a check passed and none failed.
    pub shown: Vec<&'static str>,
    /// How the driver says that it keeps deposed writers away.
    pub fencing: &'static str,
}

impl Report {
    pub(crate) fn conclude(&mut self) {
        let broken = |ability: &Abilities| {
            let mut passed = false;
            for check in self.checks.iter().filter(|check| check.needs.has(*ability)) {
                match check.outcome {
                    Outcome::Passed => passed = true,
                    Outcome::Failed(_) => return true,
                    Outcome::NotClaimed(_) => {}
                }
            }
            !passed
        };
        let shown = Abilities::NAMED
            .iter()
            .filter(|(ability, name)| self.claimed.contains(name) && !broken(ability));
        self.shown = shown.map(|(_, name)| *name).collect();
    }

    /// How many checks passed.
    pub fn passed(&self) -> usize {
        self.checks.iter().filter(|check| check.outcome == Outcome::Passed).count()
    }

    /// How many checks failed.
    pub fn failed(&self) -> usize {
        self.checks.iter().filter(|check| matches!(check.outcome, Outcome::Failed(_))).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:16} {:8} shown", "ability", "claimed")?;
        for (_, name) in Abilities::NAMED {
            let word = |yes: bool| if yes { "yes" } else { "-" };
            let (claimed, shown) = (self.claimed.contains(name), self.shown.contains(name));
            let verdict = if claimed && !shown { "NO" } else { word(shown) };
            writeln!(f, "{name:16} {:8} {verdict}", word(claimed))?;
        }
        writeln!(f, "{:16} {}", "fencing", self.fencing)?;
        for check in &self.checks {
            if matches!(check.outcome, Outcome::Failed(_)) {
                writeln!(f, "{check}")?;
            }
        }
        let (passed, failed) = (self.passed(), self.failed());
        let rest = self.checks.len() - passed - failed;
        write!(f, "{passed} checks passed, {failed} failed, {rest} not claimed")
    }
}
