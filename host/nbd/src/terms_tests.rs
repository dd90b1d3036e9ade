// SPDX-License-Identifier: Apache-2.0
//! Which requests pass; the flags themselves are tested against a volume in `tests/nbd`.

use super::*;

const ALL: TransmissionFlags = TransmissionFlags(0b1001_0110_1101);

fn terms(flags: TransmissionFlags) -> Terms {
    let (min_block, preferred_block, max_block) = (512, 4096, 1 << 20);
    Terms {
        size: 1 << 20,
        flags,
        min_block,
        preferred_block,
        max_block,
        native_fua: false,
        maps: true,
        headers: Headers::Simple,
        contexts: Contexts::NONE,
    }
}

fn errno(terms: Terms, request: &Request, size: u64) -> Result<(), Errno> {
    terms.check(request, size).map_err(|refused| refused.errno)
}

fn request(command: Command, flags: CommandFlags, offset: u64, len: u64) -> Request {
    Request { flags, command, cookie: 1, offset, len, payload: 0 }
}

#[test]
fn ranges_are_checked_against_the_size_of_now() {
    let terms = terms(ALL);
    let at = |command, offset| request(command, CommandFlags::NONE, offset, 512);
    for command in [Command::READ, Command::WRITE, Command::TRIM, Command::WRITE_ZEROES] {
        assert_eq!(errno(terms, &at(command, 2048 - 512), 2048), Ok(()));
        let beyond = errno(terms, &at(command, 2048), 2048);
        let writes = matches!(command, Command::WRITE | Command::WRITE_ZEROES);
        let error = if writes { Errno::NoSpc } else { Errno::Inval };
        assert_eq!(beyond, Err(error), "{command:?}");
        assert_eq!(errno(terms, &at(command, u64::MAX - 511), u64::MAX), Err(error));
    }
}

#[test]
fn several_connections_are_offered_unless_one_need_not_see_what_another_wrote() {
    let volume = Capabilities::new(Abilities::WRITE);
    let terms = Terms::of(&volume, 1 << 20, false);
    let many = TransmissionFlags::CAN_MULTI_CONN;
    assert!(terms.flags.has(many));
    let alone = terms.for_one_connection();
    assert!(!alone.flags.has(many));
    assert_eq!(alone.flags.and(many), terms.flags, "and nothing else changes");
    let mut chosen = alone;
    chosen.negotiated(Headers::Structured, Contexts::NONE);
    assert!(!chosen.flags.has(many), "nor does a choice of the client bring it back");
}

#[test]
fn flags_pass_where_they_were_offered() {
    let fast = CommandFlags::FAST_ZERO;
    let zero = |flags| request(Command::WRITE_ZEROES, flags, 0, 512);
    assert_eq!(errno(terms(ALL), &zero(fast.and(CommandFlags::NO_HOLE)), 512), Ok(()));
    let slow = terms(TransmissionFlags(ALL.0 & !TransmissionFlags::SEND_FAST_ZERO.0));
    assert_eq!(errno(slow, &zero(fast), 512), Err(Errno::Inval));
    let fua = |command| request(command, CommandFlags::FUA, 0, 512);
    for command in [Command::READ, Command::FLUSH, Command::WRITE, Command::TRIM] {
        assert_eq!(errno(terms(ALL), &fua(command), 512), Ok(()), "{command:?}");
    }
    let reader = terms(TransmissionFlags::HAS_FLAGS.and(TransmissionFlags::READ_ONLY));
    assert_eq!(errno(reader, &fua(Command::READ), 512), Err(Errno::Inval));
    assert_eq!(errno(reader, &fua(Command::WRITE), 512), Err(Errno::Perm));
}

#[test]
fn fua_becomes_a_flush_where_the_volume_lacks_it() {
    let mut terms = terms(ALL);
    assert_eq!(terms.write_flags(CommandFlags::FUA), (WriteFlags::NONE, true));
    assert_eq!(terms.write_flags(CommandFlags::NONE), (WriteFlags::NONE, false));
    terms.native_fua = true;
    assert_eq!(terms.write_flags(CommandFlags::FUA), (WriteFlags::FUA, false));
    let zeros = CommandFlags::NO_HOLE.and(CommandFlags::FAST_ZERO);
    let both = WriteFlags::NO_HOLE.and(WriteFlags::FAST_ONLY);
    assert_eq!(terms.write_flags(zeros), (both, false));
}

#[test]
fn df_and_a_choice_of_contexts_pass_only_where_negotiated() {
    let mut terms = terms(ALL);
    let read = request(Command::READ, CommandFlags::DF, 0, 512);
    let status = request(Command::BLOCK_STATUS, CommandFlags::REQ_ONE, 1, 3);
    let chosen = Request {
        flags: CommandFlags::PAYLOAD_LEN,
        payload: 12,
        ..request(Command::BLOCK_STATUS, CommandFlags::NONE, 0, 12)
    };
    assert_eq!(errno(terms, &read, 512), Err(Errno::Inval));
    assert_eq!(errno(terms, &status, 512), Err(Errno::Inval));
    let mut contexts = Contexts::NONE;
    contexts.insert(crate::contexts::Context::Allocation);
    terms.negotiated(Headers::Structured, contexts);
    assert_eq!(errno(terms, &read, 512), Ok(()));
    assert_eq!(errno(terms, &status, 512), Ok(()), "of any range, whatever the block size");
    assert_eq!(errno(terms, &chosen, 512), Err(Errno::Inval));
    terms.negotiated(Headers::Extended, contexts);
    assert_eq!(errno(terms, &chosen, 512), Ok(()));
    assert_eq!(errno(terms, &Request { payload: 9999, ..chosen }, 512), Err(Errno::Inval));
    terms.negotiated(Headers::Extended, Contexts::NONE);
    assert_eq!(errno(terms, &chosen, 512), Err(Errno::Inval));
}
