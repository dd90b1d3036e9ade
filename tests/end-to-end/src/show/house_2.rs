// SPDX-License-Identifier: Apache-2.0
//! The round trip of a filesystem's image over the local driver, in both of its formats.

use super::{
    Stage,
    round_trip::{self, Image, Place},
};
use crate::{failure::Outcome, host::Host};

pub(super) fn play(stage: &Stage) -> Outcome {
    let image = Image::new(stage)?;
    let host = Host::start(&stage.artifacts, "")?;
    for format in ["raw", "qcow2"] {
        let options = [("format", format)];
        let place = Place { name: format, backend: None, options: &options };
        round_trip::play(stage, &host, &image, &place)?;
    }
    Ok(())
}
