//! Tickets as futures.

use crate::{Downloads, Error, Ticket};
use parking_lot::{Condvar, Mutex};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// The result of a ticket whose rest another thread does.
#[derive(Default)]
pub(crate) struct Elsewhere {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Default)]
struct State {
    result: Option<Result<Downloads, Error>>,
    /// Whoever polled last.
    waker: Option<Waker>,
}

impl Elsewhere {
    fn put(&self, result: Result<Downloads, Error>) {
        let mut state = self.state.lock();
        state.result = Some(result);
        let waker = state.waker.take();
        drop(state);
        self.done.notify_all();
        // Not under the lock: wakers do what they like.
        // One that panics is its owner's trouble, not that of the thread that happens to wake it.
        let wake = std::panic::AssertUnwindSafe(|| waker.into_iter().for_each(Waker::wake));
        if std::panic::catch_unwind(wake).is_err() {
            tracing::error!("a waker panicked");
        }
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Result<Downloads, Error>> {
        let waker = context.waker().clone();
        let mut state = self.state.lock();
        if let Some(result) = state.result.take() {
            return Poll::Ready(result);
        }
        let old = state.waker.replace(waker);
        drop(state);
        drop(old);
        Poll::Pending
    }

    /// The thread that does the rest waits for nothing itself.
    pub(crate) fn wait(&self) -> Result<Downloads, Error> {
        let mut state = self.state.lock();
        loop {
            if let Some(result) = state.result.take() {
                return result;
            }
            self.done.wait(&mut state);
        }
    }
}

impl Future for Ticket {
    type Output = Result<Downloads, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ticket = self.get_mut();
        if ticket.elsewhere.is_none() {
            if let Some(device) = &mut ticket.device {
                match device.poll_done(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => {
                        drop(ticket.take_rest());
                        return Poll::Ready(Err(error.into()));
                    }
                }
            }
            let on_device = ticket.device.is_some();
            let (rest, much) = ticket.take_rest();
            let Some(vulkan) = ticket.backend.vulkan().filter(|_| on_device && much) else {
                return Poll::Ready(rest.wait());
            };
            let elsewhere = Arc::new(Elsewhere::default());
            ticket.elsewhere = Some(elsewhere.clone());
            vulkan.device().spawn(move || elsewhere.put(rest.wait()));
        }
        let Some(elsewhere) = &ticket.elsewhere else { return Poll::Pending };
        let polled = elsewhere.poll(context);
        if polled.is_ready() {
            ticket.elsewhere = None;
        }
        polled
    }
}
