// SPDX-License-Identifier: Apache-2.0
//! The calls that a host makes into a driver, by name: for the watchdog, for reports of panics, and for what must never
//! be dropped half-way.

macro_rules! calls {
    ($($name:ident = $text:literal, $mutates:literal;)*) => {
        /// A call into a driver.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum Call { $($name),* }

        impl Call {
            const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The method's name, as the ABI has it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// Whether the call changes anything, so that its future must be polled to its end.
            pub fn mutates(self) -> bool {
                match self { $(Self::$name => $mutates),* }
            }
        }
    };
}

calls! {
    Open = "open", true;
    Wrap = "wrap", true;
    Capabilities = "capabilities", false;
    Create = "create", true;
    Delete = "delete", true;
    List = "list", false;
    Show = "show", false;
    Attach = "attach", true;
    Usage = "usage", false;
    Health = "health", false;
    Stats = "stats", false;
    Close = "close", true;
    Clones = "clones", false;
    CloneVolume = "clone_volume", true;
    Commands = "commands", false;
    RunCommand = "run_command", true;
    Size = "size", false;
    Read = "read", false;
    Write = "write", true;
    Flush = "flush", true;
    Discard = "discard", true;
    WriteZeroes = "write_zeroes", true;
    Prefetch = "prefetch", false;
    Detach = "detach", true;
    Incarnation = "incarnation", false;
    Snapshots = "snapshots", false;
    CreateSnapshot = "create_snapshot", true;
    ListSnapshots = "list_snapshots", false;
    DeleteSnapshot = "delete_snapshot", true;
    Rollback = "rollback", true;
    Resize = "resize", true;
    Extents = "extents", false;
    Sessions = "sessions", false;
    OpenSession = "open_session", false;
    Token = "token", false;
    Nodes = "nodes", false;
    AddNode = "add_node", true;
    SetNode = "set_node", true;
    RemoveNode = "remove_node", true;
    Replication = "replication", false;
    Shards = "shards", false;
    ReadShard = "read_shard", false;
    WriteShard = "write_shard", true;
    Verify = "verify", false;
    Repair = "repair", true;
    Recover = "recover", true;
    Plan = "plan", false;
    Drain = "drain", true;
    Rebalance = "rebalance", true;
    Rebalancing = "rebalancing", false;
    Configure = "configure", true;
    PlanOptions = "plan_options", false;
    Scrub = "scrub", true;
    Scrubbing = "scrubbing", false;
    Promote = "promote", true;
    Flatten = "flatten", true;
    Flattening = "flattening", false;
    Changes = "changes", false;
    Rename = "rename", true;
    ProtectSnapshot = "protect_snapshot", true;
    ObjectFeatures = "features", false;
    CreateBucket = "create_bucket", true;
    DeleteBucket = "delete_bucket", true;
    Buckets = "buckets", false;
    ShowBucket = "bucket", false;
    SetVersioning = "set_versioning", true;
    Policy = "policy", false;
    SetPolicy = "set_policy", true;
    Lifecycle = "lifecycle", false;
    SetLifecycle = "set_lifecycle", true;
    ListObjects = "list_objects", false;
    HeadObject = "head_object", false;
    GetObject = "get_object", false;
    OpenObject = "open_object", false;
    ReadObject = "read_object", false;
    PutObject = "put_object", true;
    CopyObject = "copy_object", true;
    DeleteObject = "delete_object", true;
    DeleteObjects = "delete_objects", true;
    ObjectTags = "object_tags", false;
    ChangeObject = "change_object", true;
    BeginUpload = "begin_upload", true;
    PutPart = "put_part", true;
    ListParts = "list_parts", false;
    CompleteUpload = "complete_upload", true;
    AbortUpload = "abort_upload", true;
    ListUploads = "list_uploads", false;
    Sign = "sign", false;
    Drop = "drop", false;
}

impl Call {
    /// The call with this number, as [`Call`] casts to it.
    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}
