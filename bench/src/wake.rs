//! Waking a task of the same core.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// One task waits, others of its core wake it. A wake that finds nobody waiting is kept.
#[derive(Debug, Default)]
pub struct Wake {
    is_set: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Wake {
    /// Wakes the task that waits, or makes its next wait return at once.
    #[inline]
    pub fn wake(&self) {
        if !self.is_set.replace(true)
            && let Some(waiter) = self.waiter.borrow_mut().take()
        {
            waiter.wake();
        }
    }

    /// Waits for a wake.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.is_set.replace(false) {
                return Poll::Ready(());
            }
            *self.waiter.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
