// SPDX-License-Identifier: Apache-2.0
//! Who stays outside: with no certificate or a wrong one, in plain text, by an export's rules. Next to each stands who
//! comes in, so that a host that refuses everybody does not pass.

use rustix::process::geteuid;

use super::{super::Stage, way::Way};
use crate::{
    certificates::{Certificates, free_address},
    clients,
    failure::{Context, Outcome, ensure},
    host::Host,
    libnbd::Libnbd,
};

const MIB: u64 = 1 << 20;
const CLIENTS: [&str; 5] = ["nobody", "alice", "bob", "mallory", "stranger"];

/// How a host is set up, and which clients come in.
struct Door {
    name: &'static str,
    keys: &'static str,
    with_client_authority: bool,
    plain: bool,
    encrypted: &'static [&'static str],
}

const DOORS: [Door; 5] = [
    Door {
        name: "TLS off",
        keys: "tls = \"off\"",
        with_client_authority: false,
        plain: true,
        encrypted: &[],
    },
    Door {
        name: "TLS offered",
        keys: "tls = \"offer\"",
        with_client_authority: false,
        plain: true,
        encrypted: &["nobody", "alice", "bob", "mallory"],
    },
    Door {
        name: "TLS required",
        keys: "tls = \"require\"",
        with_client_authority: false,
        plain: false,
        encrypted: &["nobody", "alice", "bob", "mallory"],
    },
    Door {
        name: "certificates welcome",
        keys: "tls = \"require\"\ntls_clients = \"offer\"",
        with_client_authority: true,
        plain: false,
        // GnuTLS shows no certificate of an authority that the host did not name: mallory is nobody.
        encrypted: &["nobody", "alice", "bob", "mallory"],
    },
    Door {
        name: "certificates required",
        keys: "tls = \"require\"\ntls_clients = \"require\"",
        with_client_authority: true,
        plain: false,
        encrypted: &["alice", "bob"],
    },
];

pub fn play(stage: &Stage, libnbd: &Libnbd, certificates: &Certificates) -> Outcome {
    let mut tried = 0;
    for door in &DOORS {
        tried += stand_before(stage, libnbd, certificates, door).context(door.name)?;
    }
    stage.tell(format!(
        "{tried} attempts with plain text, no, wrong and right certificates: only the right ones come in"
    ));
    let tried = rules(stage, libnbd, certificates).context("an export's rules")?;
    stage.tell(format!(
        "{tried} attempts at exports with rules: who is named is served, others see nothing"
    ));
    unchanged(stage, libnbd).context("a read-only export")?;
    stage.tell("a read-only export refuses changes, the default export needs no name");
    Ok(())
}

fn stand_before(
    stage: &Stage,
    libnbd: &Libnbd,
    certificates: &Certificates,
    door: &Door,
) -> Outcome<usize> {
    let address = free_address()?;
    let mut keys = format!("{}\n", door.keys);
    if door.with_client_authority {
        keys += &certificates.client_authority();
    }
    let host = Host::start_serving(&stage.artifacts, &certificates.listen(&address, &keys), "")?;
    host.volume("disk", MIB, "raw")?;
    let mut ways = vec![(Way::tcp(&address, "disk"), door.plain)];
    for client in CLIENTS {
        let way = Way::tls(client, &address, "disk", &certificates.client(client));
        ways.push((way, door.encrypted.contains(&client)));
    }
    for (way, admitted) in &ways {
        let libnbd = libnbd.program("nbdinfo").arg("--json").arg(&way.uri);
        let said = libnbd.codes(if *admitted { &[0] } else { &[1] }).run().context(&way.name)?;
        ensure(!admitted || said.stdout.contains("\"disk\""), || said.stdout)?;
        let write = way.qemu_io(&["write -P 1 0 64k"]).codes(&[]).run().context(&way.name)?;
        let wrote = write.code == 0 && !write.stdout.contains("failed");
        ensure(wrote == *admitted, || {
            format!("{}: qemu-io says {}{}", way.name, write.stdout, write.stderr)
        })?;
        // Whoever was sent away, the host goes on.
        clients::qemu_io(&host.uri("disk"), "read 0 64k")?;
    }
    Ok(ways.len() * 2)
}

fn rules(stage: &Stage, libnbd: &Libnbd, certificates: &Certificates) -> Outcome<usize> {
    let address = free_address()?;
    let keys =
        format!("tls = \"offer\"\ntls_clients = \"offer\"\n{}", certificates.client_authority());
    let host = Host::start_serving(&stage.artifacts, &certificates.listen(&address, &keys), "")?;
    let fingerprint = format!("sha256:{}", certificates.fingerprint("bob")?);
    let this_user = format!("uid:{}", geteuid().as_raw());
    let other_user = format!("uid:{}", geteuid().as_raw() + 1);
    // Export, its rules, who comes in.
    let exports: [(&str, &[&str], &[&str]); 10] = [
        ("anyone", &[], &["unix", "TCP", "nobody", "alice", "bob", "mallory"]),
        ("cert", &["cert:alice.example.org"], &["alice"]),
        ("fingerprint", &[&fingerprint], &["bob"]),
        ("loopback", &["net:127.0.0.0/8"], &["TCP", "nobody", "alice", "bob", "mallory"]),
        ("elsewhere", &["net:192.0.2.0/24"], &[]),
        ("unix", &["unix"], &["unix"]),
        ("user", &[&this_user], &["unix"]),
        ("other-user", &[&other_user], &[]),
        ("either", &["unix", "cert:bob.example.org"], &["unix", "bob"]),
        ("nobody", &["cert:example.org", "cert:*.example.org"], &[]),
    ];
    for (export, rules, _) in exports {
        host.cli().create_volume(export, MIB, None, &[])?;
        let mut add = host.cli().ask().args(["export", "add", export]);
        for rule in rules {
            add = add.args(["--allow", rule]);
        }
        // A wildcard is no name.
        let refused = rules.iter().any(|rule| rule.contains('*'));
        add.codes(if refused { &[2] } else { &[0] }).run()?;
    }
    let mut tried = 0;
    for client in ["unix", "TCP", "nobody", "alice", "bob", "mallory"] {
        let way = |export: &str| match client {
            "unix" => Way::unix(&host.nbd_socket(), export),
            "TCP" => Way::tcp(&address, export),
            _ => Way::tls(client, &address, export, &certificates.client(client)),
        };
        let listed =
            libnbd.program("nbdinfo").args(["--list", "--json"]).arg(&way("").uri).run()?;
        for (export, rules, admitted) in exports {
            let admitted = admitted.contains(&client);
            let codes: &[i32] = if admitted { &[0] } else { &[1] };
            let asked = libnbd.program("nbdinfo").arg("--size").arg(&way(export).uri).codes(codes);
            asked.run().context(format!("{client} asks for {export}, which has {rules:?}"))?;
            let seen = listed.stdout.contains(&format!("\"export-name\": \"{export}\""));
            ensure(seen == admitted, || {
                format!("{export}, which has {rules:?}, in the list of {client}: {seen}")
            })?;
            tried += 2;
        }
    }
    Ok(tried)
}

fn unchanged(stage: &Stage, libnbd: &Libnbd) -> Outcome {
    let host = Host::start(&stage.artifacts, "")?;
    host.volume("disk", MIB, "raw")?;
    clients::qemu_io(&host.uri("disk"), "write -P 7 0 1M")?;
    host.cli().ask().args(["export", "remove", "disk"]).run()?;
    host.cli().ask().args(["export", "add", "disk", "--read-only", "--default"]).run()?;
    host.volume("other", MIB, "raw")?;
    libnbd.program("nbdinfo").args(["--is", "read-only"]).arg(host.uri("disk")).run()?;
    let image = stage.path("zeros");
    clients::ext4_empty(&image, MIB)?;
    libnbd.program("nbdcopy").arg(&image).arg(host.uri("disk")).codes(&[1]).run()?;
    ensure(clients::qemu_io(&host.uri("disk"), "write 0 64k").is_err(), || {
        "qemu-io wrote to a read-only export".to_owned()
    })?;
    let way = Way::unix(&host.nbd_socket(), "");
    let said = libnbd.program("nbdinfo").arg("--json").arg(&way.uri).run()?;
    ensure(
        said.stdout.contains("\"export-size\": 1048576")
            && said.stdout.contains("\"is_read_only\": true"),
        || format!("the default export is {}", said.stdout),
    )?;
    let back = stage.path("read-only");
    libnbd.program("nbdcopy").arg(&way.uri).arg(&back).run()?;
    let bytes = std::fs::read(&back).context(back.display())?;
    ensure(bytes.len() == 1 << 20 && bytes.iter().all(|byte| *byte == 7), || {
        "a read-only export changed".to_owned()
    })
}
