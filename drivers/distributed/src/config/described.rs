// SPDX-License-Identifier: Apache-2.0
//! What the driver says of itself and its options.

use driver_api::{DriverInfo, OptionSpec, OptionType};

use super::{CONSISTENCIES, PLACEMENTS, healing, replication};
use crate::sharding::PATTERNS;

/// What the driver says of itself.
pub(crate) fn describe() -> DriverInfo {
    let option =
        |name, kind, default: &str, help| OptionSpec::new(name, kind, help).default_json(default);
    let info = DriverInfo::new("sharded, replicated volumes over other backends")
        .option(option(
            "root_dir",
            OptionType::PATH,
            "\"/var/lib/novacron/distributed\"",
            "Names the installation; nothing is kept there, the state is the host's.",
        ))
        .option(option(
            "max_capacity",
            OptionType::SIZE,
            "0",
            "Most bytes that volumes may provision, every replica counted; 0 for no limit.",
        ))
        .option(option(
            "default_replication_factor",
            OptionType::INTEGER,
            "3",
            "Replicas of a volume that names no number.",
        ))
        .option(option(
            "default_encryption",
            OptionType::BOOLEAN,
            "false",
            "Encrypt volumes; not in this version.",
        ))
        .option(option(
            "enable_sharding",
            OptionType::BOOLEAN,
            "true",
            "Cut volumes into shards; otherwise each is one shard.",
        ))
        .option(OptionSpec::new(
            "shard_size",
            OptionType::SIZE,
            "Bytes of a shard of a volume that names no size; default: by its size and pattern.",
        ))
        .option(
            option(
                "consistency_protocol",
                OptionType::CHOICE,
                "\"eventual\"",
                "What readers see; in a synchronous volume every read is strong whatever this says.",
            )
            .choices(CONSISTENCIES),
        )
        .option(option(
            "healing_query_count",
            OptionType::INTEGER,
            "5",
            "Health checks in a row that a node has to fail before it counts as down.",
        ))
        .option(option(
            "health_check_interval",
            OptionType::TEXT,
            "\"1m\"",
            "Time between two health checks of a node.",
        ))
        .option(option(
            "down_grace",
            OptionType::TEXT,
            "\"10m\"",
            "For how long a node is down until its shards are to be replicated elsewhere.",
        ))
        .option(option(
            "auto_rebalance",
            OptionType::BOOLEAN,
            "false",
            "Rebalance volumes when nodes come, go or change weight; otherwise when they are told to.",
        ))
        .option(option(
            "healing_interval",
            OptionType::TEXT,
            "\"1h\"",
            "Time between two rounds that end interrupted deletions.",
        ))
        .option(healing::option())
        .option(option(
            "synchronous_replication",
            OptionType::BOOLEAN,
            "false",
            "Acknowledge a write when every in-sync replica has it; otherwise when one has, and the others follow.",
        ))
        .option(
            option(
                "placement",
                OptionType::CHOICE,
                "\"balanced\"",
                "How volumes are spread over nodes: by weight, by hash, neighbours together, or zones first.",
            )
            .choices(PLACEMENTS),
        )
        .option(option(
            "nodes",
            OptionType::TEXTS,
            "[]",
            "Backends that are registered as nodes when this one is opened.",
        ))
        .option(option(
            "min_in_sync",
            OptionType::INTEGER,
            "1",
            "Replicas of a shard that must be in sync for a write to begin.",
        ))
        .option(
            option(
                "shortage",
                OptionType::CHOICE,
                "\"read_only\"",
                "What a write does while fewer are: fail, or wait.",
            )
            .choices(&["read_only", "wait"]),
        )
        .option(option(
            "scrub_interval",
            OptionType::TEXT,
            "\"0s\"",
            "Time between two scrubs of a volume, such as 7d; 0s: none begins by itself.",
        ))
        .option(option(
            "verify_reads",
            OptionType::BOOLEAN,
            "false",
            "Answer a read only if two replicas agree, where two are in sync.",
        ))
        .option(option(
            "io_timeout_secs",
            OptionType::INTEGER,
            "30",
            "Seconds after which a replica that does not answer is given up.",
        ));
    let info = replication::options().into_iter().fold(info, DriverInfo::option);
    let info = replication::volume_options().into_iter().fold(info, DriverInfo::volume_option);
    info.volume_option(OptionSpec::new(
            "replication_factor",
            OptionType::INTEGER,
            "Replicas of the volume; default: the backend's.",
        ))
        .volume_option(OptionSpec::new(
            "scrub_interval",
            OptionType::TEXT,
            "Time between two scrubs of the volume, such as 7d; default: the backend's.",
        ))
        .volume_option(OptionSpec::new(
            "verify_reads",
            OptionType::BOOLEAN,
            "Answer a read only if two replicas agree; default: the backend's.",
        ))
        .volume_option(OptionSpec::new(
            "shard_size",
            OptionType::TEXT,
            "Bytes of a shard, such as 64MiB, or auto: by size and pattern; default: the backend's.",
        ))
        .volume_option(
            OptionSpec::new(
                "pattern",
                OptionType::CHOICE,
                "How clients use it, which says how large shards are that name no size; default: mixed.",
            )
            .choices(PATTERNS),
        )
        .volume_option(
            OptionSpec::new(
                "consistency_protocol",
                OptionType::CHOICE,
                "What readers see; default: the backend's.",
            )
            .choices(CONSISTENCIES),
        )
        .volume_option(OptionSpec::new(
            "synchronous_replication",
            OptionType::BOOLEAN,
            "Whether every in-sync replica has a write when it is acknowledged; default: the backend's.",
        ))
        .volume_option(healing::volume_option())
        .volume_option(OptionSpec::new(
            "nodes",
            OptionType::TEXT,
            "Nodes that may hold it, separated by commas; default: all.",
        ))
        .volume_option(
            OptionSpec::new(
                "placement",
                OptionType::CHOICE,
                "How it is spread over nodes; default: the backend's.",
            )
            .choices(PLACEMENTS),
        )
        .volume_option(OptionSpec::new(
            "drivers",
            OptionType::TEXT,
            "Drivers of the nodes that may hold it, such as ceph, separated by commas; default: any.",
        ))
}
