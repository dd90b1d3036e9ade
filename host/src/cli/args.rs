// SPDX-License-Identifier: Apache-2.0
//! What can be typed.

pub mod objects;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{
    changes::ChangesOf,
    check::Check,
    movement::{addition, weight},
};
use crate::{access::Rule, api::movement::PlanStep, config::parse_size, jobs::ImageFormat};

/// A storage host for virtual machines and containers.
#[derive(Parser, Debug)]
#[command(name = "novastor", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// Read this configuration file instead of /etc/novastor/host.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The host's management socket; otherwise the configuration's
    #[arg(long, global = true, value_name = "SOCKET", env = "NOVASTOR_SOCKET")]
    pub socket: Option<PathBuf>,
    /// How answers are written
    #[arg(long, global = true, value_enum, default_value_t)]
    pub output: Output,
    /// Repeat an earlier request: the host gives the same answer and does nothing twice
    #[arg(long, global = true, value_name = "KEY")]
    pub request_id: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// How answers are written.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Be the host: load drivers, open backends, serve volumes
    Serve(Serve),
    /// Show how the host is
    Status(Watched),
    /// Drivers in plugins.d
    #[command(subcommand)]
    Driver(DriverCommand),
    /// Configured backends
    #[command(subcommand)]
    Backend(BackendCommand),
    /// Nodes of a backend that spreads volumes over other backends
    #[command(subcommand)]
    Node(NodeCommand),
    /// Volumes
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Single shards of volumes
    #[command(subcommand)]
    Shard(ShardCommand),
    /// Snapshots of volumes
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Ways to a volume for clients
    #[command(subcommand)]
    Export(ExportCommand),
    /// Buckets of backends with objects
    #[command(subcommand)]
    Bucket(objects::BucketCommand),
    /// Objects in buckets
    #[command(subcommand)]
    Object(objects::ObjectCommand),
    /// Work that goes on in the host
    #[command(subcommand)]
    Job(JobCommand),
    /// Write a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `novastor serve`
#[derive(Args, Debug)]
pub struct Serve {
    /// Set a key of the configuration, such as log.filter=debug
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Check the configuration and the drivers it needs, and serve nothing
    #[arg(long)]
    pub check: bool,
    /// Open no sockets; serve the one NBD client at standard input and output, until it leaves
    #[arg(long, conflicts_with = "check")]
    pub stdio: bool,
}

/// A view that can be watched.
#[derive(Args, Clone, Copy, Debug)]
pub struct Watched {
    /// Show it again every second
    #[arg(long)]
    pub watch: bool,
}

/// `novastor driver`
#[derive(Subcommand, Debug)]
pub enum DriverCommand {
    /// List the files in plugins.d
    List(Watched),
    /// Show a driver with its options
    Show {
        /// The driver
        name: String,
    },
    /// Put a driver through every promise of a volume, without a host
    Check(Check),
    /// Look at plugins.d now
    Rescan,
}

/// `novastor backend`
#[derive(Subcommand, Debug)]
pub enum BackendCommand {
    /// List the configured backends
    List(Watched),
    /// Show a backend
    Show {
        /// The backend
        name: String,
    },
    /// Open a backend that is unavailable
    Open {
        /// The backend
        name: String,
    },
    /// List what its driver has mounted, and why a mount is in its state
    Mounts(super::mounts::Mounts),
    /// List the commands of its driver
    Commands {
        /// The backend
        name: String,
    },
    /// Run a command of its driver
    Run {
        /// The backend
        name: String,
        /// The command
        command: String,
        /// Its arguments, as JSON
        #[arg(default_value = "{}")]
        arguments: String,
    },
}

/// The backend whose nodes are meant.
#[derive(Args, Clone, Debug)]
pub struct Cluster {
    /// The backend; the only one with nodes if none
    #[arg(long)]
    pub backend: Option<String>,
}

/// What is said of a node.
#[derive(Args, Clone, Debug)]
pub struct NodeFacts {
    /// What it is for, such as storage
    #[arg(long)]
    pub role: Option<String>,
    /// Where it is; the backend knows how to reach it
    #[arg(long)]
    pub address: Option<String>,
    /// Its port; 0 for none
    #[arg(long)]
    pub port: Option<u16>,
    /// Its failure zone; an empty one for a zone of its own
    #[arg(long)]
    pub zone: Option<String>,
    /// Its share of new shards relative to others; 0 for none
    #[arg(long)]
    pub weight: Option<u32>,
    /// Whether new shards may be placed on it
    #[arg(long, value_name = "true|false")]
    pub available: Option<bool>,
}

/// Changes of nodes that are thought of.
#[derive(Args, Clone, Debug)]
pub struct PlanFlags {
    /// A backend would become a node
    #[arg(long, value_name = "NAME[:zone=ZONE,weight=WEIGHT]", value_parser = addition)]
    pub add: Vec<PlanStep>,
    /// A node would be taken out
    #[arg(long, value_name = "NODE")]
    pub remove: Vec<String>,
    /// A node would be emptied
    #[arg(long, value_name = "NODE")]
    pub drain: Vec<String>,
    /// A node would get another weight
    #[arg(long, value_name = "NODE=WEIGHT", value_parser = weight)]
    pub weight: Vec<PlanStep>,
}

/// `novastor node`
#[derive(Subcommand, Debug)]
pub enum NodeCommand {
    /// List nodes
    List {
        #[command(flatten)]
        cluster: Cluster,
        #[command(flatten)]
        watched: Watched,
    },
    /// Show a node
    Show {
        /// The node
        name: String,
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Make a configured backend a node
    Add {
        /// The backend that becomes a node
        name: String,
        #[command(flatten)]
        cluster: Cluster,
        #[command(flatten)]
        facts: NodeFacts,
    },
    /// Take out a node that holds no bricks
    Remove {
        /// The node
        name: String,
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Make volumes whose state is lost anew from what their bricks say of themselves
    Recover {
        /// The volume; all that are found if none
        volume: Option<String>,
        /// Give up bricks that were not found, and what only they have
        #[arg(long)]
        accept_missing: bool,
        /// Only show what would be done
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Show what would move if nodes changed; without a change, what rebalancing would move now
    Plan {
        /// The volume; all if none
        volume: Option<String>,
        #[command(flatten)]
        flags: PlanFlags,
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Mark a node to be emptied: it gets nothing, and rebalancing takes what it has
    Drain {
        /// The node
        name: String,
        /// Take the mark away
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Change what is said of a node; bricks stay where they are
    Set {
        /// The node
        name: String,
        #[command(flatten)]
        cluster: Cluster,
        #[command(flatten)]
        facts: NodeFacts,
    },
}

/// `novastor shard`
#[derive(Subcommand, Debug)]
pub enum ShardCommand {
    /// Write bytes of a shard to standard output
    Read {
        /// The volume
        volume: String,
        /// The shard's number
        shard: u64,
        /// First byte, within the shard
        #[arg(long, value_parser = size, default_value = "0")]
        offset: u64,
        /// How many; to the shard's end if none
        #[arg(long, value_parser = size)]
        length: Option<u64>,
    },
    /// Write standard input to a shard, on all replicas in sync, durably
    Write {
        /// The volume
        volume: String,
        /// The shard's number
        shard: u64,
        /// First byte, within the shard
        #[arg(long, value_parser = size, default_value = "0")]
        offset: u64,
    },
}

/// Where a new volume goes, and how it is made.
#[derive(Args, Clone, Debug)]
pub struct Placement {
    /// The backend; the active one if none
    #[arg(long)]
    pub backend: Option<String>,
    /// An option of the driver's own
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = pair)]
    pub options: Vec<(String, String)>,
}

/// How a job is awaited.
#[derive(Args, Clone, Copy, Debug)]
pub struct Waiting {
    /// Do not wait for its end
    #[arg(long)]
    pub no_wait: bool,
}

/// How an asynchronous volume is promoted.
#[derive(Args, Clone, Debug)]
pub struct PromoteFlags {
    /// The node that is to acknowledge; the one that lacks least if none
    #[arg(long)]
    pub node: Option<String>,
    /// Give up, too, what only the host's memory has: do not bring it to the node first
    #[arg(long)]
    pub at_once: bool,
    /// Only tell what would be lost
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
}

/// `novastor volume`
#[derive(Subcommand, Debug)]
pub enum VolumeCommand {
    /// Create a volume that reads zeros
    Create {
        /// Its name
        name: String,
        /// Its size, such as 10GiB
        #[arg(long, value_parser = size)]
        size: u64,
        /// A label
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
        #[command(flatten)]
        placement: Placement,
    },
    /// Delete a volume that nobody uses
    Delete {
        /// Its name
        name: String,
        /// Its snapshots, too; without this a volume that has some is kept
        #[arg(long)]
        snapshots: bool,
    },
    /// List volumes
    List {
        /// Also those that backends have and this host does not manage
        #[arg(long)]
        unmanaged: bool,
        #[command(flatten)]
        watched: Watched,
    },
    /// Show a volume
    Show {
        /// Its name
        name: String,
    },
    /// Change a volume's size, also while it is in use
    Resize {
        /// Its name
        name: String,
        /// Its new size
        #[arg(value_parser = size)]
        size: u64,
        /// It may be smaller: what is cut off is lost
        #[arg(long)]
        shrink: bool,
    },
    /// Make a new volume with the content of another
    Clone {
        /// The volume
        source: String,
        /// The new volume
        name: String,
        /// The snapshot of it
        #[arg(long)]
        snapshot: Option<String>,
        /// The new volume's size, if larger
        #[arg(long, value_parser = size)]
        size: Option<u64>,
        #[command(flatten)]
        placement: Placement,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Give a clone all that it shares with its source, while it is in use; the source is not needed any more then
    Flatten {
        /// Its name
        name: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Give a volume that nobody uses another name, here and in its backend if that is able to
    Rename {
        /// Its name
        name: String,
        /// Its new name
        to: String,
    },
    /// List where a volume differs from a snapshot, or two snapshots from each other
    Changes(ChangesOf),
    /// Attach a volume until it is detached, also across restarts
    Attach {
        /// Its name
        name: String,
        /// For reading only
        #[arg(long)]
        read_only: bool,
        /// Take it from its present holder, who may never write to it again
        #[arg(long)]
        take_over: bool,
    },
    /// End an attachment
    Detach {
        /// Its name
        name: String,
    },
    /// Make a volume of an image file
    Import {
        /// The image
        file: PathBuf,
        /// The new volume
        name: String,
        /// The image's format
        #[arg(long, value_enum, default_value = "auto")]
        format: Format,
        #[command(flatten)]
        placement: Placement,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Make an image file of a volume
    Export {
        /// The volume
        name: String,
        /// The new image
        file: PathBuf,
        /// The image's format
        #[arg(long, value_enum, default_value = "raw")]
        format: Format,
        /// Replace a file of that name
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Take a volume that a backend has under management
    Adopt {
        /// Its name here
        name: String,
        /// The backend; the active one if none
        #[arg(long)]
        backend: Option<String>,
        /// Its name in the backend, if another
        #[arg(long)]
        inner_name: Option<String>,
    },
    /// Show a volume's replicas
    Replicas {
        /// Its name
        name: String,
    },
    /// List a volume's shards with the nodes that hold them
    Shards {
        /// Its name
        name: String,
        /// The first one listed
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// How many
        #[arg(long, default_value_t = 1000)]
        limit: u32,
    },
    /// Compare all replicas of a volume; fails as Corrupted where they differ
    Verify {
        /// Its name
        name: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Make the replicas of a volume equal to those of one node, where they differ
    Repair {
        /// Its name
        name: String,
        /// The node whose bytes are the right ones
        #[arg(long, value_name = "NODE")]
        source: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Move a volume's shards to where its options and the nodes of now say, while it is in use
    Rebalance {
        /// Its name
        name: String,
        /// Only show how far that is
        #[arg(long)]
        status: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Compare what is at rest of a volume with its digests; fails as Corrupted where replicas are damaged
    Scrub {
        /// Its name
        name: String,
        /// Give damaged replicas what a good one has, where it is known which is good
        #[arg(long)]
        repair: bool,
        /// Only show how far that is, and what it found
        #[arg(long, conflicts_with = "repair")]
        status: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Change options of the driver's own, such as replication_factor=2
    Set {
        /// Its name
        name: String,
        /// The options
        #[arg(value_name = "KEY=VALUE", value_parser = pair, required = true)]
        options: Vec<(String, String)>,
        /// Change nothing; show what would move then
        #[arg(long, conflicts_with = "rebalance")]
        plan: bool,
        /// Move the volume's shards at once
        #[arg(long)]
        rebalance: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Write bytes of a volume to standard output
    Read {
        /// Its name
        name: String,
        /// First byte
        #[arg(long, value_parser = size, default_value = "0")]
        offset: u64,
        /// How many; to the end if none
        #[arg(long, value_parser = size)]
        length: Option<u64>,
        /// Read nothing older than this token says; an empty one begins a session. The next is told on standard error
        #[arg(long)]
        token: Option<String>,
    },
    /// Write standard input to a volume, durably
    Write {
        /// Its name
        name: String,
        /// First byte
        #[arg(long, value_parser = size, default_value = "0")]
        offset: u64,
        /// Belong to the session with this token; an empty one begins a session. The next is told on standard error
        #[arg(long)]
        token: Option<String>,
    },
    /// Have another node of an asynchronous volume acknowledge: what only the one before has is lost, and told first
    Promote {
        /// Its name
        name: String,
        #[command(flatten)]
        flags: PromoteFlags,
    },
}

/// `novastor snapshot`
#[derive(Subcommand, Debug)]
pub enum SnapshotCommand {
    /// Take a snapshot
    Create {
        /// The volume
        volume: String,
        /// The snapshot
        name: String,
        /// Of these volumes as well, all at one point: changes of all of them are held meanwhile
        #[arg(long, value_name = "VOLUME", num_args = 1..)]
        with: Vec<String>,
        /// Seconds for which changes are held at most; after that, no snapshot is taken
        #[arg(long, value_name = "SECONDS", requires = "with", value_parser = clap::value_parser!(u64).range(1..=60))]
        longest_pause: Option<u64>,
    },
    /// List a volume's snapshots
    List {
        /// The volume
        volume: String,
        #[command(flatten)]
        watched: Watched,
    },
    /// Delete a snapshot
    Delete {
        /// The volume
        volume: String,
        /// The snapshot
        name: String,
    },
    /// Protect a snapshot: it cannot be deleted, nor its volume
    Protect {
        /// The volume
        volume: String,
        /// The snapshot
        name: String,
        /// Take the protection away
        #[arg(long)]
        undo: bool,
    },
    /// Put a volume back to a snapshot: what was written since is lost
    Rollback {
        /// The volume
        volume: String,
        /// The snapshot
        name: String,
    },
}

/// `novastor export`
#[derive(Subcommand, Debug)]
pub enum ExportCommand {
    /// Let clients reach a volume over NBD
    Add {
        /// The volume
        volume: String,
        /// The name that clients ask for, if another
        #[arg(long)]
        name: Option<String>,
        /// For reading only
        #[arg(long)]
        read_only: bool,
        /// Admit only whom a rule names: unix, uid:N, net:ADDRESS/BITS, cert:DNSNAME or sha256:HEX
        #[arg(long, value_name = "RULE", value_parser = rule, num_args = 1..)]
        allow: Vec<String>,
        /// Serve it to clients that name no export; otherwise they get the only one
        #[arg(long)]
        default: bool,
        /// Take the volume from its present holder, who may never write to it again
        #[arg(long)]
        take_over: bool,
    },
    /// List exports
    List(Watched),
    /// Show an export
    Show {
        /// The export
        name: String,
    },
    /// Join standard input and output to the host's NBD socket, for a client at their other end
    ///
    /// For ssh, inetd and the like: `nbdfuse DIR --command ssh HOST novastor export connect`. The client names the export itself.
    Connect {
        /// See first that this export is ready; the client may still ask for another
        name: Option<String>,
    },
    /// Remove an export, once its clients' requests are done
    Remove {
        /// The export
        name: String,
    },
}

/// `novastor job`
#[derive(Subcommand, Debug)]
pub enum JobCommand {
    /// List jobs, newest first
    List(Watched),
    /// Show a job
    Show {
        /// Its number
        id: u64,
    },
    /// Ask a job to end
    Cancel {
        /// Its number
        id: u64,
    },
    /// Go on with a verify, repair, scrub, rebalance or flatten that did not come to its end
    Resume {
        /// Its number
        id: u64,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Wait for a job's end
    Wait {
        /// Its number
        id: u64,
    },
}

/// Formats of image files.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum Format {
    /// Look at the file
    Auto,
    /// The volume's bytes as they are
    Raw,
    /// QEMU's format
    Qcow2,
}

impl From<Format> for ImageFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Auto => Self::Auto,
            Format::Raw => Self::Raw,
            Format::Qcow2 => Self::Qcow2,
        }
    }
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|error| format!("{error:#}"))
}

fn rule(text: &str) -> Result<String, String> {
    match text.parse::<Rule>() {
        Ok(rule) => Ok(rule.to_string()),
        Err(error) => Err(format!("{error}; {}", error.remedy_text())),
    }
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it is not of the form KEY=VALUE".to_owned()),
    }
}
