// SPDX-License-Identifier: Apache-2.0
//! Keys from the machine's metadata service, against one that is played here.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use driver_api::{
    Backend, OpContext,
    ext::{Conditions, ObjectName},
};
use object_storage::{Config, ObjectBackend};
use serde_json::json;

/// Plays the metadata service and S3; remembers what it was asked.
fn serve() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&seen);
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n")
                && client.read(&mut byte).is_ok_and(|count| count == 1)
            {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let body = if head.starts_with("PUT /latest/api/token") {
                "a-token"
            } else if head.starts_with("GET /latest/meta-data/iam/security-credentials/ ") {
                "the-role"
            } else if head.starts_with("GET /latest/meta-data/iam/security-credentials/the-role") {
                "{\"AccessKeyId\":\"FROMHERE\",\"SecretAccessKey\":\"s\",\"Token\":\"session\",\
                 \"Expiration\":\"2999-01-01T00:00:00Z\"}"
            } else {
                ""
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            shared.lock().expect("seen").push(head);
            let _ = client.write_all(answer.as_bytes());
        }
    });
    (url, seen)
}

#[tokio::test]
async fn keys_come_from_the_metadata_service() {
    let (url, seen) = serve();
    let options = json!({
        "kind": "s3", "credentials": "instance", "instance_metadata": url, "endpoint": url,
    });
    let config: Config = serde_json::from_value(options).expect("options");
    let objects =
        ObjectBackend::open("test", config).expect("a backend").objects().expect("objects");
    let cx = OpContext::new().with_timeout(Duration::from_secs(10));
    for _ in 0..2 {
        let name = ObjectName::new("bucket", "key");
        objects.head(&cx, name, Conditions::default()).await.expect("an answer");
    }
    let seen = seen.lock().expect("seen");
    let of = |start: &str| seen.iter().filter(|head| head.starts_with(start)).collect::<Vec<_>>();
    assert_eq!(of("PUT /latest/api/token").len(), 1, "keys are kept until they expire");
    let asked = of("HEAD /bucket/key");
    assert_eq!(asked.len(), 2);
    assert!(asked[1].contains("Credential=FROMHERE/"), "{}", asked[1]);
    assert!(asked[1].contains("x-amz-security-token: session"), "{}", asked[1]);
}
