// SPDX-License-Identifier: Apache-2.0
//! Everything that the protocol's document names, in a table: done, refused or not offered, and each of it tried, with
//! libnbd where libnbd can say it and otherwise with a client that says anything. The rows and their checks are in
//! `tests/end-to-end/nbdsh/protocol`.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::Stage;
use crate::{
    certificates::{Certificates, free_address},
    clients,
    failure::{Context, Failure, Outcome, ensure},
    host::{Host, install},
    libnbd::Libnbd,
    program::until,
};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
const HUGE: u64 = 8 << 30;
/// Fewer rows would mean that part of the table was not played.
const AT_LEAST: usize = 100;
const BACKENDS: &str = r#"
[backends.faulty]
driver = "faulty"

[backends.short]
driver = "faulty"
short_reads = true

[backends.blocks]
driver = "faulty"
min_block = 4096

[backends.fenced]
driver = "faulty"
fail_in = "write"
fail_as = "Fenced"

[backends.unsupported]
driver = "faulty"
fail_in = "write"
fail_as = "Unsupported"

# Long enough that what is read when the host is told to end is not done before.
[backends.slow]
driver = "faulty"
slow_in = "read"
slow_ms = 2000
"#;

/// A line of the table.
#[derive(Debug)]
struct Row {
    section: String,
    name: String,
    number: String,
    verdict: String,
    by: String,
    why: Option<String>,
}

pub(super) fn play(stage: &Stage) -> Outcome {
    let libnbd = Libnbd::beside(&stage.artifacts)?;
    let certificates = Certificates::make(&stage.path("certificates"))?;
    let address = free_address()?;
    let nbd = certificates.listen(&address, "tls = \"require\"");
    let host = Host::start_serving(&stage.artifacts, &nbd, BACKENDS)?;
    install(&stage.artifacts.faulty()?, &host.plugins())?;
    exports(&host)?;
    let without_tls = Host::start(&stage.artifacts, "")?;
    stage.tell("all exports are served");

    let (ip, port) =
        address.split_once(':').ok_or_else(|| Failure::new(format!("no port in {address}")))?;
    let cli: Vec<_> =
        host.cli().words(&[]).iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let told = json!({
        "socket": host.nbd_socket(), "plain": without_tls.nbd_socket(), "cli": cli, "pid": host.id()?, "size": SIZE, "huge": HUGE, "default": "disk",
        "certificates": certificates.client("nobody"),
        "tls": [ip, port.parse::<u16>().context("port")?],
    });
    let said = libnbd.script("protocol").arg(told.to_string()).codes(&[]).limit_secs(300).run()?;
    let rows = parse(&said.stdout).context(format!("the table\n{}", said.stderr))?;
    stage.tell_all(&table(&rows));
    ensure(said.code == 0 && rows.len() >= AT_LEAST, || {
        format!(
            "the table ended early, after {} rows, with {}:\n{}",
            rows.len(),
            said.code,
            said.stderr
        )
    })?;
    let failed: Vec<_> =
        rows.iter().filter(|row| row.why.is_some()).map(|row| &*row.name).collect();
    ensure(failed.is_empty(), || {
        format!("{} of {} rows are not as said: {}", failed.len(), rows.len(), failed.join(", "))
    })?;
    stage.tell(summary(&rows));
    Ok(())
}

fn exports(host: &Host) -> Outcome {
    let cli = host.cli();
    host.volume("disk", SIZE, "raw")?;
    clients::qemu_io(&host.uri("disk"), "write -P 0x5a 0 1M")?;
    cli.ask().args(["export", "remove", "disk"]).run()?;
    cli.ask().args(["export", "add", "disk", "--default"]).run()?;
    for volume in ["readonly", "denied"] {
        cli.create_volume(volume, SIZE, None, &[])?;
    }
    cli.ask().args(["export", "add", "readonly", "--read-only"]).run()?;
    cli.ask().args(["export", "add", "denied", "--allow", "net:192.0.2.0/24"]).run()?;
    host.volume("huge", HUGE, "raw")?;
    for volume in ["faulty", "short", "blocks", "fenced", "unsupported", "slow"] {
        // The driver was installed a moment ago.
        until(Duration::from_secs(30), || cli.create_volume(volume, MIB, Some(volume), &[]))?;
        cli.add_export(volume)?;
    }
    Ok(())
}

fn parse(lines: &str) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for line in lines.lines() {
        let row: Value = serde_json::from_str(line).context(line)?;
        let text = |key: &str| row[key].as_str().map(ToOwned::to_owned);
        let field = |key: &str| text(key).ok_or_else(|| Failure::new(format!("no {key}: {line}")));
        rows.push(Row {
            section: field("section")?,
            name: field("name")?,
            number: field("number")?,
            verdict: field("verdict")?,
            by: field("by")?,
            why: text("why"),
        });
    }
    Ok(rows)
}

fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut section = "";
    for row in rows {
        if section != row.section {
            section = &row.section;
            text += &format!("\n  {section}\n");
        }
        let verdict = if row.why.is_some() { "NOT SO" } else { &row.verdict };
        text += &format!("    {:<48} {:<14} {verdict:<12} {}\n", row.name, row.number, row.by);
        if let Some(why) = &row.why {
            text += &format!("      should be {}, but {why}\n", row.verdict);
        }
    }
    text + "\n"
}

fn summary(rows: &[Row]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        *counts.entry(&row.verdict).or_default() += 1;
    }
    let counts = counts.iter().map(|(verdict, count)| format!("{count} {verdict}"));
    format!("{} rows: {}", rows.len(), counts.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::{parse, summary, table};

    #[test]
    fn a_row_that_is_not_so_is_told() {
        let line = |why: &str| {
            format!(
                r#"{{"section":"s","name":"NBD_X","number":"1","verdict":"done","by":"raw","why":{why}}}"#
            )
        };
        let rows = parse(&format!("{}\n{}\n", line("null"), line("\"it hung\""))).unwrap();
        assert_eq!(summary(&rows), "2 rows: 2 done");
        let text = table(&rows);
        assert_eq!(text.matches("NOT SO").count(), 1);
        assert!(text.contains("should be done, but it hung"), "{text}");
        assert!(parse("{}").is_err() && parse("Traceback").is_err());
    }
}
