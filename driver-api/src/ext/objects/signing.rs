// SPDX-License-Identifier: Apache-2.0
use abi_stable::{
    StableAbi,
    std_types::{RString, RVec, Tuple2},
};

use super::ObjectName;

/// What a signed URL may be used for. Since 1.3.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SignedMethod(u32);

impl SignedMethod {
    /// Reading the object.
    pub const GET: Self = Self(0);
    /// Asking about the object.
    pub const HEAD: Self = Self(1);
    /// Writing the object whole.
    pub const PUT: Self = Self(2);
    /// Deleting the object.
    pub const DELETE: Self = Self(3);
    /// Writing a part of an upload.
    pub const PUT_PART: Self = Self(4);

    /// The method of HTTP to be used with the URL.
    pub fn http(self) -> &'static str {
        match self {
            Self::GET => "GET",
            Self::HEAD => "HEAD",
            Self::DELETE => "DELETE",
            _ => "PUT",
        }
    }
}

/// A request that is to be signed. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct SignRequest {
    /// What the URL may be used for.
    pub method: SignedMethod,
    /// With which object.
    pub object: ObjectName,
    /// For how long, in seconds: 1 to [`ObjectFeatures::max_sign_secs`](super::ObjectFeatures::max_sign_secs).
    pub expire_secs: u64,
    /// The upload's id, for a part.
    pub upload: RString,
    /// The part's number, for a part.
    pub part: u32,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// A signed request. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct SignedUrl {
    /// Its URL.
    pub url: RString,
    /// The method of HTTP to be used.
    pub method: RString,
    /// Headers that must be sent with it.
    pub headers: RVec<Tuple2<RString, RString>>,
    /// When it expires, in seconds since 1970.
    pub expires: u64,
    /// Zero in this version.
    pub reserved: [u64; 4],
}
