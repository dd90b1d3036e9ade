// SPDX-License-Identifier: Apache-2.0
//! `novastor job`, and the progress bar of commands that start one.

use std::io::IsTerminal;

use driver_api::{Error, ErrorKind, Result};
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    Session,
    args::{JobCommand, Output, Waiting},
    cluster,
};
use crate::api::types::JobView;

impl Session {
    pub(super) async fn job(&self, command: JobCommand) -> Result<()> {
        match command {
            JobCommand::List(watched) => self.list::<JobView>("/v1/jobs", watched).await,
            JobCommand::Show { id } => {
                self.one(&self.client.get::<JobView>(&format!("/v1/jobs/{id}")).await?)
            }
            JobCommand::Cancel { id } => {
                let path = format!("/v1/jobs/{id}/cancel");
                self.one(&self.client.post::<JobView>(&path, &serde_json::json!({})).await?)
            }
            JobCommand::Resume { id, waiting } => {
                let path = format!("/v1/jobs/{id}/resume");
                let job = self.client.post::<JobView>(&path, &serde_json::json!({})).await?;
                self.follow(job, waiting).await
            }
            JobCommand::Wait { id } => {
                let job = self.client.get::<JobView>(&format!("/v1/jobs/{id}")).await?;
                self.follow(job, Waiting { no_wait: false }).await
            }
        }
    }

    /// Shows a job's progress until its end, unless told otherwise. A failed job is an error.
    pub(super) async fn follow(&self, mut job: JobView, waiting: Waiting) -> Result<()> {
        if waiting.no_wait {
            return self.one(&job);
        }
        let bar = self.bar();
        while job.state == "running" {
            bar.set_length(job.total);
            bar.set_position(job.done);
            job = self.client.get(&format!("/v1/jobs/{}?wait_secs=1", job.id)).await?;
        }
        bar.finish_and_clear();
        if job.state == "done" {
            return match self.output {
                Output::Json => self.one(&job),
                Output::Table => {
                    let found = job.walk.as_ref().map(|walk| format!(": {}", cluster::found(walk)));
                    let found = found.unwrap_or_default();
                    self.done(&format!("{}: {} done{found}", job.kind, job.detail))
                }
            };
        }
        if job.walk.is_some() && self.output == Output::Json {
            self.one(&job)?;
        }
        let resume = match job.is_resumable() {
            true => format!("novastor job resume {}", job.id),
            false => String::new(),
        };
        let (kind, message, remedy) = match job.error {
            Some(error) if error.remedy.is_empty() => {
                (ErrorKind::from_code(error.code), error.message, resume)
            }
            Some(error) => (ErrorKind::from_code(error.code), error.message, error.remedy),
            None => (ErrorKind::UNAVAILABLE, format!("it was {}", job.state), resume),
        };
        Err(Error::new(kind, message)
            .during(format!("{} {}", job.kind, job.target))
            .with("job", job.id)
            .remedy(remedy))
    }

    fn bar(&self) -> ProgressBar {
        if self.output == Output::Json || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(0);
        let look = "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(look) {
            bar.set_style(style);
        }
        bar
    }
}
