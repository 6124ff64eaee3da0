//! An expression as plain data: terms made from earlier terms, each once; and what it is, computed by arkworks.

use crate::Field;
use crate::memory::{Memory, Place};
use crate::step::Item;
use crate::task::Values;
use ark_bls12_381::{Fq, Fr};
use cpu_reference::LimbField;
use foldhash::HashMap;
use rayon::prelude::*;

/// A term. Inputs and scalars are numbered; operands are positions of earlier terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Term {
    /// The elements of an input.
    Vector(usize),
    /// Those so many positions further on, around its end.
    Rotated {
        input: usize,
        by: usize,
    },
    /// The one element of an input.
    Entry(usize),
    /// An element known to the host.
    Scalar(usize),
    Add(usize, usize),
    Sub(usize, usize),
    Neg(usize),
    Mul(usize, usize),
    /// By the flags of an input.
    Select {
        flags: usize,
        yes: usize,
        no: usize,
    },
}

impl Term {
    pub(crate) fn operands(self) -> impl Iterator<Item = usize> {
        let (a, b) = match self {
            Term::Vector(_) | Term::Rotated { .. } | Term::Entry(_) | Term::Scalar(_) => (None, None),
            Term::Neg(a) => (Some(a), None),
            Term::Add(a, b) | Term::Sub(a, b) | Term::Mul(a, b) | Term::Select { yes: a, no: b, .. } => (Some(a), Some(b)),
        };
        a.into_iter().chain(b)
    }
}

/// What is computed of the terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Root {
    Elements(usize),
    /// Flags: whether two terms are equal.
    Equal(usize, usize),
}

impl Root {
    pub(crate) fn operands(self) -> impl Iterator<Item = usize> {
        let (a, b) = match self {
            Root::Elements(a) => (a, None),
            Root::Equal(a, b) => (a, Some(b)),
        };
        std::iter::once(a).chain(b)
    }
}

/// Terms and what they are made from.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    pub(crate) field: Field,
    pub(crate) terms: Vec<Term>,
    pub(crate) root: Root,
    /// What each input holds.
    pub(crate) items: Vec<Item>,
    /// Limbs of the scalars, one after another.
    pub(crate) scalars: Vec<u64>,
}

/// Terms of most expressions. Maps that grow up to them were a third of what it took to record one.
pub(super) const FEW: usize = 14;

/// A map with room for few.
pub(super) fn few<K, V>() -> HashMap<K, V> {
    HashMap::with_capacity_and_hasher(FEW, foldhash::fast::RandomState::default())
}

/// Builds a graph in which nothing is there twice.
pub(crate) struct Builder {
    field: Field,
    terms: Vec<Term>,
    known: HashMap<Term, usize>,
    pub(crate) inputs: Vec<(Memory, Item)>,
    /// By place, and whether it is one element for all positions.
    places: HashMap<(Option<Place>, bool), usize>,
    scalars: Vec<u64>,
}

impl Builder {
    pub(crate) fn new(field: Field) -> Self {
        Self {
            field,
            terms: Vec::with_capacity(FEW),
            known: few(),
            inputs: Vec::with_capacity(FEW),
            places: few(),
            scalars: Vec::with_capacity(2 * field.limbs()),
        }
    }

    /// The number of an input, read position by position or, an entry, at one.
    pub(crate) fn input(&mut self, memory: &Memory, item: Item, entry: bool) -> usize {
        *self.places.entry((memory.place(), entry)).or_insert_with(|| {
            self.inputs.push((memory.clone(), item));
            self.inputs.len() - 1
        })
    }

    /// The number of a scalar.
    pub(crate) fn scalar(&mut self, limbs: &[u64]) -> usize {
        let width = self.field.limbs();
        self.scalars.chunks_exact(width).position(|known| known == limbs).unwrap_or_else(|| {
            self.scalars.extend_from_slice(limbs);
            self.scalars.len() / width - 1
        })
    }

    /// The position of a term.
    pub(crate) fn term(&mut self, term: Term) -> usize {
        // Sums and products are the same either way round.
        let term = match term {
            Term::Add(a, b) => Term::Add(a.min(b), a.max(b)),
            Term::Mul(a, b) => Term::Mul(a.min(b), a.max(b)),
            other => other,
        };
        *self.known.entry(term).or_insert_with(|| {
            self.terms.push(term);
            self.terms.len() - 1
        })
    }

    pub(crate) fn finish(self, root: Root) -> (Graph, Vec<(Memory, Item)>) {
        let items = self.inputs.iter().map(|(_, item)| *item).collect();
        (Graph { field: self.field, terms: self.terms, root, items, scalars: self.scalars }, self.inputs)
    }
}

/// Positions that are computed together, term after term.
const BLOCK: usize = 256;

impl Graph {
    /// What tells its kernels from those of other expressions: everything but scalars and by how much is rotated.
    pub(crate) fn structure(&self) -> String {
        // Asked for whenever an expression is recorded: so by hand, and not by Debug or Display, which were a sixth of what a step cost
        // the host, and a twelfth.
        let mut text = String::with_capacity(6 * self.terms.len() + 8);
        let mut put = |kind: char, numbers: &[usize]| {
            text.push(kind);
            for &number in numbers {
                // The last digit first: what it tells apart is told apart.
                let mut left = number;
                while left > 9 {
                    text.push(char::from(b'0' + (left % 10) as u8));
                    left /= 10;
                }
                text.push(char::from(b'0' + left as u8));
                text.push(',');
            }
        };
        match self.root {
            Root::Elements(a) => put('e', &[a]),
            Root::Equal(a, b) => put('q', &[a, b]),
        }
        for term in &self.terms {
            match *term {
                Term::Vector(input) => put('v', &[input]),
                Term::Rotated { input, .. } => put('r', &[input]),
                Term::Entry(input) => put('o', &[input]),
                Term::Scalar(scalar) => put('k', &[scalar]),
                Term::Add(a, b) => put('+', &[a, b]),
                Term::Sub(a, b) => put('-', &[a, b]),
                Term::Neg(a) => put('n', &[a]),
                Term::Mul(a, b) => put('*', &[a, b]),
                Term::Select { flags, yes, no } => put('s', &[flags, yes, no]),
            }
        }
        text
    }

    /// Computes it, in parallel.
    pub(crate) fn compute(&self, inputs: &[Values], output: &mut Values) {
        match self.field {
            Field::Fq => self.compute_in::<Fq>(inputs, output),
            Field::Fr => self.compute_in::<Fr>(inputs, output),
        }
    }

    fn compute_in<F: LimbField>(&self, inputs: &[Values], output: &mut Values) {
        match (self.root, output) {
            (Root::Elements(root), Values::Limbs(limbs)) => {
                F::elements_mut(limbs).par_chunks_mut(BLOCK).enumerate().for_each(|(block, out)| {
                    let values = self.block::<F>(inputs, block * BLOCK, out.len());
                    out.copy_from_slice(&values[root]);
                });
            }
            (Root::Equal(a, b), Values::Words(flags)) => {
                flags.par_chunks_mut(BLOCK).enumerate().for_each(|(block, out)| {
                    let values = self.block::<F>(inputs, block * BLOCK, out.len());
                    let equal = values[a].iter().zip(&values[b]).map(|(a, b)| u32::from(a == b));
                    out.iter_mut().zip(equal).for_each(|(flag, equal)| *flag = equal);
                });
            }
            _ => {}
        }
    }

    /// The values at so many positions of all terms that the root is made of; of others only while they are needed.
    fn block<F: LimbField>(&self, inputs: &[Values], start: usize, length: usize) -> Vec<Vec<F>> {
        let mut values: Vec<Vec<F>> = Vec::with_capacity(self.terms.len());
        let mut last_uses: Vec<usize> = (0..self.terms.len()).collect();
        for (at, term) in self.terms.iter().enumerate() {
            term.operands().for_each(|operand| last_uses[operand] = at);
        }
        self.root.operands().for_each(|operand| last_uses[operand] = usize::MAX);
        for (at, term) in self.terms.iter().enumerate() {
            let each = |of: &dyn Fn(usize) -> F| (0..length).map(of).collect();
            let value: Vec<F> = match *term {
                Term::Vector(input) => F::elements(inputs[input].limbs())[start..start + length].to_vec(),
                Term::Rotated { input, by } => {
                    let elements = F::elements(inputs[input].limbs());
                    each(&|at| elements[(start + at + by) % elements.len()])
                }
                Term::Entry(input) => vec![F::elements(inputs[input].limbs())[0]; length],
                Term::Scalar(scalar) => vec![F::elements(&self.scalars)[scalar]; length],
                Term::Add(a, b) => each(&|at| values[a][at] + values[b][at]),
                Term::Sub(a, b) => each(&|at| values[a][at] - values[b][at]),
                Term::Neg(a) => each(&|at| -values[a][at]),
                Term::Mul(a, b) => each(&|at| values[a][at] * values[b][at]),
                Term::Select { flags, yes, no } => {
                    let flags = inputs[flags].words();
                    each(&|at| if flags[start + at] != 0 { values[yes][at] } else { values[no][at] })
                }
            };
            values.push(value);
            for operand in term.operands().chain([at]).filter(|operand| last_uses[*operand] == at) {
                values[operand] = Vec::new();
            }
        }
        values
    }
}
