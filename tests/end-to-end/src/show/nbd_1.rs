// SPDX-License-Identifier: Apache-2.0
//! The clients that users bring, over every way in: what they write they find again, on a unix socket, over TCP, and
//! over TLS with and without a certificate of their own. Who may not come in stays outside. And what is not a socket of
//! the host's own: socket activation, standard input and output.

mod doors;
mod matrix;
mod reconnect;
mod refusals;
mod relay;
mod resize;
mod way;

use self::way::Way;
use super::Stage;
use crate::{
    certificates::{Certificates, free_address},
    failure::{Context, Outcome},
    host::Host,
    libnbd::Libnbd,
    random::Random,
};

pub(super) fn play(stage: &Stage) -> Outcome {
    let seed = Random::seed();
    stage.tell(format!("seed {seed}"));
    let mut random = Random::new(seed);
    let libnbd = Libnbd::beside(&stage.artifacts)?;
    let certificates = Certificates::make(&stage.path("certificates"))?;
    let image = stage.path("image");
    matrix::image(&image, &mut random)?;
    // Two hosts: one lets everybody choose, the other wants a certificate of everybody.
    let (open, strict) = (free_address()?, free_address()?);
    let offering =
        Host::start_serving(&stage.artifacts, &certificates.listen(&open, "tls = \"offer\""), "")?;
    let more = format!("tls = \"require\"\n{}", certificates.client_authority());
    let demanding =
        Host::start_serving(&stage.artifacts, &certificates.listen(&strict, &more), "")?;
    let ways = [
        (&offering, Way::unix(&offering.nbd_socket(), "disk")),
        (&offering, Way::tcp(&open, "disk")),
        (&offering, Way::tls("TLS", &open, "disk", &certificates.client("nobody"))),
        (
            &demanding,
            Way::tls("TLS with a certificate", &strict, "disk", &certificates.client("alice")),
        ),
    ];
    for (number, (host, way)) in ways.iter().enumerate() {
        host.volume("disk", matrix::SIZE, "raw")?;
        let scratch = stage.path(&format!("way-{number}"));
        matrix::play(&libnbd, way, &image, &scratch, stage.is_long())
            .context(format!("{}, NOVASTOR_SEED={seed}", way.name))?;
        host.cli().ask().args(["export", "remove", "disk"]).run()?;
        host.cli().ask().args(["volume", "delete", "disk"]).run()?;
        stage.tell(format!(
            "{}: nbdinfo, qemu-io, qemu-img, nbdcopy, a script of libnbd and fio find what they wrote",
            way.name
        ));
    }
    drop((offering, demanding));
    refusals::play(stage, &libnbd, &certificates)?;
    doors::play(stage, &libnbd)?;
    resize::play(stage, &libnbd)?;
    reconnect::play(stage, &libnbd, &mut random).context(format!("NOVASTOR_SEED={seed}"))
}
