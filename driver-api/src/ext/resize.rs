// SPDX-License-Identifier: Apache-2.0
use crate::{Op, OpContext};

/// Changing a volume's size while it is attached.
pub trait Resize: Send + Sync {
    /// Makes the volume `size` bytes long. `[any thread · volume attached]`
    ///
    /// New bytes read zeros. A smaller size needs `shrink`, otherwise the answer is `InvalidArgument`; what is cut off is gone,
    /// and reads zeros after growing again.
    fn resize(&self, cx: &OpContext, size: u64, shrink: bool) -> Op<()>;
}
