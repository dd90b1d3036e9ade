// SPDX-License-Identifier: Apache-2.0
//! The figures of placement: what it costs and how good it is.

use serde_json::Value;

use super::Stage;
use crate::{
    failure::{Context, Failure, Outcome, ensure},
    program::Program,
};

/// How much longer than its target a placement may take in the short form, on machines that do other things besides.
const BUSY: f64 = 3.0;

/// What placement costs and how good it is, each with its target.
pub(super) fn play(stage: &Stage) -> Outcome {
    let said = Program::new(stage.artifacts.simulator()?).arg("--figures").limit_secs(300).run()?;
    let figures: Value = serde_json::from_str(&said.stdout).context(&said.stdout)?;
    let rows = figures.as_array().ok_or_else(|| Failure::new("the simulator gives no list"))?;
    stage.tell(format!("{:<44} {:>12} {:>12}", "placement", "figure", "target"));
    let mut missed = Vec::new();
    for row in rows {
        let (name, unit) = (row["name"].as_str(), row["unit"].as_str());
        let (figure, target) = (row["figure"].as_f64(), row["target"].as_f64());
        let (Some(name), Some(unit), Some(figure), Some(target)) = (name, unit, figure, target)
        else {
            return Err(Failure::new(format!("a figure lacks something: {row}")));
        };
        let (told, wanted) = (format!("{figure:.2} {unit}"), format!("{target:.2} {unit}"));
        stage.tell(format!("{name:<44} {told:>12} {wanted:>12}"));
        let is_time = ["ns", "us"].contains(&unit);
        let allowed = if is_time && !stage.is_long() { target * BUSY } else { target };
        if figure > allowed {
            missed.push(name.to_owned());
        }
    }
    ensure(!rows.is_empty() && missed.is_empty(), || format!("missed: {}", missed.join(", ")))
}
