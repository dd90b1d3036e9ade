// SPDX-License-Identifier: Apache-2.0
use super::*;

fn chosen(options: &[(&str, &str)]) -> Result<Chosen> {
    let mut config = serde_json::Map::new();
    for option in &crate::config::describe().options {
        if let driver_api::ROption::RSome(default) = &option.default {
            config.insert(option.name.to_string(), serde_json::from_str(default).unwrap());
        }
    }
    let config: Config = serde_json::from_value(config.into()).unwrap();
    let stored = r#"{"replication_factor":3,"shard_size":1048576,"consistency":"strong","synchronous":true,"nodes":[]}"#;
    let before: Chosen = serde_json::from_str(stored).unwrap();
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    before.changed(&config, 1 << 30, &options.collect::<Vec<_>>())
}

#[test]
fn a_volume_may_become_asynchronous_with_bounds_of_its_own() {
    let volume = chosen(&[
        ("synchronous_replication", "false"),
        ("consistency_protocol", "causal"),
        ("most_behind", "1MiB"),
        ("most_behind_secs", "2"),
        ("min_in_sync", "2"),
        ("shortage", "wait"),
    ]);
    let volume = volume.unwrap();
    assert_eq!((volume.mode(), volume.consistency), (Mode::Asynchronous, Consistency::Causal));
    assert_eq!(volume.bounds.most_behind, Some(1 << 20));
    assert_eq!(volume.bounds.most_behind_secs, Some(2));
    assert_eq!(
        (volume.bounds.min_in_sync, volume.bounds.shortage),
        (Some(2), Some(WhenShort::Wait))
    );
}

#[test]
fn what_contradicts_itself_is_refused_with_the_option() {
    for (options, named) in [
        (
            &[("synchronous_replication", "false"), ("replication_factor", "1")][..],
            "synchronous_replication",
        ),
        (&[("min_in_sync", "4")], "min_in_sync"),
        (&[("min_in_sync", "0")], "min_in_sync"),
        (&[("most_behind", "0")], "most_behind"),
        (&[("most_behind_secs", "0")], "most_behind"),
        (&[("most_behind", "much")], "most_behind"),
    ] {
        let refused = chosen(options).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::INVALID_ARGUMENT, "{options:?}");
        assert!(format!("{refused:#}").contains(named), "{options:?}: {refused:#}");
    }
}

#[test]
fn choices_of_before_there_were_bounds_are_read() {
    let stored = r#"{"replication_factor":2,"shard_size":1048576,"consistency":"strong","synchronous":true,"nodes":[]}"#;
    let chosen: Chosen = serde_json::from_str(stored).unwrap();
    assert_eq!(chosen.bounds, Bounds::default());
}
