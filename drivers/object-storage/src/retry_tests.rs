// SPDX-License-Identifier: Apache-2.0
use bytes::Bytes;
use http::Method;

use super::*;

fn answer(status: u16, body: &str) -> Answer {
    let status = StatusCode::from_u16(status).expect("a status");
    Answer {
        status,
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        doubt: None,
    }
}

#[test]
fn what_may_have_been_done_is_told_from_what_was_not() {
    let error = |code: &str| format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code></Error>");
    for (status, body, expected) in [
        (200, String::new(), "final"),
        (404, error("NoSuchKey"), "final"),
        (412, error("PreconditionFailed"), "final"),
        (429, String::new(), "refused"),
        (408, String::new(), "refused"),
        (409, error("OperationAborted"), "refused"),
        (409, error("BucketNotEmpty"), "final"),
        (400, error("RequestTimeout"), "refused"),
        (500, String::new(), "doubtful"),
        (503, error("SlowDown"), "doubtful"),
        (501, String::new(), "final"),
        (200, error("InternalError"), "doubtful"),
        (200, error("AccessDenied"), "final"),
    ] {
        let meant = match meaning(&answer(status, &body)) {
            Meaning::Final => "final",
            Meaning::Refused => "refused",
            Meaning::Doubtful => "doubtful",
        };
        assert_eq!(meant, expected, "{status} {body}");
    }
}

#[test]
fn an_error_is_known_by_its_root() {
    for text in ["<Error><Code/></Error>", "\u{feff}<?xml version=\"1.0\"?>\n  <Error xmlns=\"x\">"]
    {
        assert!(is_error(text.as_bytes()), "{text}");
    }
    for text in ["", "<Errors>", "<Result><Error>", "Error", "<?xml"] {
        assert!(!is_error(text.as_bytes()), "{text}");
    }
}

#[test]
fn pauses_grow_to_an_end_and_heed_the_server() {
    let mut pauses = Pauses::new();
    let mut last = Duration::ZERO;
    for _ in 0..20 {
        last = pauses.pause(None);
        assert!(last <= LONGEST);
    }
    assert!(last >= LONGEST / 2);
    assert!(pauses.pause(Some(Duration::from_secs(60))) >= Duration::from_secs(60));
    let mut headers = HeaderMap::new();
    headers.insert(RETRY_AFTER, "7".parse().expect("a header"));
    assert_eq!(retry_after(&headers), Some(Duration::from_secs(7)));
    headers.insert("date", "Thu, 01 Jan 1970 00:02:00 GMT".parse().expect("a header"));
    headers.insert(RETRY_AFTER, "Thu, 01 Jan 1970 00:02:09 GMT".parse().expect("a header"));
    assert_eq!(retry_after(&headers), Some(Duration::from_secs(9)));
}

#[test]
fn an_outcome_is_unknown_only_for_what_changes_something() {
    let options = serde_json::json!({"kind": "s3", "credentials": "none"});
    let account =
        Account::new(serde_json::from_value(options).expect("options")).expect("an account");
    let doubt = Some(Doubt { since: Instant::now() });
    let last = || Some(Error::new(ErrorKind::UNAVAILABLE, "the store failed"));
    let end = |method, doubt| {
        let ask = Ask::new("test", method, "bucket", "key");
        account.given_up(&ask, doubt, last(), 3)
    };
    assert_eq!(end(Method::GET, doubt).kind(), ErrorKind::UNAVAILABLE);
    assert_eq!(end(Method::PUT, None).kind(), ErrorKind::UNAVAILABLE);
    let unknown = end(Method::PUT, doubt);
    assert_eq!((unknown.kind(), unknown.retry()), (ErrorKind::TIMED_OUT, Retry::TEMPORARY));
    let ask = Ask::new("test", Method::PUT, "bucket", "key")
        .header("if-none-match", "*")
        .expect("a header");
    assert_eq!(account.given_up(&ask, doubt, last(), 1).retry(), Retry::PERMANENT);
}
