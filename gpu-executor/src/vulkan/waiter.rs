//! Awaiting tickets: one thread per device sleeps in the driver for all of them, and wakes whoever awaits one that is done.

use super::queue::Point;
use super::{Device, Shared, Ticket, driver_error};
use crate::Error;
use crate::plan::Role;
use ash::vk;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The thread, started when a ticket is first awaited and joined when the device goes. It holds nothing that keeps the device:
/// tickets do, and without any it does not touch the device.
#[derive(Default)]
pub(super) struct Waiter {
    /// `None` if the system gave no thread: then polls wait.
    thread: OnceLock<Option<Running>>,
}

/// What the thread shares with others, and the thread.
type Running = (Arc<Inner>, Mutex<Option<JoinHandle<()>>>);

struct Inner {
    raw: ash::Device,
    /// Tickets are all of the compute queue.
    timeline: vk::Semaphore,
    /// Those of all queues, by which it is seen whether the device stands still.
    timelines: Vec<vk::Semaphore>,
    lost: Arc<AtomicBool>,
    timeout: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stop: bool,
    next: u64,
    awaited: Vec<Awaited>,
}

/// A ticket that is awaited.
struct Awaited {
    id: u64,
    value: u64,
    /// Since when.
    since: Instant,
    /// Taken when it is woken.
    waker: Option<Waker>,
    /// Why it will not be heard of any more.
    failed: Option<Error>,
}

impl State {
    /// Nobody will hear of what he awaits, but for this.
    fn fail(&mut self, error: &Error) {
        self.awaited.iter_mut().for_each(|entry| entry.failed = Some(error.clone()));
    }
}

impl Inner {
    /// The thread's work.
    fn serve(&self) {
        // How far the timeline has got, and when it was seen to.
        let (mut finished, mut advanced) = (0, Instant::now());
        let mut state = self.state.lock();
        loop {
            let done = |entry: &&mut Awaited| entry.value <= finished || entry.failed.is_some();
            let wakers: Vec<Waker> = state.awaited.iter_mut().filter(done).filter_map(|entry| entry.waker.take()).collect();
            if !wakers.is_empty() {
                // Not under the lock: wakers do what they like. One may even drop the device's last handle.
                MutexGuard::unlocked(&mut state, || {
                    for waker in wakers {
                        if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
                            tracing::error!("a waker panicked");
                        }
                    }
                });
                continue;
            }
            if state.stop {
                return;
            }
            if state.awaited.iter().all(|entry| entry.waker.is_none()) {
                self.changed.wait(&mut state);
                continue;
            }
            let deadline = self.deadline(&state, advanced);
            match MutexGuard::unlocked(&mut state, || self.next_after(finished, deadline)) {
                Ok(Some(value)) => (finished, advanced) = (value, Instant::now()),
                // If whoever it was that waited for so long still does, that loses the device.
                Ok(None) if self.deadline(&state, advanced).is_none_or(|now| Some(now) > deadline) => {}
                Ok(None) => {
                    self.lost.store(true, Relaxed);
                    state.fail(&Error::TimedOut { after: self.timeout });
                }
                Err(error) => state.fail(&error),
            }
        }
    }

    /// Until when the timeline must have advanced for those that await something; never, if nobody does or that is out of the clock's range.
    fn deadline(&self, state: &State, advanced: Instant) -> Option<Instant> {
        let open = state.awaited.iter().filter(|entry| entry.waker.is_some());
        open.map(|entry| entry.since.max(advanced)).min()?.checked_add(self.timeout)
    }

    /// How much all queues have finished, as far as the driver says.
    fn progress(&self) -> u64 {
        // SAFETY: as in `next_after`.
        let reached = |timeline: &vk::Semaphore| unsafe { self.raw.get_semaphore_counter_value(*timeline) };
        self.timelines.iter().filter_map(|timeline| reached(timeline).ok()).sum()
    }

    /// Sleeps until the timeline has passed `finished`; how far it has got, or `None` at the deadline, if no other has advanced. Whoever
    /// comes meanwhile awaits nothing that is done sooner, so that nobody needs to wake the thread.
    fn next_after(&self, finished: u64, deadline: Option<Instant>) -> Result<Option<u64>, Error> {
        let (semaphores, values) = ([self.timeline], [finished + 1]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).as_nanos());
        let left = left.and_then(|left| u64::try_from(left).ok()).unwrap_or(u64::MAX);
        let before = self.progress();
        // SAFETY: the device and its semaphores live: a ticket that was awaited when this was called holds them, and whoever
        // drops the last one waits for this thread before they are destroyed.
        let reached = unsafe {
            let waited = self.raw.wait_semaphores(&info, left).map_err(|result| ("vkWaitSemaphores", result));
            let counter = || self.raw.get_semaphore_counter_value(self.timeline);
            waited.and_then(|()| counter().map_err(|result| ("vkGetSemaphoreCounterValue", result)))
        };
        match reached {
            Ok(value) => Ok(Some(value.max(finished + 1))),
            Err((_, vk::Result::TIMEOUT)) => Ok((self.progress() > before).then_some(finished)),
            Err((call, result)) => {
                let error = driver_error(call)(result);
                if error.is_loss() {
                    self.lost.store(true, Relaxed);
                }
                Err(error)
            }
        }
    }

    /// Has a waker woken when the timeline has reached `value`, or when that cannot be known any more.
    fn register(&self, id: Option<u64>, value: u64, waker: Waker) -> u64 {
        let mut state = self.state.lock();
        let known = id.and_then(|id| state.awaited.iter().position(|entry| entry.id == id));
        let (id, old) = match known {
            Some(index) => {
                let entry = &mut state.awaited[index];
                (entry.id, entry.waker.replace(waker))
            }
            None => {
                let id = state.next;
                state.next += 1;
                state.awaited.push(Awaited { id, value, since: Instant::now(), waker: Some(waker), failed: None });
                (id, None)
            }
        };
        self.changed.notify_one();
        drop(state);
        // Not under the lock, as everything that belongs to wakers.
        drop(old);
        id
    }

    /// Forgets an awaited ticket; what was wrong with it.
    fn forget(&self, id: u64) -> Option<Error> {
        let mut state = self.state.lock();
        let index = state.awaited.iter().position(|entry| entry.id == id)?;
        let entry = state.awaited.swap_remove(index);
        drop(state);
        entry.failed
    }

    fn failed(&self, id: u64) -> bool {
        self.state.lock().awaited.iter().any(|entry| entry.id == id && entry.failed.is_some())
    }
}

impl Waiter {
    /// The thread, made when first needed.
    fn started(&self, shared: &Shared) -> Option<&Inner> {
        let start = || {
            let inner = Arc::new(Inner {
                raw: shared.gpu.raw.clone(),
                timeline: shared.queues.of(Role::Compute).timeline,
                timelines: shared.queues.all().map(|queue| queue.timeline).collect(),
                lost: shared.lost.clone(),
                timeout: shared.settings.timeout,
                state: Mutex::default(),
                changed: Condvar::new(),
            });
            let its = inner.clone();
            let thread = std::thread::Builder::new().name("bls12-wake".into()).spawn(move || its.serve());
            let thread = thread.inspect_err(|error| tracing::warn!(%error, "tickets wait when they are polled")).ok()?;
            Some((inner, Mutex::new(Some(thread))))
        };
        self.thread.get_or_init(start).as_ref().map(|(inner, _)| &**inner)
    }

    fn inner(&self) -> Option<&Inner> {
        self.thread.get()?.as_ref().map(|(inner, _)| &**inner)
    }

    /// Ends the thread. The device must be idle, so that it does not sleep, and nobody may await anything any more.
    pub(super) fn stop(&self) {
        let Some(Some((inner, thread))) = self.thread.get() else { return };
        inner.state.lock().stop = true;
        inner.changed.notify_one();
        let thread = thread.lock().take();
        // The thread itself drops the device if a waker dropped the last handle: then it ends when that is done.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl Ticket {
    /// As [`Ticket::wait_timeout`], for futures: whoever polls last is woken when the batch has finished, or nothing has for as long as
    /// the device's timeout since the first poll.
    ///
    /// # Errors
    /// [`Error::TimedOut`] and [`Error::Lost`]; what the driver answers to waiting.
    pub fn poll_done(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let shared = self.shared.clone();
        let polled = self.poll_on(&shared, context);
        if polled.is_ready() {
            self.forget();
        }
        polled
    }

    fn poll_on(&mut self, shared: &Shared, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let (Some(id), Some(inner)) = (self.awaited, shared.waiter.inner())
            && inner.failed(id)
        {
            self.awaited = None;
            return Poll::Ready(inner.forget(id).map_or(Ok(()), Err));
        }
        shared.refuse_if_lost()?;
        if shared.is_finished(self.until)? {
            return Poll::Ready(Ok(()));
        }
        let Some(inner) = shared.waiter.started(shared) else { return Poll::Ready(shared.wait(self.until)) };
        let Point { role, value } = self.until;
        debug_assert_eq!(role, Role::Compute);
        self.awaited = Some(inner.register(self.awaited, value, context.waker().clone()));
        // It may have finished before the thread knew of it.
        if shared.is_finished(self.until)? { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Nobody awaits it any more.
    pub(super) fn forget(&mut self) {
        if let (Some(id), Some(inner)) = (self.awaited.take(), self.shared.waiter.inner()) {
            inner.forget(id);
        }
    }
}

impl Device {
    /// Runs `work` on one of the device's own threads, some time; at once, if the system gives none. It must not wait for memory
    /// of the device.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        self.shared.threads.spawn(work);
    }
}
