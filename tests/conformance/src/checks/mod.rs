// SPDX-License-Identifier: Apache-2.0
//! All checks, by area: what each promises, what it needs, and the function that asks.

mod allocation;
mod attach;
mod cancellation;
mod changes;
mod clones;
mod concurrency;
mod concurrent_io;
mod contents;
mod data;
mod durability;
mod errors;
mod flatten;
mod info;
mod lifecycle;
mod moments;
mod names;
mod objects;
mod resize;
mod sessions;
mod sizes;
mod snapshots;
mod streams;
mod takeover;
mod uploads;
mod zero;

use std::{future::Future, pin::Pin};

use driver_api::Abilities;

pub(crate) use objects::ability;

use crate::{case::Case, volume::Checked};

type Asking<'a> = Pin<Box<dyn Future<Output = Checked> + Send + 'a>>;

/// One check.
pub(crate) struct Check {
    pub area: &'static str,
    pub name: &'static str,
    pub promise: &'static str,
    pub needs: Abilities,
    pub run: for<'a> fn(&'a Case<'a>) -> Asking<'a>,
}

/// What a check is about, for lists and documentation.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// The part of the contract.
    pub area: &'static str,
    /// The name in that area.
    pub name: &'static str,
    /// What a driver promises.
    pub promise: &'static str,
    /// The abilities without which it is not asked.
    pub needs: Abilities,
}

/// Every check there is, in the order of a run.
pub fn all() -> impl Iterator<Item = Described> {
    CHECKS.iter().map(|&Check { area, name, promise, needs, .. }| Described {
        area,
        name,
        promise,
        needs,
    })
}

macro_rules! checks {
    ($($area:literal {
        $($name:literal [$($ability:ident)*] $function:path: $promise:literal;)*
    })*) => {
        pub(crate) static CHECKS: &[Check] = &[$($(Check {
            area: $area,
            name: $name,
            promise: $promise,
            needs: Abilities::NONE$(.and(Abilities::$ability))*,
            run: |case| Box::pin($function(case)),
        },)*)*];
    };
}

checks! {
    "lifecycle" {
        "create-show-list-delete" [] lifecycle::create_show_list_delete:
            "A volume is listed and shown as created, until it is deleted.";
        "names" [] lifecycle::names:
            "Every allowed name comes back as it was given, and names that resemble each other are different volumes.";
        "create-again" [WRITE] lifecycle::create_again:
            "Creating what exists, with the same arguments, succeeds and changes nothing.";
        "already-exists" [WRITE] lifecycle::already_exists:
            "Creating another volume of a taken name is AlreadyExists and changes nothing.";
        "not-found" [] lifecycle::not_found:
            "Showing, attaching and deleting what is not there is NotFound.";
        "unknown-option" [] lifecycle::unknown_option:
            "A volume option that the driver does not know is refused.";
        "delete-in-use" [WRITE] lifecycle::delete_in_use:
            "An attached volume is not deleted: InUse.";
        "recreated" [WRITE] lifecycle::recreated:
            "A volume of a deleted one's name reads zeros.";
        "rename" [WRITE RENAME] names::rename:
            "A renamed volume has its content, size and snapshots under the new name alone, and the old one is free.";
        "rename-refused" [WRITE RENAME] names::refused:
            "Renaming an attached volume is InUse, onto another AlreadyExists, a missing one NotFound; each changes nothing.";
        "sizes" [WRITE] sizes::sizes:
            "A volume has exactly the size that was asked for, and all of it is usable.";
        "sparse" [WRITE] sizes::sparse:
            "A volume of 1 TiB keeps far places apart.";
        "too-large" [] sizes::too_large:
            "A volume beyond max_volume_size is refused, and not made.";
    }
    "data" {
        "new-reads-zeros" [] data::new_reads_zeros:
            "A new volume reads zeros.";
        "alignments" [WRITE] data::alignments:
            "At every offset and length that min_block allows, what was written is read, and nothing beside it changes.";
        "boundaries" [WRITE] data::boundaries:
            "The last block works, and one byte further is OutOfRange without effect.";
        "zero-length" [WRITE] data::zero_length:
            "A read or write of nothing changes nothing.";
        "max-io" [WRITE] data::max_io:
            "An operation of max_io bytes is done whole.";
        "write-flags" [WRITE] data::write_flags:
            "A write with unknown flags is refused and not done.";
        "fua" [WRITE FUA] data::fua:
            "A write with FUA is done like any other.";
        "read-your-writes" [WRITE] data::read_your_writes:
            "An acknowledged write is visible to every later read.";
        "isolation" [WRITE] data::isolation:
            "What is written to a volume appears in no other.";
        "read-buffers" [WRITE] data::read_buffers:
            "What a read returned stays as it was when the volume is written later.";
        "write-buffers" [WRITE] data::write_buffers:
            "A written buffer is not changed, and given back at the latest with the volume.";
        "prefetch" [WRITE PREFETCH] data::prefetch:
            "A prefetch succeeds anywhere in the volume, is OutOfRange beyond, and changes nothing.";
        "host-buffers" [WRITE] data::host_buffers:
            "A read into a buffer that the host lends overwrites every byte of it.";
        "concurrent" [WRITE] concurrent_io::concurrent:
            "With 32 operations at once, every sector holds one write's data, and an acknowledged write is seen by all later reads.";
        "concurrent-neighbours" [WRITE] concurrent_io::neighbours:
            "Concurrent writes to neighbouring blocks do not undo each other.";
    }
    "durability" {
        "detach" [WRITE PERSISTENT] durability::detach:
            "After a detach, all acknowledged writes survive the backend.";
        "flush" [WRITE PERSISTENT] durability::flush:
            "A write before an acknowledged flush survives a host that dies without detaching.";
        "flush-covers-all" [WRITE PERSISTENT] durability::flush_covers_all:
            "One flush covers every write acknowledged before it, on every connection.";
        "fua" [WRITE FUA PERSISTENT] durability::fua:
            "A write with FUA survives a host that dies without flushing.";
        "volumes" [WRITE PERSISTENT] durability::volumes:
            "Volumes, their sizes and their absence survive a restart.";
    }
    "zero" {
        "discard" [WRITE DISCARD] zero::discard:
            "A discarded range reads zeros, and its neighbours are untouched.";
        "discard-range" [WRITE DISCARD] zero::discard_range:
            "A discard past the end is OutOfRange and changes nothing.";
        "write-zeroes" [WRITE WRITE_ZEROES] zero::write_zeroes:
            "A zeroed range reads zeros under every combination of flags, and its neighbours are untouched.";
        "write-zeroes-range" [WRITE WRITE_ZEROES] zero::write_zeroes_range:
            "Zeroing past the end is OutOfRange and changes nothing.";
        "fast-only" [WRITE WRITE_ZEROES] zero::fast_only:
            "FAST_ONLY zeroes quickly where fast-zero is claimed, and is otherwise done or Unsupported without effect.";
        "fast-zero" [WRITE WRITE_ZEROES FAST_ZERO] zero::fast_zero:
            "Where fast-zero is claimed, FAST_ONLY succeeds.";
    }
    "allocation" {
        "shape" [WRITE ALLOCATION_MAP] allocation::shape:
            "Extents begin where they were asked for, follow each other without gaps, and respect the limit.";
        "truth" [WRITE ALLOCATION_MAP] allocation::truth:
            "What the map calls zero reads zeros, after any mixture of writes, discards and zeroes.";
        "no-hole" [WRITE WRITE_ZEROES ALLOCATION_MAP] allocation::no_hole:
            "A range zeroed with NO_HOLE is no hole.";
    }
    "changes" {
        "truth" [WRITE SNAPSHOT CHANGES] changes::truth:
            "Every byte that differs between two snapshots is told, in order and within the limit; what is called zero is.";
        "resized" [WRITE SNAPSHOT GROW SHRINK CHANGES] changes::resized:
            "What was cut off between two snapshots, and grown again, is told as well.";
        "refusals" [WRITE SNAPSHOT CHANGES] changes::refusals:
            "A missing snapshot is NotFound, a later one first InvalidArgument, a range past the end OutOfRange.";
    }
    "resize" {
        "grow" [WRITE GROW] resize::grow:
            "Growing keeps the data, and the new bytes read zeros.";
        "shrink-asked" [WRITE GROW] resize::shrink_asked:
            "A smaller size without `shrink` is InvalidArgument and changes nothing.";
        "shrink" [WRITE GROW SHRINK] resize::shrink:
            "What was cut off is gone: it reads zeros after growing again.";
        "under-writes" [WRITE GROW] resize::under_writes:
            "Writes that are acknowledged while a volume grows are kept.";
    }
    "snapshots" {
        "list" [WRITE SNAPSHOT] snapshots::list:
            "Snapshots are listed oldest first with the volume's size; a taken name is AlreadyExists, a missing one NotFound.";
        "fixed" [WRITE SNAPSHOT] snapshots::fixed:
            "A snapshot keeps what the volume held, whatever is written later.";
        "rollback" [WRITE SNAPSHOT ROLLBACK] snapshots::rollback:
            "A rollback brings back content and size, and the snapshot stays.";
        "delete" [WRITE SNAPSHOT] snapshots::delete:
            "Deleting a snapshot harms neither the volume nor other snapshots.";
        "protect" [WRITE SNAPSHOT PROTECT] snapshots::protect:
            "A protected snapshot is deleted neither by itself nor with its volume, until the protection is taken away.";
        "one-moment" [WRITE SNAPSHOT] moments::snapshot:
            "Under writers, a snapshot holds every write acknowledged before it, none begun after it, and is one moment.";
        "survive" [WRITE SNAPSHOT PERSISTENT] snapshots::survive:
            "Snapshots survive a restart.";
    }
    "clones" {
        "independent" [WRITE CLONE] clones::independent:
            "A clone holds its source's content, and writes to neither reach the other.";
        "of-snapshot" [WRITE CLONE SNAPSHOT] clones::of_snapshot:
            "A clone of a snapshot holds the snapshot's content, not the volume's.";
        "sizes" [WRITE CLONE] clones::sizes:
            "A larger clone reads zeros past its source's end; a smaller one is refused.";
        "refusals" [WRITE CLONE] clones::refusals:
            "A missing source is NotFound; a taken target is AlreadyExists and untouched.";
        "one-moment" [WRITE CLONE] moments::clone:
            "Under writers, a clone holds every write acknowledged before it, none begun after it, and is one moment.";
        "dependents" [WRITE CLONE] clones::dependents:
            "Deleting what a clone came from is InUse or works; the clone keeps its data.";
        "flatten" [WRITE CLONE FLATTEN] flatten::flatten:
            "A flattened clone needs its source no more; it serves meanwhile, and keeps its content.";
        "flatten-ended" [WRITE CLONE FLATTEN] flatten::stopped:
            "Flattening that is ended, or detached, harms nothing and can be begun again.";
    }
    "attach" {
        "exclusive" [WRITE] attach::exclusive:
            "A second exclusive attachment is InUse, names the holder, and leaves it alone.";
        "readers" [WRITE SHARED_READ] attach::readers:
            "Several readers share a volume.";
        "reader-or-writer" [WRITE] attach::reader_or_writer:
            "A reader beside a writer, and a writer beside a reader, is InUse.";
        "read-only" [WRITE] attach::read_only:
            "A read-only attachment refuses every change.";
        "detach" [WRITE] attach::detach:
            "Detaching releases the volume for the next.";
        "detach-race" [WRITE] takeover::detach_race:
            "A detach waits for the writes under way: afterwards none lands, and what was acknowledged is there.";
        "after-detach" [WRITE] attach::after_detach:
            "Operations after a detach fail, and change nothing.";
        "lower-epoch" [WRITE] attach::lower_epoch:
            "Where fencing is claimed, an attachment of a lower epoch is Fenced.";
        "take-over" [WRITE] takeover::take_over:
            "After a forced attachment the old holder's operations are Fenced and change nothing; a force that cannot fence changes nothing.";
        "take-over-race" [WRITE] takeover::race:
            "Writes under way during a take-over land before it or never.";
        "take-over-host" [WRITE PERSISTENT] takeover::other_host:
            "A second opening of the backend sees the holder, and fences it when forced.";
    }
    "sessions" {
        "own-writes" [WRITE SESSIONS] sessions::own_writes:
            "A session reads what it wrote, and so does whoever has its token.";
        "ends" [WRITE SESSIONS] sessions::ends:
            "A session ends without its attachment, and its token outlives both.";
        "tokens" [SESSIONS] sessions::tokens:
            "What is no token is InvalidArgument.";
    }
    "errors" {
        "claims" [] errors::claims:
            "What is claimed is there; what is not claimed is absent and Unsupported.";
        "capabilities" [] errors::capabilities:
            "A volume claims no more than its backend, and limits make sense.";
        "texts" [] errors::texts:
            "Every error says what failed, with a kind that this ABI names.";
    }
    "cancellation" {
        "reads" [WRITE] cancellation::reads:
            "Reads dropped at any point disturb nothing.";
        "writes" [WRITE] cancellation::writes:
            "A write dropped at any point leaves whole sectors, old or new, and its neighbours alone.";
    }
    "info" {
        "stats" [WRITE] info::stats:
            "Figures have Prometheus names and finite values, and counters never fall.";
        "usage" [WRITE] info::usage:
            "Usage adds up, and provisioned grows with each volume.";
        "health" [] info::health:
            "A backend that serves is healthy, or degraded with a reason.";
        "commands" [COMMANDS] info::commands:
            "Commands are described; an unknown one is Unsupported.";
        "incarnation" [WRITE] info::incarnation:
            "The storage's incarnation does not change while nothing is lost.";
    }
    "concurrency" {
        "create-many" [] concurrency::create_many:
            "64 volumes created at once are all there, and deleted at once are all gone.";
        "create-same" [] concurrency::create_same:
            "Of contradicting creates of one name, those of one size succeed and all others are AlreadyExists.";
        "delete-same" [] concurrency::delete_same:
            "Of many deletes of one volume exactly one succeeds, and all others are NotFound.";
        "attach-same" [WRITE] concurrency::attach_same:
            "Of many exclusive attachments at once exactly one succeeds.";
    }
    "objects" {
        "buckets" [OBJECTS] objects::buckets:
            "A bucket is listed and shown until it is deleted; one with objects is InUse, a missing one NotFound.";
        "whole" [OBJECTS] objects::whole:
            "An object comes back as it was written, under an ETag that changes with its content.";
        "metadata" [OBJECTS] objects::metadata:
            "What is said of an object comes back, goes with the object, and can be changed without its content.";
        "keys" [OBJECTS] objects::keys:
            "Keys of all letters come back as they were given, in the order of their bytes.";
        "ranges" [OBJECTS] objects::ranges:
            "A range is exact, refused past the end, and under an ETag never of another object.";
        "streams" [OBJECTS] streams::streams:
            "An object that is opened comes in order to its end, from any place, and is never mixed with another.";
        "create-only" [OBJECTS] objects::create_only:
            "A create-only write makes an object or changes nothing; one that is repeated with its mark knows its own.";
        "update" [OBJECTS] objects::update:
            "A write or deletion under an ETag is of just that object, or changes nothing.";
        "race" [OBJECTS] objects::race:
            "Of many create-only writes at once exactly one succeeds, and its content stays.";
        "listing" [OBJECTS] objects::listing:
            "Pages of any size have each key once and in order; prefixes, delimiters and places to begin at are kept.";
        "deletion" [OBJECTS] objects::deletion:
            "Deleted objects are gone, others stay, and deleting what is not there succeeds.";
        "copies" [OBJECTS] objects::copies:
            "A copy has the source's content and metadata, and is not made under another ETag.";
        "tags" [OBJECTS] objects::tags:
            "Tags come back, and can be changed without the content.";
        "signed" [OBJECTS] objects::signed:
            "URLs are signed for each method, and have an end.";
    }
    "uploads" {
        "parts" [OBJECTS] uploads::parts:
            "Parts in any order become one object when they are completed, and not before; a repeated completion says so again.";
        "given-up" [OBJECTS] uploads::given_up:
            "An upload that is given up is gone, and leaves the object as it was.";
        "conditions" [OBJECTS] uploads::conditions:
            "A create-only completion over an object is refused, and changes nothing.";
    }
}
