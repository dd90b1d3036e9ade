// SPDX-License-Identifier: Apache-2.0

use super::*;

fn unix(uid: u32) -> Peer {
    Peer { address: Address::Unix { uid: Some(uid) }, certificate: None }
}

fn tcp(address: &str) -> Peer {
    Peer { address: Address::Tcp(address.parse().unwrap()), certificate: None }
}

fn with_certificate(mut peer: Peer, names: &[&str], sha256: [u8; 32]) -> Peer {
    let dns_names = names.iter().map(|name| (*name).to_owned()).collect();
    peer.certificate = Some(Certificate { dns_names, sha256 });
    peer
}

fn admits(rule: &str, peer: &Peer) -> bool {
    rule.parse::<Rule>().unwrap().admits(peer)
}

#[test]
fn a_rule_admits_whom_it_names_and_nobody_else() {
    let alice = unix(1000);
    let near = tcp("10.1.2.3:40000");
    assert!(admits("unix", &alice) && !admits("unix", &near));
    assert!(admits("uid:1000", &alice) && !admits("uid:1001", &alice));
    assert!(!admits("uid:1000", &Peer { address: Address::Unix { uid: None }, certificate: None }));
    assert!(!admits("uid:1000", &near));
    for (net, inside) in [
        ("net:10.0.0.0/8", true),
        ("net:10.1.2.3", true),
        ("net:10.1.2.3/32", true),
        ("net:0.0.0.0/0", true),
        ("net:10.1.2.2/31", true),
        ("net:10.1.2.4/31", false),
        ("net:11.0.0.0/8", false),
        ("net:::/0", false),
    ] {
        assert_eq!(admits(net, &near), inside, "{net}");
        assert_eq!(admits(net, &tcp("[::ffff:10.1.2.3]:1")), inside, "{net}, mapped");
        assert!(!admits(net, &alice), "{net}");
    }
    assert!(admits("net:2001:db8::/32", &tcp("[2001:db8:1::1]:1")));
    assert!(!admits("net:2001:db8::/32", &tcp("[2001:db9::1]:1")));
    assert!(!admits("net:0.0.0.0/0", &tcp("[2001:db9::1]:1")));
    assert!(admits("net:::/0", &tcp("[2001:db9::1]:1")));
    assert!(admits("net:::ffff:10.0.0.0/104", &near));
}

#[test]
fn a_certificate_counts_wherever_it_is_shown() {
    let sum = [0xab; 32];
    let hex = format!("sha256:{}", "ab".repeat(32));
    for peer in [unix(0), tcp("10.1.2.3:1")] {
        assert!(!admits("cert:vm1.example.org", &peer), "no certificate");
        assert!(!admits(&hex, &peer), "no certificate");
        let peer = with_certificate(peer, &["other", "VM1.example.org"], sum);
        assert!(admits("cert:vm1.Example.org", &peer));
        assert!(!admits("cert:example.org", &peer), "a part of a name");
        assert!(admits(&hex, &peer));
        assert!(!admits(&format!("sha256:{}", "ac".repeat(32)), &peer));
    }
    let any = with_certificate(unix(0), &["*.example.org"], sum);
    assert!(!admits("cert:vm1.example.org", &any), "a pattern in a certificate names no client");
}

#[test]
fn rules_are_printed_as_they_are_read() {
    let colons = ["AB"; 32].join(":");
    for (given, printed) in [
        ("unix", "unix".to_owned()),
        ("uid:0", "uid:0".to_owned()),
        ("net:10.0.0.0/8", "net:10.0.0.0/8".to_owned()),
        ("net:10.0.0.7/32", "net:10.0.0.7".to_owned()),
        ("net:2001:DB8::/32", "net:2001:db8::/32".to_owned()),
        ("net:::ffff:10.0.0.0/104", "net:10.0.0.0/8".to_owned()),
        ("net:::1", "net:::1".to_owned()),
        ("cert:VM1.Example.org", "cert:vm1.example.org".to_owned()),
        (&format!("sha256:{colons}"), format!("sha256:{}", "ab".repeat(32))),
    ] {
        let rule: Rule = given.parse().unwrap();
        assert_eq!(rule.to_string(), printed);
        assert_eq!(printed.parse::<Rule>().unwrap(), rule);
    }
}

#[test]
fn what_is_no_rule_is_refused_with_what_to_write() {
    for (text, remedy) in [
        ("", "write unix"),
        ("everybody", "write unix"),
        ("user:1", "write unix"),
        ("uid:alice", "id -u"),
        ("uid:-1", "id -u"),
        ("uid:4294967296", "id -u"),
        ("net:", "write numbers"),
        ("net:example.org", "write numbers"),
        ("net:10.0.0.0/33", "write /0"),
        ("net:10.0.0.0/", "write /0"),
        ("net:10.0.0.1/8", "net:10.0.0.0/8 for the network"),
        ("net:2001:db8::1/32", "net:2001:db8::/32"),
        ("net:::ffff:10.0.0.0/8", "write net:10.0.0.0/8"),
        ("cert:", "a whole name"),
        ("cert:*.example.org", "a whole name"),
        ("cert:a b", "a whole name"),
        ("sha256:ab", "openssl"),
        ("sha256:zz", "openssl"),
    ] {
        let error = text.parse::<Rule>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::INVALID_ARGUMENT);
        assert!(error.remedy_text().contains(remedy), "{text}: {error:#}");
        assert!(error.message().contains(&format!("{text:?}")), "{error:#}");
    }
}
