// SPDX-License-Identifier: Apache-2.0
//! `novastor volume changes`.

use clap::Args;
use driver_api::Result;

use super::{
    Session,
    args::{Output, size as bytes_of},
    client::part,
    show::{self, Row, size},
    volumes::of,
};
use crate::api::changes::{ChangeView, ChangesView};

/// `novastor volume changes`
#[derive(Args, Clone, Debug)]
pub struct ChangesOf {
    /// Its name
    pub name: String,
    /// The earlier snapshot; all data if none
    #[arg(long, value_name = "SNAPSHOT")]
    pub since: Option<String>,
    /// The later snapshot; the volume as it is now if none
    #[arg(long, value_name = "SNAPSHOT")]
    pub until: Option<String>,
    /// First byte
    #[arg(long, value_parser = bytes_of, default_value = "0")]
    pub offset: u64,
    /// How many; to the end if none
    #[arg(long, value_parser = bytes_of)]
    pub length: Option<u64>,
}

impl Session {
    pub(super) async fn changes(&self, asked: &ChangesOf) -> Result<()> {
        let ChangesOf { name, since, until, offset, length } = asked;
        let (from, to) =
            (since.as_deref().unwrap_or_default(), until.as_deref().unwrap_or_default());
        let end = length.map(|length| offset.saturating_add(length));
        let pictures = format!("{}/changes?from={}&to={}", of(name), part(from), part(to));
        let mut all = ChangesView { size: 0, extents: Vec::new(), next: Some(*offset) };
        while let Some(at) = all.next {
            let mut path = format!("{pictures}&offset={at}");
            if let Some(end) = end {
                path.push_str(&format!("&length={}", end - at));
            }
            let more: ChangesView = self.client.get(&path).await?;
            (all.size, all.next) = (more.size, more.next);
            for extent in more.extents {
                all.add(extent);
            }
        }
        if self.output == Output::Json {
            return show::json(&all);
        }
        show::list(self.output, &all.extents)?;
        let bytes = |kind: &str| {
            let chosen = all.extents.iter().filter(|extent| extent.kind == kind);
            size(chosen.map(|extent| extent.len).sum())
        };
        let (data, zero) = (bytes("data"), bytes("zero"));
        self.done(&format!("{data} of data and {zero} of zeros differ, of {}", size(all.size)))
    }
}

impl ChangesView {
    /// Adds what follows; one run may be told in two answers.
    fn add(&mut self, extent: ChangeView) {
        match self.extents.last_mut() {
            Some(last) if last.kind == extent.kind && last.offset + last.len == extent.offset => {
                last.len += extent.len;
            }
            _ => self.extents.push(extent),
        }
    }
}

impl Row for ChangeView {
    const HEAD: &'static [&'static str] = &["offset", "length", "kind"];

    fn cells(&self) -> Vec<String> {
        vec![self.offset.to_string(), self.len.to_string(), self.kind.clone()]
    }
}
