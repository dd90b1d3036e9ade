// SPDX-License-Identifier: Apache-2.0
//! What no volume can be made of is refused, with the way on, before anything is written.

use crate::{
    cli::Cli,
    cluster::{BACKEND, Cluster},
    failure::{Outcome, ensure},
    program::Said,
};

const SIZE: &str = "64MiB";

/// What is asked for, and what the answer has to say: the cause, and the remedy.
const CASES: [(&[&str], [&str; 2]); 8] = [
    (&["--option", "replication_factor=5"], ["5", "node"]),
    (&["--option", "shard_size=0"], ["not empty", "64MiB"]),
    (&["--option", "shard_size=1000"], ["multiple", "64MiB"]),
    (&["--option", "drivers=ceph"], ["no node is a backend of this driver", "faulty, local"]),
    (&["--option", "drivers=local", "--option", "replication_factor=4"], ["4", "node"]),
    (&["--option", "placement=nearby"], ["nearby", "placement"]),
    (&["--option", "nodes=n1,n1,n2"], ["named twice", "n1"]),
    (&["--option", "nodes=n1,n2,n9"], ["no node of this name", "novastor node list"]),
];

/// How many requests are refused.
pub fn count() -> usize {
    CASES.len() + 3
}

/// Asks for all that.
pub fn play(cluster: &Cluster) -> Outcome {
    let cli = cluster.host.cli();
    let before = cluster.files()?;
    for (options, texts) in CASES {
        let words = ["volume", "create", "bad", "--size", SIZE, "--backend", BACKEND];
        says(&refused(cli, words.iter().chain(options))?, &texts)?;
    }
    let huge = ["volume", "create", "bad", "--size", "1GiB", "--backend", BACKEND];
    let local = ["--option", "drivers=local"];
    says(&refused(cli, huge.iter().chain(&local))?, &["max_capacity", "raise"])?;
    let again = ["node", "add", "n1", "--zone", "elsewhere"];
    says(&refused(cli, again.iter())?, &["is a node already", "novastor node set"])?;
    cli.create_volume("taken.b1", 1 << 20, Some("n2"), &[])?;
    let taken = ["volume", "create", "taken", "--size", SIZE, "--backend", BACKEND];
    let nodes = ["--option", "nodes=n1,n2,n3"];
    says(&refused(cli, taken.iter().chain(&nodes))?, &["belongs to somebody else", "n2"])?;
    cli.ask().args(["volume", "delete", "taken.b1"]).run()?;
    let after = cluster.files()?;
    ensure(before == after, || format!("something was written: {before:?} became {after:?}"))?;
    Ok(())
}

fn refused<'w>(cli: &Cli, words: impl Iterator<Item = &'w &'w str>) -> Outcome<Said> {
    let said = cli.ask().args(words).codes(&[]).run()?;
    ensure(said.code > 0, || format!("not refused: {}", said.stdout))?;
    Ok(said)
}

fn says(said: &Said, texts: &[&str]) -> Outcome {
    for text in texts {
        ensure(said.stderr.contains(text), || format!("{text:?} is not in: {}", said.stderr))?;
    }
    Ok(())
}
