// SPDX-License-Identifier: Apache-2.0
//! `novastor volume promote`: says what is lost before it is.

use std::io::{BufRead, IsTerminal};

use driver_api::{Error, ErrorKind, Result};

use super::{
    Session,
    args::{Output, PromoteFlags},
    client::part,
    show::{Row, size},
    volumes::of,
};
use crate::api::promotion::{PromoteVolume, PromotionView};

impl Session {
    pub(super) async fn promote(&self, volume: &str, flags: &PromoteFlags) -> Result<()> {
        let PromoteFlags { node, at_once, dry_run, yes } = flags;
        let path = format!("{}/promote", of(volume));
        let mut query = format!("{path}?at_once={at_once}");
        if let Some(node) = node {
            query.push_str(&format!("&node={}", part(node)));
        }
        let look: PromotionView = self.client.get(&query).await?;
        if *dry_run {
            return self.one(&look);
        }
        if self.output == Output::Table {
            self.one(&look)?;
        }
        // The node that was looked at, also if another lacks less by now.
        let body = PromoteVolume { node: Some(look.node.clone()), at_once: *at_once };
        if !yes && !confirmed(&look)? {
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, "nothing was done")
                .during("volume promote")
                .remedy("to do it without a question, add --yes"));
        }
        let done: PromotionView = self.client.post(&path, &body).await?;
        if self.output == Output::Json {
            return self.one(&done);
        }
        self.done(&format!("{} acknowledges; {}", done.node, lost(&done)))
    }
}

/// Asks whoever sits at the terminal.
fn confirmed(look: &PromotionView) -> Result<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(false);
    }
    eprint!("have {} acknowledge, and give that up? [y/N] ", look.node);
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Error::from_io("the answer cannot be read", &error))?;
    Ok(matches!(answer.trim(), "y" | "yes"))
}

/// What is lost, in words.
fn lost(promotion: &PromotionView) -> String {
    let PromotionView { exact, lost_writes, lost_bytes, lost_secs, .. } = promotion;
    match (exact, lost_writes) {
        (true, 0) => "no acknowledged write is lost".to_owned(),
        (true, writes) => format!(
            "lost: the last {writes} acknowledged writes, {lost_bytes} bytes, the oldest {lost_secs:.3} s old"
        ),
        (false, _) => format!(
            "lost: not known, at most the last {} ({lost_bytes} bytes), from {lost_secs:.3} s",
            size(*lost_bytes)
        ),
    }
}

impl Row for PromotionView {
    const HEAD: &'static [&'static str] = &["acknowledges then", "until then", "loss", "note"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.node.clone(),
            self.before.clone().unwrap_or_default(),
            lost(self),
            self.note.clone().unwrap_or_default(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_as_exactly_as_it_is_known() {
        let none = PromotionView {
            node: "n2".to_owned(),
            before: None,
            point: None,
            exact: true,
            lost_writes: 0,
            lost_bytes: 0,
            lost_secs: 0.0,
            done: false,
            note: None,
        };
        assert_eq!(lost(&none), "no acknowledged write is lost");
        let some = PromotionView { lost_writes: 3, lost_bytes: 5000, lost_secs: 1.5, ..none };
        assert_eq!(
            lost(&some),
            "lost: the last 3 acknowledged writes, 5000 bytes, the oldest 1.500 s old"
        );
        let unknown = PromotionView { exact: false, lost_writes: 0, ..some };
        let text = lost(&unknown);
        assert!(text.starts_with("lost: not known, at most the last "), "{text}");
    }
}
