// SPDX-License-Identifier: Apache-2.0
//! The ability `cluster` as of 1.2, for the memory driver: one node, and nothing else.

use driver_api::ext::{
    Cluster, Comparison, NodeChange, NodeInfo, NodeSpec, ReplicationInfo, ShardInfo, unsupported,
};

impl Cluster for Room {
    fn nodes(&self, _cx: &OpContext) -> Op<RVec<NodeInfo>> {
        let (spec, health) = (NodeSpec::new("only"), Health::healthy());
        let node = NodeInfo { id: 0, spec, health, used: 0, provisioned: 0, reserved: [0; 4] };
        Op::ok(vec![node].into())
    }

    fn add_node(&self, _cx: &OpContext, _node: NodeSpec) -> Op<NodeInfo> {
        Op::err(unsupported("add_node"))
    }

    fn set_node(&self, _cx: &OpContext, _name: &str, _change: NodeChange) -> Op<NodeInfo> {
        Op::err(unsupported("set_node"))
    }

    fn remove_node(&self, _cx: &OpContext, _name: &str) -> Op<()> {
        Op::err(unsupported("remove_node"))
    }

    fn replication(&self, _cx: &OpContext, _volume: &str) -> Op<ReplicationInfo> {
        Op::err(unsupported("replication"))
    }

    fn shards(&self, _cx: &OpContext, _volume: &str, _first: u64, _most: u32) -> Op<RVec<ShardInfo>> {
        Op::ok(RVec::new())
    }

    fn read_shard(&self, _cx: &OpContext, _volume: &str, _shard: u64, _at: u64, _len: u32) -> Op<IoBuf> {
        Op::err(unsupported("read_shard"))
    }

    fn write_shard(
        &self,
        _cx: &OpContext,
        _volume: &str,
        _shard: u64,
        _at: u64,
        _data: IoBuf,
        _flags: WriteFlags,
    ) -> Op<()> {
        Op::err(unsupported("write_shard"))
    }

    fn verify(&self, _cx: &OpContext, _volume: &str, _at: u64, _len: u32) -> Op<Comparison> {
        Op::err(unsupported("verify"))
    }

    fn repair(&self, _cx: &OpContext, _volume: &str, _at: u64, _len: u32, _source: &str) -> Op<()> {
        Op::err(unsupported("repair"))
    }
}
