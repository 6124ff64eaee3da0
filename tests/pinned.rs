//! Vectors in memory that the device reaches: as operands and outputs, whole and in parts, against the CPU.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use ark_bls12_381::{Fq, Fr};
use ark_ff::PrimeField as _;
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{
    Backend, CallClass, DeviceError, Error, Failure, Faults, Injection, MemoryMode, Options, Pinned, Validation, Verify,
    Width,
};
use std::collections::BTreeMap;
use std::sync::Mutex;
use support::{Watched, cpu, numbers};

const CHUNK: usize = 512;

/// One test at a time: the validation layer does not bear a device being made while another is in use.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> impl Drop {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn engines() -> Vec<Watched> {
    let memories = [MemoryMode::DeviceLocal, MemoryMode::Host];
    let options = Width::ALL.into_iter().flat_map(|width| memories.map(|memory| Options::new().width(width).memory(memory)));
    options.map(|options| Watched::new(options.chunk_elements(CHUNK))).collect()
}

fn pinned<F: Element>(backend: &Backend, elements: &[F]) -> Pinned<F> {
    let mut pinned = backend.pinned(elements.len()).unwrap();
    assert!(pinned.iter().all(|element| *element == F::from(0u64)));
    pinned.copy_from_slice(elements);
    pinned
}

/// a b + c with each operand and the output pinned or not, in every combination, on these elements of the vectors.
fn mul_add<F: Element>(backend: &Backend, length: usize, offset: usize) {
    let operands = [1, 2, 3].map(|salt| numbers::<F>(length, salt));
    let its = [0, 1, 2].map(|n: usize| pinned(backend, &operands[n]));
    // Each at another offset: elements of Fq lie at multiples of 16, but not of 32.
    let used = length - 3 * offset;
    let parts = [0, 1, 2].map(|n| n * offset..n * offset + used);
    let expected = {
        let [a, b, c] = [0, 1, 2].map(|n: usize| &operands[n][parts[n].clone()]);
        cpu().mul_add(a, b, c).unwrap()
    };
    for which in 0..16 {
        let [a, b, c] = [0, 1, 2].map(|n: usize| {
            let whole: &[F] = if which >> n & 1 == 1 { &its[n] } else { &operands[n] };
            &whole[parts[n].clone()]
        });
        let (mut host, mut out) = (vec![F::from(9u64); length], pinned(backend, &vec![F::from(9u64); length]));
        let whole: &mut [F] = if which & 8 == 8 { &mut out } else { &mut host };
        let (before, rest) = whole.split_at_mut(offset);
        let (target, after) = rest.split_at_mut(used);
        backend.mul_add_into(a, b, c, target).unwrap();
        assert!(*target == expected[..], "{which:b}, {length} elements at {offset}");
        assert!(before.iter().chain(&*after).all(|element| *element == F::from(9u64)), "{which:b}");
    }
    // Operands are read only.
    its.iter().zip(&operands).for_each(|(pinned, operand)| assert!(pinned[..] == operand[..]));
}

#[test]
fn wherever_operands_lie_the_result_is_right() {
    let _alone = alone();
    for backend in engines() {
        for (length, offset) in [(1, 0), (40, 3), (CHUNK, 0), (3 * CHUNK + 77, 0), (3 * CHUNK + 77, 5)] {
            mul_add::<Fq>(&backend, length, offset);
            mul_add::<Fr>(&backend, length, offset);
        }
        // A mask beside elements; the same vector twice; several at once in one piece of memory.
        let a = pinned(&backend, &numbers::<Fq>(2 * CHUNK + 1, 4));
        assert_eq!(backend.sqrt(&a).unwrap(), cpu().sqrt(&a).unwrap());
        assert_eq!(backend.equal(&a, &a).unwrap(), vec![true; a.len()]);
        let (first, second) = a.split_at(CHUNK);
        assert_eq!(
            backend.add(&first[1..], &second[..CHUNK - 1]).unwrap(),
            cpu().add(&first[1..], &second[..CHUNK - 1]).unwrap()
        );
        // From threads that share it.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(backend.square(&a).unwrap(), cpu().square(&a).unwrap()));
            }
        });
        // Limbs of pinned elements are limbs like any other.
        assert_eq!(backend.neg(&backend.neg(&a).unwrap()).unwrap(), a[..]);
    }
}

#[test]
fn pinned_memory_is_copied_by_nobody_and_not_limited() {
    let _alone = alone();
    // Less than the vectors have.
    let backend = Watched::new(Options::new().memory(MemoryMode::Host).device_memory(64 << 10));
    let a = pinned(&backend, &numbers::<Fr>(10_000, 1));
    let mut out = backend.pinned::<Fr>(10_000).unwrap();
    backend.double_into(&a, &mut out).unwrap();
    let before = backend.stats().device;
    backend.double_into(&a, &mut out).unwrap();
    let after = backend.stats().device;
    assert_eq!((after.bytes_uploaded, after.bytes_downloaded), (before.bytes_uploaded, before.bytes_downloaded));
    assert_eq!(out[..], cpu().double(&a).unwrap());
}

#[test]
fn of_another_backend_it_is_host_memory() {
    let _alone = alone();
    let (mut engines, plain) = (engines(), cpu());
    let (first, second) = (engines.pop().unwrap(), engines.pop().unwrap());
    let a = numbers::<Fr>(2 * CHUNK, 1);
    let expected = plain.square(&a).unwrap();
    for its in [&*first, &plain] {
        let (theirs, mut out) = (pinned(its, &a), its.pinned::<Fr>(a.len()).unwrap());
        second.square_into(&theirs, &mut out).unwrap();
        assert_eq!(out[..], expected);
        plain.neg_into(&theirs, &mut out).unwrap();
        assert_eq!(out[..], plain.neg(&a).unwrap());
    }
    // It outlives its backend.
    let pinned = pinned(&first, &a);
    drop(first);
    assert_eq!(second.square(&pinned).unwrap(), expected);
}

#[test]
fn none_and_too_many() {
    let _alone = alone();
    for backend in engines() {
        assert!(backend.pinned::<Fq>(0).unwrap().is_empty());
        assert!(backend.neg(&backend.pinned::<Fq>(0).unwrap()).unwrap().is_empty());
        for length in [usize::MAX, usize::MAX / 48, 1 << 40] {
            match backend.pinned::<Fq>(length) {
                Err(Error::Device(DeviceError::OutOfMemory { needed, available, .. })) => assert!(needed > available),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(backend.pinned::<Fr>(1).unwrap()[..], [Fr::from(0u64)]);
    }
}

/// The device is at work on it before anybody has looked; nothing comes of it all the same.
#[test]
fn what_must_not_go_in_is_found_where_it_lies() {
    let _alone = alone();
    let length = 9 * CHUNK + 5;
    for options in [Options::new(), Options::new().memory(MemoryMode::DeviceLocal)] {
        let backend = Watched::new(options.chunk_elements(CHUNK).verify(Verify::Off));
        let ones = vec![Fr::from(1u64); length];
        let (mut a, b) = (pinned(&backend, &ones), pinned(&backend, &ones));
        let mut out = backend.pinned::<Fr>(length).unwrap();
        for index in [0, 3 * CHUNK, length - 1] {
            a[index] = Fr::new_unchecked(Fr::MODULUS);
            let error = backend.add_into(&a, &b, &mut out).unwrap_err();
            assert!(matches!(error, Error::NotBelowModulus { operand: "a", index: at, .. } if at == index), "{error}");
            a[index] = Fr::from(1u64);
            backend.add_into(&a, &b, &mut out).unwrap();
            assert!(out.iter().all(|sum| *sum == Fr::from(2u64)));
        }
    }
}

/// The device goes in the middle of a call: what the output holds is anybody's guess, everything else is as ever.
#[test]
fn a_device_that_goes_takes_nothing_with_it() {
    let _alone = alone();
    let a = numbers::<Fr>(5 * CHUNK, 1);
    let expected = cpu().square(&a).unwrap();
    for memory in [MemoryMode::DeviceLocal, MemoryMode::Host] {
        let faults = Faults::default();
        let made = || {
            let options = Options::new().memory(memory).chunk_elements(CHUNK).vulkan_faults(&faults);
            let backend = Watched::not_required(options, Validation::On);
            let (operand, mut out) = (pinned(&backend, &a), backend.pinned::<Fr>(a.len()).unwrap());
            backend.square_into(&operand, &mut out).unwrap();
            faults.clear();
            (backend, operand, out)
        };
        let calls = {
            let (backend, operand, mut out) = made();
            backend.square_into(&operand, &mut out).unwrap();
            faults.calls(CallClass::Any)
        };
        for failure in [Failure::DeviceLost, Failure::Hang] {
            let mut noticed = 0;
            for at in 0..calls {
                let (backend, mut operand, mut out) = made();
                faults.inject(Injection { class: CallClass::Any, at, times: 1, failure });
                // The CPU finishes it.
                backend.square_into(&operand, &mut out).unwrap();
                assert_eq!(out[..], expected);
                // The last calls of all come after the result.
                if backend.is_lost() {
                    noticed += 1;
                } else {
                    backend.square_into(&operand, &mut out).unwrap();
                }
                assert!(backend.is_lost());
                assert_eq!(out[..], expected);
                assert_eq!(operand[..], a[..]);
                assert!(matches!(backend.pinned::<Fr>(1), Err(Error::Device(DeviceError::Lost { .. }))));
                operand[0] = Fr::from(3u64);
                backend.square_into(&operand, &mut out).unwrap();
                assert_eq!(out[0], Fr::from(9u64));
                drop((operand, out, backend));
                assert_eq!((faults.live(), faults.memory()), (BTreeMap::new(), 0));
            }
            assert!(2 * noticed > calls, "{noticed} of {calls}");
        }
    }
}
