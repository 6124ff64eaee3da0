//! Verification of recordings: replayed on the CPU from the inputs that the device had, and compared. Steps that something proves in less
//! work than computing them need not be replayed: what the device says they wrote, in the end or, if it is overwritten, right behind them,
//! is proved from inputs that are known to be right by then, and taken.

use crate::memory::{Memory, Mirror, Place, zeroed};
use crate::step::{Item, Output, Step};
use crate::ticket::Landed;
use crate::{Backend, Error, Field, Verify};
use gpu_executor::{Batch, Stage};
use std::collections::HashMap;
use std::ops::Range;

/// What is fetched to verify a recording.
pub(crate) struct Verification {
    /// What the recording reads before it writes it, fetched before anything overwrites it.
    inputs: Vec<Memory>,
    /// What it writes, fetched when all is done.
    outputs: Vec<(Memory, Item)>,
    /// By step, where what it writes is found.
    proofs: Vec<Proof>,
}

/// Whether a step is proved, and from what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proof {
    None,
    /// What is fetched before later steps overwrite it.
    Behind,
    /// So many of [`Verification::outputs`] from one on.
    AtTheEnd {
        first: usize,
    },
}

/// What was fetched to verify a recording.
#[derive(Default)]
pub(crate) struct Fetched {
    pub(crate) inputs: Vec<Vec<u8>>,
    /// By step, what one that is proved from it is said to write, output by output.
    said: Vec<Vec<Vec<u8>>>,
    outputs: Vec<Vec<u8>>,
}

impl Fetched {
    /// Where everything goes that a recording fetches, in this order, if these are its downloads.
    pub(crate) fn targets<'a>(&'a mut self, steps: &[Step], landed: &'a mut [Landed]) -> Vec<&'a mut [u8]> {
        let mut targets: Vec<&mut [u8]> = self.inputs.iter_mut().map(Vec::as_mut_slice).collect();
        let mut landed = landed.iter_mut();
        for (step, said) in steps.iter().zip(&mut self.said) {
            if let Step::Fetch(_) = step {
                targets.extend(landed.next().map(Landed::bytes_mut));
            }
            targets.extend(said.iter_mut().map(Vec::as_mut_slice));
        }
        targets.extend(landed.map(Landed::bytes_mut).chain(self.outputs.iter_mut().map(Vec::as_mut_slice)));
        targets.retain(|bytes| !bytes.is_empty());
        targets
    }
}

/// Ranges of bytes, by buffer; disjoint and in order.
#[derive(Default)]
struct Covered(HashMap<usize, Vec<Range<u64>>>);

impl Covered {
    /// Adds a range; the parts of it that were not covered before.
    fn add(&mut self, place: &Place) -> Vec<Range<u64>> {
        let ranges = self.0.entry(place.buffer).or_default();
        let (mut missing, mut at) = (Vec::new(), place.bytes.start);
        for range in ranges.iter().filter(|range| range.start < place.bytes.end && place.bytes.start < range.end) {
            if at < range.start {
                missing.push(at..range.start);
            }
            at = range.end;
        }
        if at < place.bytes.end {
            missing.push(at..place.bytes.end);
        }
        ranges.extend(missing.iter().cloned());
        ranges.sort_unstable_by_key(|range| range.start);
        missing
    }

    /// Adds all of some memory; the parts of it that were not covered before.
    fn add_memory(&mut self, memory: &Memory) -> Vec<Memory> {
        let Some(place) = memory.place() else { return Vec::new() };
        let start = place.bytes.start;
        self.add(&place).into_iter().map(|range| memory.slice(range.start - start..range.end - start)).collect()
    }
}

impl Verification {
    /// Of a recording, which is replayed wholly unless the backend wants its provable steps proved.
    pub(crate) fn new(steps: &[Step], backend: &Backend) -> Self {
        let proofs = backend.verify() == Verify::Proofs;
        let (mut known, mut written) = (Covered::default(), Covered::default());
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        let mut later = Covered::default();
        let proof = |step: &Step| {
            let bytes = step.writes().map(|output| output.memory.bytes()).sum::<u64>();
            let last: u64 =
                step.writes().flat_map(|output| later.add_memory(output.memory)).map(|memory| memory.bytes()).sum();
            match proofs && step.is_provable() {
                false => Proof::None,
                true if bytes == last => Proof::AtTheEnd { first: 0 },
                true => Proof::Behind,
            }
        };
        let mut proofs: Vec<Proof> = steps.iter().rev().map(proof).collect();
        proofs.reverse();
        // In one piece each.
        for (step, proof) in steps.iter().zip(&mut proofs) {
            if let Proof::AtTheEnd { first } = proof {
                *first = outputs.len();
                outputs.extend(step.writes().map(|Output { memory, item }| (memory.clone(), item)));
                step.writes().for_each(|output| drop(written.add_memory(output.memory)));
            }
        }
        for step in steps {
            // All reads first: a step may write what it reads.
            step.reads().iter().for_each(|memory| inputs.extend(known.add_memory(memory)));
            for Output { memory, item } in step.writes() {
                known.add_memory(memory);
                outputs.extend(written.add_memory(memory).into_iter().map(|memory| (memory, item)));
            }
        }
        Self { inputs, outputs, proofs }
    }

    pub(crate) fn fetch_inputs(&self, batch: &mut Batch) {
        self.inputs.iter().filter_map(Memory::region).for_each(|region| batch.download(region));
    }

    /// To be called for every step, when it has been added to the batch.
    pub(crate) fn fetch_said(&self, number: usize, step: &Step, batch: &mut Batch) {
        if self.proofs.get(number) == Some(&Proof::Behind) {
            step.writes().filter_map(|output| output.memory.region()).for_each(|region| batch.download(region));
        }
    }

    pub(crate) fn fetch_outputs(&self, batch: &mut Batch) {
        self.outputs.iter().filter_map(|(memory, _)| memory.region()).for_each(|region| batch.download(region));
    }

    /// Room for what is fetched.
    pub(crate) fn room(&self, steps: &[Step]) -> Result<Fetched, Error> {
        let room = |memory: &Memory| zeroed(memory.bytes() as usize);
        let said = |(step, proof): (&Step, &Proof)| match proof {
            Proof::Behind => step.writes().map(|output| room(output.memory)).collect(),
            _ => Ok(Vec::new()),
        };
        Ok(Fetched {
            inputs: self.inputs.iter().map(room).collect::<Result<_, _>>()?,
            said: steps.iter().zip(&self.proofs).map(said).collect::<Result<_, _>>()?,
            outputs: self.outputs.iter().map(|(memory, _)| room(memory)).collect::<Result<_, _>>()?,
        })
    }

    /// Bytes of host memory that [`Verification::room`] and [`Verification::check`] take, beside what is computed in.
    pub(crate) fn required(&self, steps: &[Step]) -> u64 {
        let bytes = |memory: &Memory| memory.bytes();
        let behind = steps.iter().zip(&self.proofs).filter(|(_, proof)| **proof == Proof::Behind);
        let said: u64 = behind.flat_map(|(step, _)| step.writes()).map(|output| output.memory.bytes()).sum();
        let fetched = self.inputs.iter().chain(self.outputs.iter().map(|(memory, _)| memory)).map(bytes).sum::<u64>();
        let replayed = steps.iter().map(|step| if let Step::Fetch(fetch) = step { fetch.from.bytes() } else { 0 });
        fetched + said + replayed.sum::<u64>() + Mirror::required(places(steps))
    }

    /// Computes the recording from its inputs, or takes what is proved, and compares all that it downloaded and wrote.
    pub(crate) fn check(
        &self,
        backend: &Backend,
        steps: &[Step],
        Fetched { inputs, said, outputs }: &Fetched,
        landed: &[Landed],
    ) -> Result<(), Error> {
        let _timed = backend.vulkan().map(|vulkan| vulkan.device().timed(Stage::Verify, 0));
        let mirror = Mirror::of(places(steps))?;
        for (memory, bytes) in self.inputs.iter().zip(inputs) {
            if let Some(host) = mirror.host(memory) {
                host.store(bytes);
            }
        }
        let mut verified = 0;
        let mut replayed = Vec::new();
        for (position, step) in steps.iter().enumerate() {
            let said = match self.proofs[position] {
                Proof::None => None,
                Proof::Behind => Some(&said[position][..]),
                Proof::AtTheEnd { first } => Some(&outputs[first..first + step.writes().count()]),
            };
            if let Some(said) = said {
                if let Some((_, index)) = step.prove(&mirror, said)? {
                    return Err(failed(backend, step.name(), step.field(), index));
                }
                continue;
            }
            step.compute(&mirror, &mut replayed)?;
            let Step::Fetch(fetch) = step else { continue };
            let Some((expected, got)) = replayed.last().zip(landed.get(replayed.len() - 1)) else {
                return Err(failed(backend, step.name(), step.field(), 0));
            };
            if let Some(byte) = first_difference(expected.bytes(), got.bytes()) {
                return Err(blame(backend, &steps[..position], &fetch.from, byte as u64, fetch.item).1);
            }
            verified += fetch.length;
        }
        // Of all wrong elements, one of those that were written first.
        let mut wrong = None;
        for ((memory, item), bytes) in self.outputs.iter().zip(outputs) {
            verified += bytes.len() / item.bytes() as usize;
            let difference = match mirror.host(memory) {
                Some(host) => host.first_difference(bytes),
                None => (!bytes.is_empty()).then_some(0),
            };
            if let Some(byte) = difference {
                let blamed = blame(backend, steps, memory, byte as u64, *item);
                if wrong.as_ref().is_none_or(|(position, _)| blamed.0 < *position) {
                    wrong = Some(blamed);
                }
            }
        }
        if let Some((_, error)) = wrong {
            return Err(error);
        }
        backend.count_verified(verified);
        Ok(())
    }
}

/// Where steps read and write.
fn places(steps: &[Step]) -> impl Iterator<Item = Place> {
    let memories = steps.iter().flat_map(|step| step.reads().iter().chain(step.writes().map(|output| output.memory)));
    memories.filter_map(Memory::place)
}

/// The last of the steps that wrote a byte of some memory, and the error that says so; if none did, it was not
/// downloaded right.
fn blame(backend: &Backend, steps: &[Step], memory: &Memory, byte: u64, item: Item) -> (usize, Error) {
    let at =
        memory.place().map(|Place { buffer, bytes }| Place { buffer, bytes: bytes.start + byte..bytes.start + byte + 1 });
    let written_by = |(position, step): (usize, &'_ Step)| {
        step.writes().find_map(|Output { memory, item }| {
            let (place, at) = (memory.place()?, at.as_ref()?);
            place.overlaps(at).then(|| (position, (at.bytes.start - place.bytes.start) / item.bytes()))
        })
    };
    let writer = steps.iter().enumerate().rev().find_map(written_by);
    let (position, index, operation, field) = match writer {
        Some((position, index)) => (position, index, steps[position].name(), steps[position].field()),
        None => (steps.len(), byte / item.bytes(), "download", item.field()),
    };
    (position, failed(backend, operation, field, index as usize))
}

fn failed(backend: &Backend, operation: &'static str, field: Field, index: usize) -> Error {
    let device = backend.vulkan().map(|vulkan| vulkan.device().info().to_string()).unwrap_or_default();
    Error::VerificationFailed { operation, field, index, device }
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b { None } else { a.iter().zip(b).position(|(a, b)| a != b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_missing_is_what_was_not_added(ranges in prop::collection::vec((0usize..2, 0u64..40, 0u64..12), 0..20)) {
            let mut covered = Covered::default();
            let mut bytes = std::collections::HashSet::new();
            for (buffer, start, length) in ranges {
                let place = Place { buffer, bytes: start..start + length };
                let missing: Vec<u64> = covered.add(&place).into_iter().flatten().collect();
                let expected: Vec<u64> = place.bytes.filter(|&byte| bytes.insert((buffer, byte))).collect();
                prop_assert_eq!(missing, expected);
            }
        }
    }
}
