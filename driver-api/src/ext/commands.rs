// SPDX-License-Identifier: Apache-2.0
use abi_stable::{
    StableAbi,
    std_types::{RString, RVec},
};

use crate::{Op, OpContext};

/// Commands of the driver's own, which the host's CLI and API pass on.
pub trait Commands: Send + Sync {
    /// The commands there are. Must not block. `[any thread · backend open]`
    fn list(&self) -> RVec<CommandSpec>;

    /// Runs a command. Arguments and answer are JSON. An unknown command: `Unsupported`. `[any thread · backend open]`
    fn run(&self, cx: &OpContext, command: &str, arguments: &str) -> Op<RString>;
}

/// A command of the driver's own.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct CommandSpec {
    /// The name.
    pub name: RString,
    /// One sentence.
    pub help: RString,
    /// The arguments it takes, as an example in JSON.
    pub example: RString,
    /// Whether it changes anything.
    pub mutates: bool,
}
