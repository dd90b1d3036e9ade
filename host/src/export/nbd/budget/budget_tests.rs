// SPDX-License-Identifier: Apache-2.0

use std::time::{Duration, Instant};

use super::*;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn amount(operations: usize, bytes: usize) -> Amount {
    Amount { operations, bytes }
}

/// A connection that starts operations of one size as long as it may.
struct Client {
    account: Account,
    used: Amount,
}

impl Client {
    fn new(budgets: &Budgets, export: &str) -> Self {
        Self { account: budgets.account(export, "disk"), used: Amount::NONE }
    }

    fn start(&mut self, bytes: usize) -> Answer {
        let more = amount(1, bytes);
        let answer = self.account.cover(self.used, more);
        if answer == Answer::Yes {
            self.used = self.used.plus(more);
        }
        answer
    }

    fn end(&mut self, bytes: usize) {
        self.used = self.used.minus(amount(1, bytes));
        self.account.settle(self.used);
    }

    fn fill(&mut self, bytes: usize) {
        while self.start(bytes) == Answer::Yes {}
    }
}

/// Everybody ends an operation and starts what they may, until nothing changes any more.
fn settle(clients: &mut [Client], bytes: usize) -> Vec<usize> {
    for _ in 0..2000 {
        for client in &mut *clients {
            if client.used.operations > 0 {
                client.end(bytes);
            }
            client.fill(bytes);
        }
    }
    clients.iter().map(|client| client.used.bytes / MIB).collect()
}

fn budgets(export: usize, backend: usize) -> Budgets {
    Budgets::new(amount(1 << 20, export), amount(1 << 20, backend))
}

#[test]
fn small_use_touches_nothing_shared() {
    let budgets = budgets(MIB, MIB);
    let mut client = Client::new(&budgets, "a");
    assert_eq!(client.start(64 * KIB), Answer::Yes);
    client.end(64 * KIB);
    assert_eq!((client.account.export.taken(), client.account.leased), Default::default());
    assert_eq!(client.account.refusals(), 0);
}

#[test]
fn one_connection_gets_half_and_n_get_a_share_of_n_plus_one() {
    let budgets = budgets(120 * MIB, 1 << 30);
    let mut clients = vec![Client::new(&budgets, "a")];
    assert_eq!(settle(&mut clients, 16 * KIB), [60]);
    for share in [40, 30, 24] {
        clients.push(Client::new(&budgets, "a"));
        for got in settle(&mut clients, 16 * KIB) {
            assert!(got.abs_diff(share) <= 1, "{got} of {share} MiB");
        }
    }
    // They leave one by one, and the others take their place.
    clients.drain(..3);
    assert_eq!(settle(&mut clients, 16 * KIB), [60]);
    drop(clients);
    let last = Client::new(&budgets, "a");
    assert_eq!(last.account.export.taken(), Amount::NONE, "everything was given back");
    assert_eq!(last.account.backend.taken(), Amount::NONE);
}

#[test]
fn operations_are_shared_like_bytes() {
    let budgets = Budgets::new(amount(120, MIB), amount(1000, MIB));
    let mut clients = [Client::new(&budgets, "a"), Client::new(&budgets, "a")];
    for _ in 0..200 {
        for client in &mut clients {
            if client.used.operations > 0 {
                client.end(0);
            }
            client.fill(0);
        }
    }
    for client in &clients {
        assert_eq!(client.used.operations - OWN.operations, 40);
    }
}

#[test]
fn an_export_with_many_connections_leaves_its_backend_to_the_others() {
    let budgets = budgets(1 << 30, 96 * MIB);
    let mut crowd: Vec<_> = (0..50).map(|_| Client::new(&budgets, "crowd")).collect();
    settle(&mut crowd, 16 * KIB);
    let of_crowd = crowd[0].account.export.taken().bytes;
    assert!(of_crowd <= 48 * MIB && of_crowd > 40 * MIB, "{of_crowd} of the backend's 96 MiB");
    let mut one = vec![Client::new(&budgets, "one")];
    for _ in 0..50 {
        settle(&mut one, 16 * KIB);
        settle(&mut crowd, 16 * KIB);
    }
    assert!(one[0].used.bytes >= 12 * MIB, "{} MiB", one[0].used.bytes / MIB);
}

#[test]
fn where_the_backend_is_short_the_connections_of_an_export_share_alike() {
    let budgets = budgets(1 << 30, 80 * MIB);
    let mut clients = vec![Client::new(&budgets, "a")];
    assert_eq!(settle(&mut clients, 16 * KIB), [20], "half of the export's half");
    clients.extend((0..3).map(|_| Client::new(&budgets, "a")));
    for got in settle(&mut clients, 16 * KIB) {
        assert!(got.abs_diff(8) <= 1, "{got} of 8 MiB");
    }
}

#[test]
fn whatever_is_taken_a_small_operation_goes_through() {
    let budgets = budgets(8 * MIB, 8 * MIB);
    let mut hogs: Vec<_> = (0..8).map(|_| Client::new(&budgets, "a")).collect();
    for hog in &mut hogs {
        hog.fill(MIB);
    }
    let mut newcomer = Client::new(&budgets, "a");
    assert_eq!(newcomer.start(64 * KIB), Answer::Yes);
    assert_eq!(newcomer.start(64 * KIB), Answer::Later, "not before the first ended");
}

#[test]
fn a_large_operation_waits_its_turn_and_gets_it() {
    let budgets = budgets(64 * MIB, 128 * MIB);
    let mut busy: Vec<_> = (0..8).map(|_| Client::new(&budgets, "a")).collect();
    settle(&mut busy, MIB);
    let mut large = Client::new(&budgets, "a");
    let mut larger = Client::new(&budgets, "a");
    assert_eq!(large.start(30 * MIB), Answer::Wait);
    assert_eq!(larger.start(32 * MIB), Answer::Wait);
    let (mut first, mut second) = (None, None);
    let mut ended = [0; 8];
    for round in 0..500 {
        for (client, ended) in busy.iter_mut().zip(&mut ended) {
            if client.used.operations > 0 {
                client.end(MIB);
                *ended += 1;
            }
            client.fill(MIB);
        }
        for (client, bytes, got) in
            [(&mut large, 30 * MIB, &mut first), (&mut larger, 32 * MIB, &mut second)]
        {
            if got.is_none() && client.start(bytes) == Answer::Yes {
                *got = Some(round);
            } else if got.is_some_and(|since| since + 5 == round) {
                client.end(bytes);
            }
        }
    }
    assert!(first.unwrap() < second.unwrap(), "first come, first served");
    assert!(ended.iter().all(|ended| *ended > 400), "nobody starves: {ended:?}");
    let pool = &large.account.export;
    let busy_bytes: usize = busy.iter().map(|client| client.account.leased.bytes).sum();
    assert_eq!(pool.taken().bytes, busy_bytes, "their places are free again");
}

#[test]
fn who_leaves_gives_up_the_place() {
    let budgets = budgets(64 * MIB, 64 * MIB);
    let mut holder = Client::new(&budgets, "a");
    assert_eq!(holder.start(64 * MIB), Answer::Yes);
    let mut waiting = Client::new(&budgets, "a");
    let mut behind = Client::new(&budgets, "a");
    assert_eq!(waiting.start(32 * MIB), Answer::Wait);
    assert_eq!(behind.start(20 * MIB), Answer::Wait);
    holder.end(24 * MIB);
    let mut last = Client::new(&budgets, "a");
    assert_eq!(last.start(MIB), Answer::Wait, "the first leaves no room before it");
    drop((waiting, last));
    holder.end(40 * MIB);
    assert_eq!(behind.start(20 * MIB), Answer::Yes);
}

#[test]
fn what_the_backend_refuses_is_not_taken_from_the_export() {
    let budgets = budgets(64 * MIB, 40 * MIB);
    let mut holder = Client::new(&budgets, "a");
    assert_eq!(holder.start(30 * MIB), Answer::Yes);
    let mut waiting = Client::new(&budgets, "b");
    assert_eq!(waiting.start(20 * MIB), Answer::Wait);
    assert_eq!(waiting.account.export.taken(), Amount::NONE);
    let mut beside = Client::new(&budgets, "a");
    assert_eq!(beside.start(MIB), Answer::Wait, "the backend's place is taken");
    holder.end(30 * MIB);
    assert_eq!(waiting.start(20 * MIB), Answer::Yes);
    assert_eq!(beside.start(MIB), Answer::Yes);
}

#[test]
fn many_threads_never_take_more_than_there_is() {
    let budgets = Budgets::new(amount(64, 4 * MIB), amount(80, 6 * MIB));
    std::thread::scope(|scope| {
        for number in 0..8_usize {
            let (budgets, export) = (&budgets, ["a", "b"][number % 2]);
            scope.spawn(move || {
                let mut client = Client::new(budgets, export);
                for round in 0..3000 {
                    let bytes = (4 * KIB) << ((round * 7 + number) % 9);
                    let _ = client.start(bytes);
                    let (taken, whole) =
                        (client.account.export.taken(), client.account.backend.taken());
                    assert!(taken.within(amount(64, 4 * MIB)), "{taken:?}");
                    assert!(whole.within(amount(80, 6 * MIB)), "{whole:?}");
                    assert!(client.used.minus(OWN).within(client.account.leased));
                    if round % 3 == 0 {
                        client.used = Amount::NONE;
                        client.account.settle(client.used);
                    }
                }
            });
        }
    });
    for export in ["a", "b"] {
        let left = budgets.account(export, "disk");
        assert_eq!((left.export.taken(), left.backend.taken()), Default::default());
    }
}

#[test]
fn patience_ends_with_clients_that_hold_and_do_not_move_while_others_wait() {
    let start = Instant::now();
    let at = |secs| start + Duration::from_secs(secs);
    let mut patience = Patience::default();
    assert!(!patience.ends(MIB, 0, 0, at(0)));
    assert!(!patience.ends(MIB, 0, 1, at(9)));
    assert!(patience.ends(MIB, 1000, 1, at(10)), "1000 bytes are no progress");

    let mut patience = Patience::default();
    assert!(!patience.ends(MIB, 0, 5, at(0)));
    assert!(!patience.ends(MIB, 0, 5, at(60)), "nobody else wants it");
    assert!(!patience.ends(MIB, 0, 6, at(69)));
    assert!(patience.ends(MIB, 0, 6, at(70)));

    let mut patience = Patience::default();
    assert!(!patience.ends(MIB, 0, 0, at(0)));
    assert!(!patience.ends(MIB, MIB as u64 / 8, 1, at(10)), "an eighth has moved");
    assert!(!patience.ends(0, 0, 2, at(11)) && patience.is_calm(), "nothing is held");
    assert!(!patience.ends(MIB, 0, 2, at(12)));
    assert!(!patience.ends(MIB, 0, 3, at(21)));
}
