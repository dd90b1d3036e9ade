// SPDX-License-Identifier: Apache-2.0
//! What each kind of store can do, and its limits.

use driver_api::ext::{ObjectAbilities, ObjectFeatures};

use crate::{account::Account, config::Kind, control, probing::Heeded};

/// The most bytes of one answer with content: what is held in memory for it.
pub(crate) const MAX_PIECE: u32 = 64 << 20;
/// The most bytes that are written at once.
pub(crate) const MAX_PUT: u64 = 256 << 20;

const COMMON: ObjectAbilities = ObjectAbilities::BUCKETS
    .and(ObjectAbilities::CREATE_ONLY)
    .and(ObjectAbilities::CHANGE_METADATA)
    .and(ObjectAbilities::SIGN)
    .and(ObjectAbilities::SIGN_PARTS)
    .and(ObjectAbilities::LIST_UPLOADS);

/// What the account's store can do.
pub(crate) fn of(account: &Account) -> ObjectFeatures {
    let mut features = limits(account.kind);
    features.kind = account.kind.name().into();
    if account.kind == Kind::S3 {
        // What has been found out since counts; until then the usual is assumed, and checked before it is relied on.
        let heeded = match account.probed.get() {
            _ if !account.conditional() => Heeded::default(),
            Some(heeded) => *heeded,
            None => Heeded {
                create: true,
                update: true,
                copy: true,
                delete: true,
                complete_create: true,
                complete_update: true,
                bare: false,
            },
        };
        for (heeds, ability) in [
            (heeded.create, ObjectAbilities::CREATE_ONLY),
            (heeded.update, ObjectAbilities::UPDATE),
            (heeded.delete, ObjectAbilities::CONDITIONAL_DELETE),
            (heeded.complete_create, ObjectAbilities::CREATE_ONLY_COMPLETE),
            (heeded.complete_update, ObjectAbilities::UPDATE_COMPLETE),
        ] {
            if !heeds {
                features.abilities = features.abilities.without(ability);
            }
        }
    }
    features
}

fn limits(kind: Kind) -> ObjectFeatures {
    type Has = ObjectAbilities;
    let mut features = ObjectFeatures {
        abilities: COMMON,
        max_put: MAX_PUT,
        max_piece: MAX_PIECE,
        max_page: control::max_page(kind),
        max_bulk_delete: control::MAX_BULK,
        max_sign_secs: control::MAX_SIGN_SECS,
        min_part: 5 << 20,
        max_part: 5 << 30,
        max_parts: control::max_parts(kind),
        max_object: 5 << 40,
        ..ObjectFeatures::default()
    };
    let more = match kind {
        Kind::S3 => {
            Has::VERSIONING
                | Has::POLICY
                | Has::EXPIRE_RULES
                | Has::ABORT_RULES
                | Has::TRANSITION_RULES
                | Has::UPDATE
                | Has::CONDITIONAL_DELETE
                | Has::CREATE_ONLY_COMPLETE
                | Has::UPDATE_COMPLETE
                | Has::TAGS
                | Has::STORAGE_CLASSES
                | Has::BULK_DELETE
                | Has::STREAM
        }
        // It tells sums of ranges up to a size, which those who read in pieces are given.
        Kind::Azure => {
            features.min_part = 1;
            features.max_part = 4000 << 20;
            features.max_object = 190 << 40;
            Has::POLICY
                | Has::UPDATE
                | Has::CONDITIONAL_DELETE
                | Has::CREATE_ONLY_COMPLETE
                | Has::UPDATE_COMPLETE
                | Has::TAGS
                | Has::STORAGE_CLASSES
        }
        Kind::Gcs => {
            Has::VERSIONING
                | Has::POLICY
                | Has::EXPIRE_RULES
                | Has::ABORT_RULES
                | Has::TRANSITION_RULES
                | Has::UPDATE
                | Has::CONDITIONAL_DELETE
                | Has::STORAGE_CLASSES
                | Has::STREAM
        }
        Kind::Swift => {
            features.min_part = 1;
            features.max_object = 1000 * (5 << 30);
            Has::VERSIONING
                | Has::POLICY
                | Has::OBJECT_EXPIRY
                | Has::BULK_DELETE
                | Has::CREATE_ONLY_COMPLETE
        }
    };
    features.abilities = features.abilities | more;
    features
}
