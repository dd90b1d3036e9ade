// SPDX-License-Identifier: Apache-2.0

use super::*;

fn disk() -> Disk {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(1 << 20).expect("sized");
    Disk::new("v", file, None, 1)
}

#[test]
fn after_one_failed_flush_nothing_succeeds_but_reading() {
    let disk = disk();
    disk.write(&[1; 512], 0).expect("written");
    assert!(!disk.is_flushed().expect("no failure yet"));
    disk.lose(&io::Error::other("on purpose"));
    for _ in 0..2 {
        assert!(disk.sync().is_err() && disk.is_flushed().is_err());
        assert!(disk.write(&[2; 512], 0).is_err() && disk.punch(0, 512).is_err());
        assert!(disk.write_now(&[2; 4096], 0).is_err());
    }
    let mut buffer = [0; 512];
    disk.read(&mut buffer, 0).expect("read");
    assert_eq!(buffer, [1; 512]);
}

#[test]
fn only_what_was_written_before_counts_as_flushed() {
    let disk = disk();
    assert!(!disk.is_flushed().expect("asked"), "an earlier life may have left something");
    disk.sync().expect("synced");
    assert!(disk.is_flushed().expect("asked"));
    disk.punch(0, 4096).expect("punched");
    assert!(!disk.is_flushed().expect("asked"));
}

#[test]
fn zeroing_works_where_the_file_system_cannot_punch() {
    let disk = disk();
    disk.write(&[1; 8192], 0).expect("written");
    disk.punch.store(false, Ordering::Relaxed);
    disk.punch(100, 4000).expect("written as data");
    let mut buffer = [0; 8192];
    disk.read(&mut buffer, 0).expect("read");
    assert!(buffer[..100].iter().chain(&buffer[4100..]).all(|&byte| byte == 1));
    assert!(buffer[100..4100].iter().all(|&byte| byte == 0));
    assert!(!disk.zeroes_fast(false));
}

#[test]
fn a_read_beyond_the_file_gives_zeros() {
    let disk = disk();
    let mut buffer = [7; 1024];
    disk.read(&mut buffer, (1 << 20) - 512).expect("read");
    assert_eq!(buffer, [0; 1024]);
}

#[test]
fn what_was_written_at_once_is_counted_as_written() {
    let disk = disk();
    disk.sync().expect("synced");
    // The first try may only find out that this file system promises nothing.
    let tries = [(); 2].map(|()| disk.write_now(&[3; 8192], 4096).expect("tried"));
    assert!(tries[1], "small whole pages go at once on every file system");
    assert!(!disk.is_flushed().expect("asked"));
    let mut buffer = [0; 8192];
    disk.read(&mut buffer, 4096).expect("read");
    assert_eq!(buffer, [3; 8192]);
}
