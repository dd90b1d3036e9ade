// SPDX-License-Identifier: Apache-2.0
//! `novastor volume scrub`.

use driver_api::Result;

use super::{
    Session,
    args::{Output, Waiting},
    show::{self, Row, size},
    volumes::of,
};
use crate::api::{
    scrubs::{DamageView, ScrubView, ScrubVolume},
    types::JobView,
};

impl Session {
    pub(super) async fn scrub(
        &self,
        name: &str,
        repair: bool,
        status: bool,
        waiting: Waiting,
    ) -> Result<()> {
        let path = format!("{}/scrub", of(name));
        if !status {
            let job = self.client.post::<JobView>(&path, &ScrubVolume { repair }).await?;
            return self.follow(job, waiting).await;
        }
        let told: ScrubView = self.client.get(&path).await?;
        self.one(&told)?;
        if self.output == Output::Table && !told.findings.is_empty() {
            show::print("\n")?;
            show::list(self.output, &told.findings)?;
        }
        Ok(())
    }
}

impl Row for ScrubView {
    const HEAD: &'static [&'static str] =
        &["scrubbing", "repairs", "done", "compared", "passed over", "with digests", "found"];

    fn cells(&self) -> Vec<String> {
        let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
        vec![
            yes(self.running),
            yes(self.repairs),
            format!("{} of {}", size(self.done), size(self.total)),
            size(self.compared),
            size(self.passed_over),
            size(self.digested),
            self.found.to_string(),
        ]
    }
}

impl Row for DamageView {
    const HEAD: &'static [&'static str] = &["at", "length", "bad", "good", "told by", "repair"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.offset.to_string(),
            size(self.len),
            self.bad.join(", "),
            self.good.join(", "),
            self.verdict.clone(),
            self.repair.clone(),
        ]
    }
}
