// SPDX-License-Identifier: Apache-2.0
use std::time::Duration;

use tokio::time::timeout;

use super::*;

const MOMENT: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_pause_is_settled_when_those_admitted_have_ended() {
    let gate = Arc::new(Gate::default());
    let (first, second) = (gate.try_admit().unwrap(), gate.try_admit().unwrap());
    let pause = gate.pause().unwrap();
    assert!(gate.try_admit().is_none(), "admitted while paused");
    assert!(timeout(MOMENT, pause.settled()).await.is_err(), "two are under way");
    let settling = tokio::spawn(async move {
        pause.settled().await;
        pause
    });
    drop(first);
    tokio::time::sleep(MOMENT).await;
    assert!(!settling.is_finished(), "one is under way");
    drop(second);
    drop(timeout(PATIENCE, settling).await.expect("settled").unwrap());
}

#[tokio::test]
async fn those_that_wait_go_on_when_the_pause_is_dropped() {
    let gate = Arc::new(Gate::default());
    let pause = gate.pause().unwrap();
    assert!(gate.pause().is_none(), "paused twice");
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { gate.admit().await })
        })
        .collect();
    tokio::time::sleep(MOMENT).await;
    assert!(waiting.iter().all(|one| !one.is_finished()));
    timeout(PATIENCE, pause.settled()).await.expect("those that wait do not count");
    drop(pause);
    for one in waiting {
        timeout(PATIENCE, one).await.expect("it went on").unwrap();
    }
    let again = gate.pause().expect("the pause is over");
    timeout(PATIENCE, again.settled()).await.expect("nothing is under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_under_way_while_paused_and_settled() {
    let gate = Arc::new(Gate::default());
    let (under_way, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let changing: Vec<_> = (0..4)
        .map(|_| {
            let (gate, under_way, ended) = (gate.clone(), under_way.clone(), ended.clone());
            tokio::spawn(async move {
                while ended.load(Ordering::Relaxed) == 0 {
                    let admitted = gate.admit().await;
                    under_way.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    under_way.fetch_sub(1, Ordering::SeqCst);
                    drop(admitted);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for _ in 0..500 {
        let pause = gate.pause().unwrap();
        timeout(PATIENCE, pause.settled()).await.expect("settled");
        for _ in 0..10 {
            assert_eq!(under_way.load(Ordering::SeqCst), 0);
            tokio::task::yield_now().await;
        }
        drop(pause);
        tokio::task::yield_now().await;
    }
    ended.store(1, Ordering::Relaxed);
    for one in changing {
        timeout(PATIENCE, one).await.expect("it went on").unwrap();
    }
}
