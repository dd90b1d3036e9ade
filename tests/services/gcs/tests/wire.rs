// SPDX-License-Identifier: Apache-2.0
//! What the server says on the wire: who is let in, checksums, preconditions, parts, buckets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fixture;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use fixture::{BUCKET, Fixture, SCOPE, header, now};
use reqwest::StatusCode;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn only_the_accounts_own_tokens_are_good() {
    let fixture = Fixture::start().await;
    let claims = fixture.claims();
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    for (what, claims) in [
        ("an old one", with("exp", json!(now() - 1))),
        ("one of the future", with("iat", json!(now() + 3000))),
        ("one for two hours", with("exp", json!(now() + 7200))),
        ("somebody else's", with("iss", json!("somebody@else"))),
        ("one for another server", with("aud", json!("https://oauth2.googleapis.com/token"))),
        ("one for something else", with("scope", json!("https://www.googleapis.com/auth/pubsub"))),
    ] {
        assert!(fixture.issue(&claims).await.is_err(), "{what}");
    }
    let good = fixture.web_token(&claims);
    assert!(fixture.issue_for(&good).await.is_ok());
    let (text, _) = good.rsplit_once('.').unwrap();
    let (other, signature) = fixture
        .web_token(&with("exp", json!(now() + 60)))
        .rsplit_once('.')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert_ne!(text, other);
    assert!(
        fixture.issue_for(&format!("{text}.{signature}")).await.unwrap_err().contains("signature")
    );

    let path = format!("{}/{BUCKET}?list-type=2", fixture.url);
    let ask = |token: String| {
        let request = fixture.client.get(&path);
        let request = if token.is_empty() { request } else { request.bearer_auth(token) };
        async move { request.send().await.unwrap() }
    };
    // What a client signs itself needs no audience.
    assert_eq!(ask(good.clone()).await.status(), 200);
    assert_eq!(ask(fixture.token.clone()).await.status(), 200);
    for token in [
        String::new(),
        "ya29.f.99999999999.AAAA".to_owned(),
        format!("{text}.{signature}"),
        format!("{}A", fixture.token),
    ] {
        let answer = ask(token).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert!(header(&answer, "www-authenticate").starts_with("Bearer"));
        assert!(answer.text().await.unwrap().contains("<Code>AuthenticationRequired</Code>"));
    }
    let narrow = fixture
        .issue(&with("scope", json!(SCOPE.replace("full_control", "read_only"))))
        .await
        .unwrap();
    assert_eq!(ask(narrow.clone()).await.status(), 200);
    let put =
        fixture.client.put(format!("{}/{BUCKET}/a", fixture.url)).bearer_auth(&narrow).body("a");
    assert_eq!(put.send().await.unwrap().status(), StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_damaged_or_cut_short_is_not_stored() {
    let fixture = Fixture::start().await;
    let path = format!("/{BUCKET}/a");
    for (name, value) in [
        ("x-goog-hash", "crc32c=AAAAAA=="),
        ("x-goog-hash", "md5=AAAAAAAAAAAAAAAAAAAAAA=="),
        ("content-md5", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ] {
        let answer =
            fixture.request("PUT", &path).header(name, value).body("data").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        assert!(answer.text().await.unwrap().contains("<Code>BadDigest</Code>"));
    }
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Length: 10\r\n\r\nshort",
        fixture.token
    );
    let mut stream = TcpStream::connect(fixture.url.trim_start_matches("http://")).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    assert_eq!(fixture.request("GET", &path).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(fixture.files(), 0);

    let sums = "crc32c=rth90Q==,md5=jXd/OF09/siBXSD3SWAm3A==";
    let answer = fixture
        .request("PUT", &path)
        .header("x-goog-hash", sums)
        .body("data")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    let told: Vec<_> = answer
        .headers()
        .get_all("x-goog-hash")
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    assert_eq!(told.join(","), sums);
    assert_eq!(header(&answer, "etag"), "\"8d777f385d3dfec8815d20f7496026dc\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_creators_wins() {
    let fixture = Fixture::start().await;
    let race = (0..16).map(|writer| {
        let request = fixture
            .request("PUT", &format!("/{BUCKET}/race"))
            .header("x-goog-if-generation-match", "0");
        tokio::spawn(request.body(writer.to_string()).send())
    });
    let mut won = Vec::new();
    for (writer, answer) in race.collect::<Vec<_>>().into_iter().enumerate() {
        match answer.await.unwrap().unwrap().status() {
            StatusCode::OK => won.push(writer.to_string()),
            status => assert_eq!(status, StatusCode::PRECONDITION_FAILED),
        }
    }
    assert_eq!(won.len(), 1);
    let stored = fixture
        .request("GET", &format!("/{BUCKET}/race"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(stored, won[0]);
    assert_eq!(fixture.files(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_hold_or_nothing_happens() {
    let fixture = Fixture::start().await;
    let path = format!("/{BUCKET}/a");
    let generation = header(&fixture.put("a", "one").await, "x-goog-generation").to_owned();
    let status = async |method: &str, name: &str, value: &str| {
        fixture
            .request(method, &path)
            .header(name, value)
            .body("")
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    let stale = "1";
    assert_eq!(status("PUT", "x-goog-if-generation-match", stale).await, 412);
    assert_eq!(status("PUT", "x-goog-if-generation-match", "0").await, 412);
    assert_eq!(status("PUT", "x-goog-if-metageneration-match", "2").await, 412);
    assert_eq!(status("PUT", "x-goog-if-generation-match", "none").await, 400);
    assert_eq!(status("DELETE", "x-goog-if-generation-match", stale).await, 412);
    assert_eq!(status("GET", "x-goog-if-generation-match", stale).await, 412);
    assert_eq!(status("GET", "x-goog-if-generation-match", &generation).await, 200);
    let tag = "\"f97c5d29941bfb1b2fdab0874906ab82\"";
    assert_eq!(status("GET", "if-match", tag).await, 200);
    assert_eq!(status("GET", "if-match", "\"other\"").await, 412);
    assert_eq!(status("HEAD", "if-none-match", tag).await, 304);
    assert_eq!(status("GET", "if-none-match", "\"other\"").await, 200);
    assert_eq!(status("GET", "if-unmodified-since", "Thu, 01 Jan 2015 00:00:00 GMT").await, 412);
    assert_eq!(status("GET", "range", "bytes=3-").await, 416);
    let part = fixture.request("GET", &path).header("range", "bytes=1-1").send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&part, "content-range"), "bytes 1-1/3");
    assert_eq!(part.text().await.unwrap(), "n");
    let head = fixture.request("HEAD", &path).send().await.unwrap();
    assert_eq!(
        (header(&head, "content-length"), header(&head, "x-goog-stored-content-length")),
        ("3", "3")
    );
    assert_eq!(status("DELETE", "x-goog-if-generation-match", &generation).await, 204);
    assert_eq!(status("GET", "range", "bytes=0-").await, 404);
}

fn element<'a>(text: &'a str, name: &str) -> &'a str {
    let (_, rest) =
        text.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name}: {text}"));
    rest.split_once(&format!("</{name}>")).unwrap().0
}

async fn begin(fixture: &Fixture, name: &str) -> String {
    let answer = fixture
        .request("POST", &format!("/{BUCKET}/{name}?uploads"))
        .header("x-goog-meta-a", "b")
        .send()
        .await
        .unwrap();
    element(&answer.text().await.unwrap(), "UploadId").to_owned()
}

async fn part(fixture: &Fixture, name: &str, id: &str, number: usize, size: usize) -> String {
    let path = format!("/{BUCKET}/{name}?partNumber={number}&uploadId={id}");
    let answer = fixture
        .request("PUT", &path)
        .body(vec![u8::try_from(number).unwrap(); size])
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    format!(
        "<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>",
        header(&answer, "etag")
    )
}

async fn complete(fixture: &Fixture, name: &str, id: &str, parts: &[&str]) -> (u16, String) {
    let body = format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.concat());
    let request = fixture
        .request("POST", &format!("/{BUCKET}/{name}?uploadId={id}"))
        .header("x-goog-if-generation-match", "7");
    let answer = request.body(body).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_as_strict_as_googles() {
    let mut fixture = Fixture::start().await;
    let id = begin(&fixture, "a").await;
    let small = part(&fixture, "a", &id, 1, 5 * MIB - 1).await;
    let last = part(&fixture, "a", &id, 2, 1).await;
    assert_eq!(
        element(&complete(&fixture, "a", &id, &[&small, &last]).await.1, "Code"),
        "EntityTooSmall"
    );
    let first = part(&fixture, "a", &id, 1, 5 * MIB).await;
    for (parts, code) in [
        (vec![&last, &first], "InvalidPartOrder"),
        (vec![&small, &last], "InvalidPart"),
        (vec![], "MalformedCompleteMultipartUploadRequest"),
    ] {
        let parts: Vec<_> = parts.into_iter().map(String::as_str).collect();
        assert_eq!(element(&complete(&fixture, "a", &id, &parts).await.1, "Code"), code);
    }
    let listed = fixture
        .request("GET", &format!("/{BUCKET}/a?uploadId={id}&max-parts=1"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(
        (element(&listed, "Size"), element(&listed, "NextPartNumberMarker")),
        ("5242880", "1")
    );
    fixture.restart().await;
    // As with Google, the precondition matters to nobody.
    let (status, text) = complete(&fixture, "a", &id, &[&first, &last]).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(complete(&fixture, "a", &id, &[&first, &last]).await.0, 404);
    fixture.restart().await;
    let answer = fixture
        .request("GET", &format!("/{BUCKET}/a"))
        .header("range", format!("bytes={}-", 5 * MIB - 1))
        .send()
        .await
        .unwrap();
    let hashes: Vec<_> = answer.headers().get_all("x-goog-hash").iter().collect();
    assert_eq!(hashes.len(), 1, "no MD5");
    assert_eq!(header(&answer, "x-goog-meta-a"), "b");
    let whole = [vec![1; 5 * MIB], vec![2]].concat();
    let sum = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        crc32c::crc32c(&whole).to_be_bytes(),
    );
    assert_eq!(hashes[0].to_str().unwrap(), format!("crc32c={sum}"));
    assert_eq!(answer.bytes().await.unwrap().as_ref(), [1, 2]);

    let id = begin(&fixture, "b").await;
    part(&fixture, "b", &id, 1, 1).await;
    let listed = fixture
        .request("GET", &format!("/{BUCKET}?uploads&prefix=b"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(element(&listed, "UploadId"), id);
    assert_eq!(fixture.files(), 3);
    let abort = format!("/{BUCKET}/b?uploadId={id}");
    assert_eq!(fixture.request("DELETE", &abort).send().await.unwrap().status(), 204);
    assert_eq!(fixture.request("DELETE", &abort).send().await.unwrap().status(), 404);
    assert_eq!(fixture.files(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_are_made_changed_and_removed() {
    let mut fixture = Fixture::start().await;
    let buckets = "/storage/v1/b?project=novastor-test";
    let create = |name: &str| {
        fixture.json("POST", buckets, Some(json!({ "name": name, "location": "europe-west1" })))
    };
    assert_eq!(create("Bad").await.0, 400);
    let (status, made) = create("another").await;
    assert_eq!(
        (status.as_u16(), &made["location"], &made["metageneration"]),
        (200, &json!("EUROPE-WEST1"), &json!("1"))
    );
    assert_eq!(create("another").await.0, 409);
    let (_, listed) = fixture.json("GET", &format!("{buckets}&maxResults=1"), None).await;
    assert_eq!(
        (&listed["items"][0]["name"], &listed["nextPageToken"]),
        (&json!("another"), &json!("another"))
    );

    let path = "/storage/v1/b/another";
    let rule = json!({ "rule": [{ "action": { "type": "AbortIncompleteMultipartUpload" }, "condition": { "age": 1 } }] });
    let (status, said) = fixture
        .json("PATCH", path, Some(json!({ "lifecycle": rule, "versioning": { "enabled": true } })))
        .await;
    assert_eq!(status, 200, "{said}");
    for bad in [
        json!({ "rule": [{ "action": { "type": "Explode" }, "condition": { "age": 1 } }] }),
        json!({ "rule": [{ "action": { "type": "Delete" } }] }),
    ] {
        assert_eq!(fixture.json("PATCH", path, Some(json!({ "lifecycle": bad }))).await.0, 400);
    }
    fixture.restart().await;
    let (_, told) = fixture.json("GET", path, None).await;
    assert_eq!((&told["lifecycle"], &told["versioning"]["enabled"]), (&rule, &json!(true)));
    assert_eq!(told["metageneration"], json!("2"));
    assert_eq!(
        fixture.json("PATCH", &format!("{path}?ifMetagenerationMatch=1"), Some(json!({}))).await.0,
        412
    );
    let (_, told) =
        fixture.json("PATCH", path, Some(json!({ "lifecycle": null, "versioning": null }))).await;
    assert!(told.get("lifecycle").is_none() && told.get("versioning").is_none(), "{told}");

    let (_, mut policy) = fixture.json("GET", &format!("{path}/iam"), None).await;
    policy["bindings"] = json!([{ "role": "roles/storage.objectViewer", "members": ["allUsers"] }]);
    let set =
        |policy: &Value| fixture.json("PUT", "/storage/v1/b/another/iam", Some(policy.clone()));
    assert_eq!(set(&policy).await.0, 200);
    assert_eq!(set(&policy).await.0, 412, "what was read is old by now");
    let (_, told) = fixture.json("GET", &format!("{path}/iam"), None).await;
    assert_eq!(told["bindings"], policy["bindings"]);

    assert_eq!(fixture.request("PUT", "/another/a").body("a").send().await.unwrap().status(), 200);
    let (status, said) = fixture.json("DELETE", path, None).await;
    assert_eq!(
        (status.as_u16(), &said["error"]["message"]),
        (409, &json!("The bucket you tried to delete is not empty."))
    );
    assert_eq!(fixture.json("DELETE", &format!("{path}/o/a"), None).await.0, 204);
    assert_eq!(fixture.json("DELETE", path, None).await.0, 204);
    assert_eq!(fixture.json("GET", path, None).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_the_json_api_are_those_of_the_xml_api() {
    let fixture = Fixture::start().await;
    fixture.put("a%2Fb", "one").await;
    let objects = format!("/storage/v1/b/{BUCKET}/o");
    let (_, told) = fixture.json("GET", &format!("{objects}/a%2Fb"), None).await;
    assert_eq!(
        (&told["name"], &told["size"], &told["metageneration"]),
        (&json!("a/b"), &json!("3"), &json!("1"))
    );
    let (_, told) = fixture
        .json("PATCH", &format!("{objects}/a%2Fb"), Some(json!({ "metadata": { "k": "v" } })))
        .await;
    assert_eq!((&told["metadata"]["k"], &told["metageneration"]), (&json!("v"), &json!("2")));
    let (_, copied) =
        fixture.json("POST", &format!("{objects}/a%2Fb/rewriteTo/b/{BUCKET}/o/c"), None).await;
    assert_eq!(
        (&copied["done"], &copied["resource"]["metadata"]["k"]),
        (&json!(true), &json!("v"))
    );
    let again = format!("{objects}/a%2Fb/rewriteTo/b/{BUCKET}/o/c?ifGenerationMatch=0");
    assert_eq!(fixture.json("POST", &again, None).await.0, 412);
    let sources = json!({ "sourceObjects": [{ "name": "c" }, { "name": "a/b" }], "destination": { "contentType": "text/plain" } });
    let (status, composed) =
        fixture.json("POST", &format!("{objects}/d/compose"), Some(sources)).await;
    assert_eq!((status.as_u16(), &composed["size"]), (200, &json!("6")));
    let read = fixture.request("GET", &format!("{objects}/d?alt=media")).send().await.unwrap();
    assert_eq!(
        (header(&read, "content-type").to_owned(), read.text().await.unwrap()),
        ("text/plain".to_owned(), "oneone".to_owned())
    );
    let (_, listed) = fixture.json("GET", &format!("{objects}?delimiter=/"), None).await;
    assert_eq!(listed["prefixes"], json!(["a/"]));
    let names: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["c", "d"]);
    let upload =
        format!("/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name=e%20f&ifGenerationMatch=0");
    assert_eq!(fixture.request("POST", &upload).body("up").send().await.unwrap().status(), 200);
    assert_eq!(fixture.request("POST", &upload).body("up").send().await.unwrap().status(), 412);
    assert_eq!(
        fixture
            .request("GET", &format!("/{BUCKET}/e%20f"))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
        "up"
    );
}
