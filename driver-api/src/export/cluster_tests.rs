// SPDX-License-Identifier: Apache-2.0
use abi_stable::std_types::RString;

use super::*;
use crate::{ext::unsupported, host::NoServices};

/// A cluster that answers whatever reaches it, and has one node that panics.
struct Answers;

impl Cluster for Answers {
    fn nodes(&self, _cx: &OpContext) -> Op<RVec<NodeInfo>> {
        Op::ok(RVec::new())
    }

    fn add_node(&self, _cx: &OpContext, _node: NodeSpec) -> Op<NodeInfo> {
        Op::err(unsupported("add node"))
    }

    fn set_node(&self, _cx: &OpContext, _name: &str, _change: NodeChange) -> Op<NodeInfo> {
        Op::err(unsupported("set node"))
    }

    fn remove_node(&self, _cx: &OpContext, name: &str) -> Op<()> {
        panic!("{name} was asked to panic")
    }

    fn replication(&self, _cx: &OpContext, _volume: &str) -> Op<ReplicationInfo> {
        Op::err(unsupported("replication"))
    }

    fn shards(
        &self,
        _cx: &OpContext,
        _volume: &str,
        _first: u64,
        _limit: u32,
    ) -> Op<RVec<ShardInfo>> {
        Op::ok(RVec::new())
    }

    fn read_shard(
        &self,
        _cx: &OpContext,
        _volume: &str,
        _shard: u64,
        _offset: u64,
        len: u32,
    ) -> Op<IoBuf> {
        Op::ok(IoBuf::copy_from(&vec![0; len as usize]))
    }

    fn write_shard(
        &self,
        _cx: &OpContext,
        _volume: &str,
        _shard: u64,
        _offset: u64,
        _data: IoBuf,
        _flags: WriteFlags,
    ) -> Op<()> {
        Op::ok(())
    }

    fn verify(&self, _cx: &OpContext, volume: &str, _offset: u64, _len: u32) -> Op<Comparison> {
        let differing = RVec::from(vec![RString::from(volume)]);
        Op::ok(Comparison { differing, ..Comparison::default() })
    }

    fn repair(
        &self,
        _cx: &OpContext,
        _volume: &str,
        _offset: u64,
        _len: u32,
        _source: &str,
    ) -> Op<()> {
        Op::ok(())
    }
}

const MAX_IO: u32 = 8 << 20;

fn handle() -> ClusterHandle {
    export_cluster(Arc::new(Answers), Host::new(NoServices), MAX_IO)
}

fn kind<T>(op: Op<T>) -> Option<ErrorKind> {
    match op {
        Op::Ready(result) => result.into_result().err().map(|error| error.kind()),
        Op::Pending(_) => panic!("what is refused, and what is at hand, is ready"),
    }
}

#[test]
fn lengths_that_no_piece_has_are_refused() {
    let (cluster, cx) = (handle(), OpContext::new());
    for (len, refused) in [(0, true), (1, false), (PIECE, false), (PIECE + 1, true)] {
        let expected = refused.then_some(ErrorKind::INVALID_ARGUMENT);
        assert_eq!(kind(cluster.verify(&cx, "v", 0, len)), expected, "verify {len}");
        assert_eq!(kind(cluster.repair(&cx, "v", 0, len, "n")), expected, "repair {len}");
    }
    for (len, refused) in [(0, true), (1, false), (MAX_IO, false), (MAX_IO + 1, true)] {
        let expected = refused.then_some(ErrorKind::INVALID_ARGUMENT);
        assert_eq!(kind(cluster.read_shard(&cx, "v", 0, 0, len)), expected, "read {len}");
        let data = IoBuf::copy_from(&vec![0; len as usize]);
        let written = cluster.write_shard(&cx, "v", 0, 0, data, WriteFlags::NONE);
        assert_eq!(kind(written), expected, "write {len}");
    }
}

#[test]
fn flags_that_a_shard_does_not_know_are_refused() {
    let (cluster, cx) = (handle(), OpContext::new());
    let write = |flags| kind(cluster.write_shard(&cx, "v", 0, 0, IoBuf::from_static(&[1]), flags));
    assert_eq!(write(WriteFlags::FUA), None);
    for flags in [WriteFlags::NO_HOLE, WriteFlags::FUA.and(WriteFlags::from_bits(1 << 20))] {
        assert_eq!(write(flags), Some(ErrorKind::INVALID_ARGUMENT), "{flags:?}");
    }
}

#[test]
fn a_panic_is_an_answer_and_texts_arrive() {
    let (cluster, cx) = (handle(), OpContext::new());
    assert_eq!(kind(cluster.remove_node(&cx, "n1")), Some(ErrorKind::PANIC));
    let Op::Ready(answer) = cluster.verify(&cx, "disk", 0, 4096) else { panic!("it is ready") };
    assert_eq!(answer.into_result().expect("compared").differing[0].as_str(), "disk");
}

#[test]
fn a_cluster_that_cannot_recover_says_so() {
    let refused = match handle().recover(&OpContext::new(), "", false, true) {
        Op::Ready(answer) => answer.into_result().expect_err("it cannot"),
        Op::Pending(_) => panic!("it is ready"),
    };
    assert_eq!(refused.kind(), ErrorKind::UNSUPPORTED);
    assert!(refused.remedy_text().contains("driver-api 1.3"), "{refused:#}");
}

#[test]
fn a_cluster_that_cannot_move_shards_says_so() {
    let (cluster, cx) = (handle(), OpContext::new());
    let kinds = [
        kind(cluster.plan(&cx, "", RVec::new())),
        kind(cluster.drain(&cx, "n1", true)),
        kind(cluster.rebalance(&cx, "v", true)),
        kind(cluster.rebalancing(&cx, "v")),
        kind(cluster.configure(&cx, "v", RVec::new())),
        kind(cluster.plan_options(&cx, "v", RVec::new())),
        kind(cluster.scrub(&cx, "v", true, false)),
        kind(cluster.scrubbing(&cx, "v")),
    ];
    assert_eq!(kinds, [Some(ErrorKind::UNSUPPORTED); 8]);
}
