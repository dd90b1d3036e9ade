// SPDX-License-Identifier: Apache-2.0
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use super::*;
use crate::ErrorKind;

fn poll<T>(future: &mut OpFuture<T>) -> Poll<Result<T>> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn ready_and_pending_operations_give_their_results() {
    assert_eq!(Op::ok(7).await.expect("ready"), 7);
    let slow = Op::run(async {
        tokio::task::yield_now().await;
        Ok(8)
    });
    assert_eq!(slow.map(|result| result.map(|value| value + 1)).await.expect("pending"), 9);
    let failed: Op<()> = Error::new(ErrorKind::NO_SPACE, "full").into();
    assert_eq!(failed.await.expect_err("failed").kind(), ErrorKind::NO_SPACE);
}

#[test]
fn a_panic_in_a_future_is_an_error_and_the_future_is_over() {
    let mut future = OpFuture::<()>::new(async { panic!("by design") });
    let Poll::Ready(Err(error)) = poll(&mut future) else { panic!("not ready") };
    assert_eq!(error.kind(), ErrorKind::PANIC);
    assert!(error.message().contains("by design"));
    assert!(poll(&mut future).is_pending());
}

#[test]
fn a_panic_in_a_future_s_drop_stays_there() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("by design");
        }
    }
    let bomb = Bomb;
    let mut future = OpFuture::<()>::new(async move {
        let _bomb = &bomb;
        std::future::pending().await
    });
    assert!(poll(&mut future).is_pending());
    drop(future);
}

#[test]
fn a_future_wakes_its_poller_from_another_thread_after_many_clones() {
    struct Woken(AtomicBool, std::thread::Thread);
    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
            self.1.unpark();
        }
    }
    let woken = Arc::new(Woken(AtomicBool::new(false), std::thread::current()));
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let mut future = OpFuture::new(async move { Ok(receiver.await.unwrap_or(0)) });
    let waker = Waker::from(woken.clone());
    for _ in 0..3 {
        assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    std::thread::spawn(move || sender.send(5)).join().expect("joined").expect("received");
    while !woken.0.load(Ordering::SeqCst) {
        std::thread::park();
    }
    assert!(matches!(poll(&mut future), Poll::Ready(Ok(5))));
    drop((future, waker));
    assert_eq!(Arc::strong_count(&woken), 1, "a waker leaked");
}
