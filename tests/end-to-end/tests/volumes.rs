// SPDX-License-Identifier: Apache-2.0
//! What an operator does with volumes, through the command line of a real host over the local driver.

use end_to_end::{artifacts::Artifacts, clients, failure::Outcome, host::Host, program::Said};

const MIB: u64 = 1 << 20;

fn host() -> Host {
    Host::start(&Artifacts::of_this_build().expect("a build"), "").expect("a host")
}

fn run(host: &Host, words: &str) -> Outcome<Said> {
    host.cli().ask().args(words.split(' ')).run()
}

fn refused(host: &Host, words: &str, code: i32) -> String {
    let program = host.cli().ask().args(words.split(' ')).codes(&[code]);
    program.run().expect("refused with its code").stderr
}

#[test]
fn snapshots_keep_what_was_and_keep_their_volume() {
    for format in ["raw", "qcow2"] {
        let host = host();
        host.volume("disk", 32 * MIB, format).expect("a volume");
        let uri = host.uri("disk");
        clients::qemu_io(&uri, "write -P 1 0 1M").expect("written");
        run(&host, "snapshot create disk before").expect("a snapshot under an export");
        clients::qemu_io(&uri, "write -P 2 0 1M").expect("written");
        let text = refused(&host, "snapshot create disk before", 4);
        assert!(text.contains("before"), "{text}");
        run(&host, "volume clone disk copy --snapshot before").expect("a clone");
        host.cli().add_export("copy").expect("exported");
        clients::qemu_io(&host.uri("copy"), "read -P 1 0 1M").expect("the clone is of then");
        clients::qemu_io(&uri, "read -P 2 0 1M").expect("the volume is of now");

        let text = refused(&host, "snapshot rollback disk before", 5);
        assert!(text.contains("export disk"), "{text}");
        run(&host, "export remove disk").expect("removed");
        run(&host, "snapshot rollback disk before").expect("rolled back");
        host.cli().add_export("disk").expect("exported");
        clients::qemu_io(&uri, "read -P 1 0 1M").expect("the volume is of then");
        run(&host, "export remove disk").expect("removed");

        let listed = run(&host, "snapshot list disk").expect("listed without an attachment");
        assert!(listed.stdout.contains("before"), "{}", listed.stdout);
        let text = refused(&host, "volume delete disk", 5);
        assert!(text.contains("before") && text.contains("--snapshots"), "{text}");
        run(&host, "snapshot delete disk before").expect("deleted");
        run(&host, "volume delete disk").expect("deleted");
        clients::qemu_io(&host.uri("copy"), "read -P 1 0 1M").expect("the clone stands alone");
    }
}

#[test]
fn volumes_grow_under_clients_and_shrink_only_when_told() {
    let host = host();
    host.volume("disk", 16 * MIB, "raw").expect("a volume");
    clients::qemu_io(&host.uri("disk"), "write -P 3 15M 1M").expect("written");
    run(&host, "volume resize disk 32MiB").expect("grown");
    clients::qemu_io(&host.uri("disk"), "read -P 3 15M 1M").expect("kept");
    clients::qemu_io(&host.uri("disk"), "read -P 0 16M 16M").expect("zeros");
    let text = refused(&host, "volume resize disk 8MiB", 2);
    assert!(text.contains("--shrink"), "{text}");
    run(&host, "export remove disk").expect("removed");
    run(&host, "volume resize disk 8MiB --shrink").expect("shrunk");
    run(&host, "volume resize disk 16MiB").expect("grown");
    host.cli().add_export("disk").expect("exported");
    clients::qemu_io(&host.uri("disk"), "read -P 0 8M 8M").expect("what was cut off is gone");
}
