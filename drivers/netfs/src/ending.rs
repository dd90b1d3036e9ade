// SPDX-License-Identifier: Apache-2.0
//! Operations that end, whoever has stopped waiting for them.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use driver_api::{Op, Result};

type Work<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// A change under way. Dropped half way it goes on by itself: what a server may yet do is not forgotten.
struct ToTheEnd<T: Send + 'static> {
    work: Option<Work<T>>,
    begun: bool,
}

impl<T: Send + 'static> Future for ToTheEnd<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let this = &mut *self;
        this.begun = true;
        let Some(work) = &mut this.work else { return Poll::Pending };
        let polled = work.as_mut().poll(cx);
        if polled.is_ready() {
            this.work = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for ToTheEnd<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take().filter(|_| self.begun)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(work);
        }
    }
}

/// An operation that `work` finishes, also when nobody waits for it any more.
pub(crate) fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Op<T> {
    Op::run(ToTheEnd { work: Some(Box::pin(work)), begun: false })
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    #[tokio::test]
    async fn what_was_begun_ends_though_it_was_dropped() {
        let done = Arc::new(AtomicBool::new(false));
        let begin = |done: Arc<AtomicBool>| {
            to_the_end(async move {
                tokio::task::yield_now().await;
                done.store(true, Ordering::SeqCst);
                Ok(())
            })
            .into_future()
        };
        drop(begin(Arc::clone(&done)));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert!(!done.load(Ordering::SeqCst), "what was not begun is not done");
        let mut begun = begin(Arc::clone(&done));
        assert!(
            Pin::new(&mut begun)
                .poll(&mut Context::from_waker(std::task::Waker::noop()))
                .is_pending()
        );
        drop(begun);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(done.load(Ordering::SeqCst));
    }
}
