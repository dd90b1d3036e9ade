// SPDX-License-Identifier: Apache-2.0
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use driver_api::ErrorKind;

use super::*;

/// Gives out numbers, slowly, and fails when it is told to.
#[derive(Debug, Default)]
struct Numbers {
    asked: AtomicUsize,
    fails: AtomicUsize,
    silent: AtomicUsize,
    lasts: Duration,
}

impl Source for Numbers {
    type Credential = usize;

    async fn fetch(&self) -> Result<Lease<usize>> {
        let credential = self.asked.fetch_add(1, Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
        if self.silent.load(Relaxed) > 0 {
            std::future::pending::<()>().await;
        }
        match self.fails.load(Relaxed) {
            0 => Ok(Lease { credential, lasts: self.lasts }),
            _ => Err(Error::new(ErrorKind::UNAVAILABLE, format!("failure {credential}"))),
        }
    }
}

fn leased(lasts_ms: u64) -> Leased<Numbers> {
    Leased::new(Numbers { lasts: Duration::from_millis(lasts_ms), ..Numbers::default() })
}

#[tokio::test]
async fn all_that_wait_share_one_answer() {
    let leased = leased(3_600_000);
    let all = futures_util::future::join_all((0..20).map(|_| leased.get())).await;
    assert!(all.into_iter().all(|credential| *credential.expect("a number") == 0));
    assert_eq!(leased.source.asked.load(Relaxed), 1);
    let renew = leased.held().as_ref().expect("held").renew;
    let early = renew.saturating_duration_since(Instant::now()).as_secs();
    assert!((3200..=3300).contains(&early), "renewed in {early} s");
}

#[tokio::test]
async fn all_that_wait_share_one_failure_and_the_next_asks_again() {
    let leased = leased(1000);
    leased.source.fails.store(1, Relaxed);
    let all = futures_util::future::join_all((0..20).map(|_| leased.get())).await;
    let first = all.into_iter().map(|told| told.expect_err("failed").message().to_owned());
    assert!(first.into_iter().all(|message| message == "failure 0"));
    leased.source.fails.store(0, Relaxed);
    assert_eq!(*leased.get().await.expect("a number"), 1);
}

#[tokio::test]
async fn what_still_holds_is_used_while_a_renewal_fails() {
    let leased = leased(400);
    assert_eq!(*leased.get().await.expect("a number"), 0);
    leased.source.fails.store(1, Relaxed);
    tokio::time::sleep(Duration::from_millis(220)).await;
    for _ in 0..5 {
        assert_eq!(*leased.get().await.expect("the old one"), 0);
    }
    assert_eq!(leased.source.asked.load(Relaxed), 2, "a rest after the failure");
    tokio::time::sleep(Duration::from_millis(220)).await;
    assert_eq!(leased.get().await.expect_err("it has ended").message(), "failure 2");
    leased.source.fails.store(0, Relaxed);
    assert_eq!(*leased.get().await.expect("a number"), 3);
}

#[tokio::test]
async fn a_silent_renewal_holds_nobody_up_for_long() {
    let leased = leased(60_000);
    assert_eq!(*leased.get().await.expect("a number"), 0);
    leased.source.silent.store(1, Relaxed);
    if let Some(held) = leased.held().as_mut() {
        held.renew = Instant::now();
    }
    let since = Instant::now();
    let (one, other) = tokio::join!(leased.get(), async {
        let told = leased.get().await;
        (told, since.elapsed())
    });
    assert_eq!(*one.expect("the old one"), 0);
    assert!(since.elapsed() <= PATIENCE * 4);
    assert_eq!(*other.0.expect("the old one"), 0);
    assert!(other.1 < PATIENCE, "who comes meanwhile does not wait");
}

#[tokio::test]
async fn what_is_given_out_as_expired_is_tried() {
    let leased = leased(0);
    assert_eq!(*leased.get().await.expect("a number"), 0);
    assert_eq!(*leased.get().await.expect("a number"), 0);
}
