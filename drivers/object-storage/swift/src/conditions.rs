// SPDX-License-Identifier: Apache-2.0

//! Conditions of a read. Those on the ETag are judged by the answer's own: a Ceph gateway compares that of a large object with
//! another one, and refuses every `If-Match`.

use http::HeaderMap;
use object_store::GetOptions;

use crate::attributes;
use crate::client::Call;
use crate::error::{Failure, FailureKind};

/// Adds the conditions that the server judges.
pub(crate) fn ask(mut call: Call, options: &GetOptions) -> Call {
    // Without it the server would send what is here already.
    if let Some(etags) = &options.if_none_match {
        call = call.header("If-None-Match", etags);
    }
    // A condition on the ETag outdoes the one on the date.
    let unmodified = options.if_unmodified_since.filter(|_| options.if_match.is_none());
    let modified = options.if_modified_since.filter(|_| options.if_none_match.is_none());
    for (name, date) in [("If-Modified-Since", modified), ("If-Unmodified-Since", unmodified)] {
        if let Some(date) = date {
            // Swift rounds its own times up to the second before it compares.
            let date = date + chrono::Duration::nanoseconds(999_999_999);
            call = call.header(name, date.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        }
    }
    call
}

/// Fails if what the server answered with does not meet the conditions on its ETag.
pub(crate) fn judge(call: &Call, options: &GetOptions, headers: &HeaderMap) -> Result<(), Failure> {
    let etag = attributes::header_etag(headers);
    if options.if_match.as_ref().is_some_and(|wanted| !names(wanted, etag.as_deref())) {
        let cause = "the object has another ETag than the one that was asked for";
        return Err(call.failure(FailureKind::Precondition, cause));
    }
    if options.if_none_match.as_ref().is_some_and(|held| names(held, etag.as_deref())) {
        let cause = "the object still has this ETag";
        return Err(call.failure(FailureKind::NotModified, cause));
    }
    Ok(())
}

/// Whether a list of ETags, as a header has it, names this one. `*` names that of any object.
fn names(list: &str, etag: Option<&str>) -> bool {
    let is_it = |one: &str| {
        let one = one.trim();
        one == "*" || Some(attributes::etag(one.strip_prefix("W/").unwrap_or(one)).as_str()) == etag
    };
    list.split(',').any(is_it)
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_list_names_its_etags_with_quotes_and_without() {
        for list in ["ab", "\"ab\"", "W/\"ab\"", "\"cd\", \"ab\"", "cd,ab", "*"] {
            assert!(names(list, Some("ab")), "{list}");
        }
        for list in ["", "a", "\"abc\"", "\"AB\"", "cd, ef"] {
            assert!(!names(list, Some("ab")), "{list}");
        }
        assert!(names("*", None));
        assert!(!names("ab", None));
    }
}
