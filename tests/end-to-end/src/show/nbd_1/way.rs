// SPDX-License-Identifier: Apache-2.0
//! A way to an export, as each client wants it written.

use std::path::Path;

use crate::program::Program;

/// A way to one export.
#[derive(Clone, Debug)]
pub struct Way {
    /// What people call it.
    pub name: String,
    /// For libnbd, nbdkit and fio.
    pub uri: String,
    /// For qemu: what stands before its options.
    objects: Vec<String>,
    /// For qemu: its `--image-opts`.
    options: String,
    /// For nbdkit's plugin `nbd`, where it is encrypted: others are reached without it.
    pub relayed: Vec<String>,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

impl Way {
    /// Over a unix socket.
    pub fn unix(socket: &Path, export: &str) -> Self {
        let path = socket.display();
        Self {
            name: "unix".to_owned(),
            uri: format!("nbd+unix:///{export}?socket={path}"),
            objects: Vec::new(),
            options: format!("driver=nbd,server.type=unix,server.path={path},export={export}"),
            relayed: Vec::new(),
            encrypted: false,
        }
    }

    /// Over TCP in plain text.
    pub fn tcp(address: &str, export: &str) -> Self {
        Self {
            name: "TCP".to_owned(),
            uri: format!("nbd://{address}/{export}"),
            objects: Vec::new(),
            options: over_tcp(address, export),
            relayed: Vec::new(),
            encrypted: false,
        }
    }

    /// Over TLS, with the certificates in this directory.
    pub fn tls(name: &str, address: &str, export: &str, certificates: &Path) -> Self {
        let directory = certificates.display();
        let (host, port) = parts(address);
        let object = format!("tls-creds-x509,id=tls0,endpoint=client,dir={directory}");
        Self {
            name: name.to_owned(),
            uri: format!("nbds://{address}/{export}?tls-certificates={directory}"),
            objects: vec!["--object".to_owned(), object],
            options: over_tcp(address, export) + ",tls-creds=tls0",
            relayed: vec![
                format!("hostname={host}"),
                format!("port={port}"),
                format!("export={export}"),
                "tls=require".to_owned(),
                format!("tls-certificates={directory}"),
            ],
            encrypted: true,
        }
    }

    /// A command of qemu-img about this export, which is its last argument.
    pub fn qemu_img(&self, words: &[&str]) -> Program {
        let program = Program::new("qemu-img").args(&words[..1]).args(&self.objects);
        program.arg("--image-opts").args(&words[1..]).arg(self.raw()).limit_secs(120)
    }

    /// Copies a raw image onto the export.
    pub fn qemu_img_from(&self, image: &Path) -> Program {
        Program::new("qemu-img")
            .args(["convert", "-n", "-f", "raw", "--target-image-opts"])
            .args(&self.objects)
            .arg(image)
            .arg(self.raw())
    }

    /// qemu-io on the export, with these commands.
    pub fn qemu_io(&self, commands: &[&str]) -> Program {
        let program = Program::new("qemu-io").args(&self.objects).arg("--image-opts");
        let commands = commands.iter().flat_map(|command| ["-c", command]);
        program.args(commands).arg(self.raw())
    }

    fn raw(&self) -> String {
        format!("driver=raw,file.{}", self.options.replace(',', ",file."))
    }
}

fn parts(address: &str) -> (&str, &str) {
    address.split_once(':').unwrap_or((address, "10809"))
}

fn over_tcp(address: &str, export: &str) -> String {
    let (host, port) = parts(address);
    format!("driver=nbd,server.type=inet,server.host={host},server.port={port},export={export}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Way;

    #[test]
    fn ways_are_written_as_clients_want_them() {
        let way = Way::tls("TLS", "127.0.0.1:7", "disk", Path::new("/c"));
        assert_eq!(way.uri, "nbds://127.0.0.1:7/disk?tls-certificates=/c");
        assert_eq!(
            way.raw(),
            "driver=raw,file.driver=nbd,file.server.type=inet,file.server.host=127.0.0.1,file.server.port=7,\
             file.export=disk,file.tls-creds=tls0"
        );
        assert_eq!(
            Way::unix(Path::new("/s"), "disk").raw(),
            "driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=/s,file.export=disk"
        );
    }
}
