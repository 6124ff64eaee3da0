//! Tickets awaited, with an executor of a few lines: the same results as waiting, nobody forgotten, nothing left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use ark_bls12_381::Fr;
use ark_ff::Field as _;
use bls12_field_gpu::{
    Backend, CallClass, DeviceError, Download, Downloads, Error, Failure, Fault, Faults, Injection, MemoryMode, Options,
    Ticket, Validation, Vector, Width,
};
use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use support::{Watched, cpu, in_time, numbers, unwatched};

const LIMIT: Duration = Duration::from_secs(120);

struct Unpark(Thread, AtomicUsize);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, SeqCst);
        self.0.unpark();
    }
}

/// An executor of one future; what came of it, and how often it was polled.
fn block_on<F: Future>(future: F) -> (F::Output, usize) {
    let mut future = pin!(future);
    let unpark = Arc::new(Unpark(thread::current(), AtomicUsize::new(0)));
    let waker = Waker::from(unpark.clone());
    let mut polls = 0;
    loop {
        let woken = unpark.1.load(SeqCst);
        polls += 1;
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return (output, polls);
        }
        while unpark.1.load(SeqCst) == woken {
            thread::park();
        }
    }
}

/// All results of several tickets, polled together, in the order given.
struct Joined(Vec<(Ticket, Option<Result<Downloads, Error>>)>);

impl Future for Joined {
    type Output = Vec<Result<Downloads, Error>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        for (ticket, result) in self.0.iter_mut().filter(|(_, result)| result.is_none()) {
            if let Poll::Ready(ready) = Pin::new(ticket).poll(context) {
                *result = Some(ready);
            }
        }
        let ready = self.0.iter().all(|(_, result)| result.is_some());
        if ready { Poll::Ready(self.0.drain(..).filter_map(|(_, result)| result).collect()) } else { Poll::Pending }
    }
}

fn joined(tickets: impl IntoIterator<Item = Ticket>) -> Joined {
    Joined(tickets.into_iter().map(|ticket| (ticket, None)).collect())
}

/// A ticket that takes a while, and what it downloads.
fn cubed(vector: &Vector<Fr>, verified: bool, backend: &Backend) -> Result<(Ticket, Download<Fr>), Error> {
    let mut recording = backend.record();
    let cubes = recording.pow(vector, &[3])?;
    let download = recording.download(&cubes)?;
    let ticket = if verified { recording.submit_verified()? } else { recording.submit()? };
    Ok((ticket, download))
}

fn cubes(numbers: &[Fr]) -> Vec<Fr> {
    numbers.iter().map(|x| x.pow([3])).collect()
}

/// As long as it takes a software device some tens of milliseconds.
fn slow(vector: &Vector<Fr>, backend: &Backend) -> Ticket {
    let mut recording = backend.record();
    for _ in 0..4 {
        recording.pow_into(vector, &[u64::MAX; 6], vector).unwrap();
    }
    recording.submit().unwrap()
}

#[test]
fn awaiting_gives_what_waiting_gives() {
    in_time(LIMIT, || {
        for width in Width::ALL {
            for memory in [MemoryMode::DeviceLocal, MemoryMode::Host] {
                let backend = Watched::new(Options::new().width(width).memory(memory));
                // Copied in the poll, and elsewhere.
                for length in [1, 100, 5000] {
                    let a = numbers::<Fr>(length, 2);
                    let vector = backend.upload(&a).unwrap();
                    for verified in [false, true] {
                        let (ticket, download) = cubed(&vector, verified, &backend).unwrap();
                        let (result, polls) = block_on(ticket);
                        assert_eq!(result.unwrap().take(&download).unwrap(), cubes(&a));
                        // Not asked again and again whether it is done.
                        assert!(polls <= 4, "{polls}");
                    }
                }
                assert!(block_on(backend.record().submit().unwrap()).0.unwrap().is_empty());
            }
        }
    });
}

#[test]
fn without_a_device_it_is_ready_at_once() {
    let backend = cpu();
    let a = numbers::<Fr>(20, 2);
    let (ticket, download) = cubed(&backend.upload(&a).unwrap(), true, &backend).unwrap();
    let (result, polls) = block_on(ticket);
    assert_eq!((result.unwrap().take(&download).unwrap(), polls), (cubes(&a), 1));
}

#[test]
fn what_is_wrong_is_found_when_it_is_awaited() {
    in_time(LIMIT, || {
        let backend = Watched::new(Options::new().fault(Fault::FlipBit(33)));
        let vector = backend.upload(&numbers::<Fr>(100, 2)).unwrap();
        let (ticket, _) = cubed(&vector, true, &backend).unwrap();
        assert!(matches!(block_on(ticket).0, Err(Error::VerificationFailed { .. })));
    });
}

#[test]
fn several_are_awaited_together_in_any_order() {
    in_time(LIMIT, || {
        let backend = Watched::new(Options::new());
        let a = numbers::<Fr>(3000, 1);
        let vector = backend.upload(&a).unwrap();
        let submit = || (0..8).map(|n| cubed(&vector, n % 3 == 0, &backend).unwrap()).unzip();
        for backwards in [false, true] {
            let (mut tickets, mut downloads): (Vec<_>, Vec<_>) = submit();
            if backwards {
                tickets.reverse();
                downloads.reverse();
            }
            let (results, polls) = block_on(joined(tickets));
            for (result, download) in results.into_iter().zip(&downloads) {
                assert_eq!(result.unwrap().take(download).unwrap(), cubes(&a));
            }
            // Each is worth two wakes at most.
            assert!(polls <= 17, "{polls}");
        }
        // By several threads.
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for round in 0..20 {
                        let (ticket, download) = cubed(&vector, round % 4 == 0, &backend).unwrap();
                        assert_eq!(block_on(ticket).0.unwrap().take(&download).unwrap(), cubes(&a));
                    }
                });
            }
        });
    });
}

/// A future that is awaited wakes when it is done, whatever else is under way for longer.
#[test]
fn nobody_waits_for_others() {
    in_time(LIMIT, || {
        let backend = Watched::new(Options::new());
        let vector = backend.upload(&numbers::<Fr>(20_000, 1)).unwrap();
        let (first, second) = (slow(&vector, &backend), slow(&vector, &backend));
        let start = Instant::now();
        // The later one first, so that the thread might sleep for it.
        let waker = Waker::from(Arc::new(Unpark(thread::current(), AtomicUsize::new(0))));
        let mut second = second;
        let pending = Pin::new(&mut second).poll(&mut Context::from_waker(&waker)).is_pending();
        block_on(first).0.unwrap();
        let early = start.elapsed();
        block_on(second).0.unwrap();
        let late = start.elapsed();
        // On a device fast enough both are done at once.
        assert!(!pending || late < Duration::from_millis(20) || early < late * 9 / 10, "{early:?} {late:?}");
    });
}

fn poll_once(ticket: &mut Ticket) -> bool {
    Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn a_future_may_be_dropped_or_waited_for_half_way() {
    in_time(LIMIT, || {
        let faults = Faults::default();
        let backend = Watched::new(Options::new().vulkan_faults(&faults));
        let a = numbers::<Fr>(5000, 1);
        let vector = backend.upload(&a).unwrap();
        for verified in [false, true] {
            let mut tickets: Vec<_> = (0..10).map(|_| cubed(&vector, verified, &backend).unwrap()).collect();
            tickets.iter_mut().for_each(|(ticket, _)| {
                poll_once(ticket);
            });
            // Some are dropped, one is waited for, the rest is awaited.
            let (ticket, download) = tickets.remove(3);
            drop(tickets.drain(4..));
            assert_eq!(ticket.wait().unwrap().take(&download).unwrap(), cubes(&a));
            for (ticket, download) in tickets {
                assert_eq!(block_on(ticket).0.unwrap().take(&download).unwrap(), cubes(&a));
            }
        }
        // Polled again after it was ready.
        let (mut ticket, _) = cubed(&vector, true, &backend).unwrap();
        block_on(&mut ticket).0.unwrap();
        assert!(ticket.is_done().unwrap());
        assert!(block_on(&mut ticket).0.unwrap().is_empty());
        drop(ticket);
        // Tickets outlive the backend.
        let (ticket, download) = cubed(&vector, true, &backend).unwrap();
        let log = backend.validation_log();
        drop((vector, backend));
        assert_eq!(block_on(ticket).0.unwrap().take(&download).unwrap(), cubes(&a));
        assert_gone(&faults);
        assert_eq!(log.messages(), Vec::<String>::new());
    });
}

/// Nothing lives any more, as soon as what was given to other threads has ended.
fn assert_gone(faults: &Faults) {
    let start = Instant::now();
    while !faults.live().is_empty() && start.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!((faults.live(), faults.memory()), (BTreeMap::new(), 0), "{:?}", faults.failed());
}

/// Drops what it holds when it is woken: the last handle of the device, on the thread that wakes.
struct DropsAll(Mutex<Option<Ticket>>, mpsc::Sender<()>);

impl Wake for DropsAll {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().unwrap().take());
        let _ = self.1.send(());
    }
}

#[test]
fn a_waker_may_drop_the_device() {
    in_time(LIMIT, || {
        for _ in 0..10 {
            let faults = Faults::default();
            let backend = unwatched(Options::new().vulkan_faults(&faults));
            let vector = backend.upload(&numbers::<Fr>(2000, 1)).unwrap();
            let mut ticket = slow(&vector, &backend);
            drop((vector, backend));
            let (woken, wakes) = mpsc::channel();
            let waker = Arc::new(DropsAll(Mutex::new(None), woken));
            // Under the lock, so that it is there when the waker looks.
            let mut held = waker.0.lock().unwrap();
            let pending = Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker.clone().into())).is_pending();
            *held = Some(ticket);
            drop(held);
            if pending {
                wakes.recv().unwrap();
            }
            drop(waker);
            assert_gone(&faults);
        }
    });
}

fn suits(error: &Error, failure: Failure) -> bool {
    let Error::Device(error) = error else { return false };
    match failure {
        Failure::DeviceLost => matches!(error, DeviceError::Lost { .. }),
        Failure::Hang => matches!(error, DeviceError::TimedOut { .. } | DeviceError::Lost { .. }),
        Failure::Unknown => matches!(error, DeviceError::Driver { .. }),
        _ => matches!(error, DeviceError::OutOfMemory { .. }),
    }
}

/// Each call that awaiting makes fails in turn, in each way.
#[test]
fn whoever_awaits_is_told_what_failed() {
    in_time(LIMIT, || {
        let failures = [Failure::DeviceLost, Failure::Hang, Failure::OutOfHostMemory, Failure::Unknown];
        let faults = Faults::default();
        let a = numbers::<Fr>(3000, 1);
        let made = |round: usize, validation| {
            let backend = Watched::not_required(Options::new().vulkan_faults(&faults), validation);
            let vector = backend.upload(&a).unwrap();
            // Made before, so that only waiting fails.
            drop(cubed(&vector, false, &backend).unwrap().0.wait().unwrap());
            let (tickets, downloads): (Vec<_>, Vec<_>) =
                (0..4).map(|n| cubed(&vector, n % 2 == round % 2, &backend).unwrap()).unzip();
            faults.clear();
            (backend, vector, tickets, downloads)
        };
        for (round, failure) in failures.into_iter().enumerate() {
            // How often the device is asked is up to how fast it is: the most of some times.
            let counted = (0..3).map(|_| {
                let (backend, vector, tickets, _) = made(round, Validation::Off);
                block_on(joined(tickets)).0.into_iter().for_each(|result| drop(result.unwrap()));
                let calls = faults.calls(CallClass::Wait);
                drop((vector, backend));
                assert_gone(&faults);
                calls
            });
            let calls = counted.max().unwrap();
            let mut failed = 0;
            for at in 0..calls {
                // The layer watches every other.
                let validation = if at % 2 == 0 { Validation::On } else { Validation::Off };
                let (backend, vector, tickets, downloads) = made(round, validation);
                faults.inject(Injection { class: CallClass::Wait, at, times: 1, failure });
                for (result, download) in block_on(joined(tickets)).0.into_iter().zip(&downloads) {
                    match result {
                        Ok(mut downloads) => assert_eq!(downloads.take(download).unwrap(), cubes(&a)),
                        Err(error) => {
                            assert!(suits(&error, failure), "{failure:?}: {error:?}");
                            failed += 1;
                        }
                    }
                }
                faults.clear();
                match failure {
                    // A device that stands still may have been seen to finish before.
                    Failure::DeviceLost | Failure::Hang => drop(vector.download()),
                    _ => {
                        let (ticket, download) = cubed(&vector, true, &backend).unwrap();
                        assert_eq!(block_on(ticket).0.unwrap().take(&download).unwrap(), cubes(&a));
                    }
                }
                drop((vector, backend));
                assert_gone(&faults);
            }
            assert!(failed > 0, "{failure:?}");
        }
    });
}

#[test]
fn what_takes_too_long_loses_the_device() {
    in_time(LIMIT, || {
        // Hangs injected answer at once; here the device really is slower than that.
        let timeout = Duration::from_millis(5);
        let backend = Watched::not_required(Options::new().timeout(timeout), Validation::On);
        let vector = backend.upload(&numbers::<Fr>(20_000, 1));
        let Ok(vector) = vector else { return };
        let mut recording = backend.record();
        for _ in 0..16 {
            if recording.pow_into(&vector, &[u64::MAX; 6], &vector).is_err() {
                // The self-test took too long.
                return;
            }
        }
        let mut ticket = match recording.submit() {
            Ok(ticket) => ticket,
            // What is uploaded first took too long.
            Err(error) => return assert!(suits(&error, Failure::Hang), "{error:?}"),
        };
        match block_on(&mut ticket).0 {
            Ok(_) => assert!(!backend.is_lost()),
            Err(error) => {
                assert!(suits(&error, Failure::Hang), "{error:?}");
                assert!(backend.is_lost());
                assert!(matches!(vector.download(), Err(Error::Device(DeviceError::Lost { .. }))));
            }
        }
    });
}

/// A recording of so many powers.
fn powers(vector: &Vector<Fr>, count: u32, backend: &Backend) -> Ticket {
    let mut recording = backend.record();
    (0..count).for_each(|_| recording.pow_into(vector, &[u64::MAX; 6], vector).unwrap());
    recording.submit().unwrap()
}

#[test]
fn only_who_waits_loses_the_device_and_only_if_it_stands_still() {
    in_time(LIMIT, || {
        let numbers = numbers::<Fr>(20_000, 1);
        let each = {
            let backend = unwatched(Options::new());
            let vector = backend.upload(&numbers).unwrap();
            powers(&vector, 1, &backend).wait().unwrap();
            let begin = Instant::now();
            powers(&vector, 8, &backend).wait().unwrap();
            begin.elapsed() / 8
        };
        let timeout = (6 * each).max(Duration::from_millis(300));
        let within = |time: Duration| (time.as_secs_f64() / each.as_secs_f64()).ceil() as u32;
        let backend = Watched::not_required(Options::new().timeout(timeout), Validation::On);
        let vector = backend.upload(&numbers).unwrap();
        powers(&vector, 1, &backend).wait().unwrap();
        // Much is queued, and something finishes all the time: for who waits, and who awaits.
        let queued = || (0..12).map(|_| powers(&vector, within(timeout / 6), &backend)).next_back().unwrap();
        queued().wait().unwrap();
        block_on(queued()).0.unwrap();
        // Nobody waits any more.
        let mut ticket = powers(&vector, within(3 * timeout), &backend);
        assert!(!poll_once(&mut ticket));
        drop(ticket);
        thread::sleep(4 * timeout);
        assert!(!backend.is_lost());
        assert_eq!(vector.download().unwrap().len(), numbers.len());
    });
}
