// SPDX-License-Identifier: Apache-2.0
//! Writing a part of an upload: summed once, on a thread of its own, and compared with what the store tells.

use std::time::Instant;

use bytes::Bytes;
use driver_api::{
    Error, ErrorKind, Result,
    ext::{ObjectName, PartInfo, UploadInfo},
};
use http::Method;

use crate::{
    account::Account,
    call::Ask,
    config::Kind,
    control::{azure, s3},
    error::{self, invalid},
    features,
    info::unquoted,
    names::check_object,
    put::{compare, with_sum},
    sums::{self, Way},
};

/// What was damaged on its way is sent so often.
const DAMAGED: u32 = 3;

/// Refuses numbers and sizes that no part has.
fn check(account: &Account, number: u32, len: usize) -> Result<()> {
    let limits = features::of(account);
    if number == 0 || number > limits.max_parts {
        return Err(invalid(format!("parts have numbers from 1 to {}", limits.max_parts))
            .with("part", number));
    }
    if len == 0 {
        return Err(invalid("a part has at least one byte").with("part", number));
    }
    if len as u64 > limits.max_part {
        return Err(
            invalid(format!("a part has at most {} bytes", limits.max_part)).with("part", number)
        );
    }
    Ok(())
}

/// Writes a part of an upload to S3, Azure or GCS.
pub(crate) async fn put_part(
    account: &Account,
    upload: &UploadInfo,
    number: u32,
    data: Bytes,
    until: Instant,
) -> Result<PartInfo> {
    check_object(account.kind, &ObjectName::new(&upload.bucket, &upload.key))?;
    if upload.id.is_empty() {
        return Err(invalid("the upload has no id").with("object", &upload.key));
    }
    check(account, number, data.len())?;
    let size = data.len() as u64;
    let way = if account.kind == Kind::Gcs { Way::Crc32c } else { Way::Md5 };
    let sum = sums::make(way, &data).await?;
    let ask = Ask::new("put part", Method::PUT, &upload.bucket, &upload.key).body(data);
    let mut block = String::new();
    let ask = match account.kind {
        Kind::Azure => {
            block = azure::uploads::block_id(&upload.id, number)?;
            ask.query("comp", "block").query("blockid", block.as_str())
        }
        _ => {
            let (id, _) = s3::uploads::split_id(&upload.id);
            ask.headers(&account.customer)
                .query("partNumber", number.to_string())
                .query("uploadId", id)
        }
    };
    let ask = with_sum(account, ask, sum)?;
    for attempt in 1.. {
        let answer =
            account.ask_ok(&ask, until).await.map_err(|error| error.with("part", number))?;
        let compared = compare(account, &answer, sum);
        match compared {
            Ok(()) => {
                let etag = if block.is_empty() { unquoted(answer.header("etag")) } else { &block };
                if etag.is_empty() {
                    break;
                }
                let (etag, checksum) = (etag.into(), sum.told().into());
                return Ok(PartInfo { number, size, etag, checksum, reserved: [0; 2] });
            }
            // A part that is sent again replaces the damaged one.
            Err(_) if attempt < DAMAGED => {}
            Err(error) => return Err(error::place(error, account, &ask).with("part", number)),
        }
    }
    let error = Error::new(ErrorKind::CORRUPTED, "the store tells no ETag for a part")
        .remedy("look whether `endpoint` names a store of the configured `kind`");
    Err(error::place(error, account, &ask).with("part", number))
}
