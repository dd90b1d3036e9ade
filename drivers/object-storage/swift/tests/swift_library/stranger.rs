// SPDX-License-Identifier: Apache-2.0
//! What anybody does with curl, who knows nothing of this client.

use std::process::Command;

use swift::Auth;

use crate::real_servers::Server;

/// What a request is answered, which must succeed.
pub fn curl(arguments: &[&str]) -> String {
    let run =
        Command::new("curl").args(["-s", "-S", "--noproxy", "*"]).args(arguments).output().unwrap();
    assert!(run.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

/// Storage URL and header of a token, as a stranger gets them.
pub async fn token() -> (String, String) {
    let Auth::V1 { auth_url, user, key } = Server::Swift.auth() else { panic!() };
    let user = format!("X-Auth-User: {user}");
    let head =
        curl(&["-i", "-H", &user, "-H", &format!("X-Auth-Key: {}", key.reveal()), &auth_url]);
    let of = |name: &str| {
        let line = head.lines().find(|line| line.to_lowercase().starts_with(name)).unwrap();
        line.split_once(": ").unwrap().1.trim().to_owned()
    };
    (of("x-storage-url"), format!("X-Auth-Token: {}", of("x-auth-token")))
}

/// The status of a request.
pub fn code(arguments: &[&str]) -> String {
    let mut all = vec!["-o", "/dev/null", "-w", "%{http_code}"];
    all.extend(arguments);
    curl(&all)
}
