//! Expressions on a device: cut into kernels where they are too long for one, assembled, launched.

use super::graph::{Graph, Root, Term};
use crate::known_answers::edges;
use crate::on_device::{Groups, Vulkan};
use crate::step::Item;
use crate::task::{Lowering, Task, Trial, Values};
use crate::{Error, Field};
use field_kernels::expression::{self, Node};
use field_kernels::{Formulation, Kernel, Shader, Width};
use foldhash::HashMap;
use gpu_executor::{MAX_SLOTS, Program, Region, SlotUse, Start, Weight};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::sync::{Arc, OnceLock};

/// An expression of so many positions.
#[derive(Clone, Debug)]
pub(super) struct Fused {
    pub(super) graph: Graph,
    pub(super) length: usize,
}

/// What a kernel of an expression may have at most.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Slots to read.
    slots: usize,
    rotations: usize,
    products: usize,
    terms: usize,
}

/// Where a part reads what is rotated: parameters behind the length, as many as there may be on any device.
static ROTATIONS: [Start; 22] = {
    let mut starts = [Start { modulo: Some(0), ..Start::at(1) }; 22];
    let mut number = 1;
    while number < starts.len() {
        starts[number].param = 1 + number;
        number += 1;
    }
    starts
};

/// The most multiplications in a kernel. Each is hundreds of instructions at a place of its own, which take the driver some ten
/// milliseconds; what a cut costs is one vector written and read.
const PRODUCTS: usize = 12;

/// The most sums, differences, products and choices in a kernel.
const TERMS: usize = 64;

impl Limits {
    fn of(width: Width) -> Self {
        match width {
            // One parameter is the length.
            Width::Int64 => Self { slots: MAX_SLOTS - 1, rotations: 6, products: PRODUCTS, terms: TERMS },
            Width::Int32 => Self { slots: 3, rotations: ROTATIONS.len(), products: PRODUCTS, terms: TERMS },
        }
    }
}

/// What is read through a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Vector(usize),
    Rotated(usize, usize),
    Entry(usize),
    Flags(usize),
    /// All scalars.
    Scalars,
    /// What an earlier kernel computed of a term.
    Cut(usize),
}

/// The kernels of expressions, by their terms and roots, and what they compute in.
pub(crate) type Pieces = HashMap<(Vec<Term>, Root, Field, Formulation), Arc<[Piece]>>;

/// One kernel of an expression.
#[derive(Debug)]
pub(crate) struct Piece {
    nodes: Vec<Node>,
    root: expression::Root,
    sources: Vec<Source>,
    /// By how much is rotated, in the order of the parameters.
    rotations: Vec<usize>,
    products: u64,
    /// The term that it computes, if not the root.
    cut: Option<usize>,
    program: OnceLock<Program>,
}

impl Piece {
    /// The terms of which it reads what other kernels computed.
    fn cuts(&self) -> impl Iterator<Item = usize> {
        self.sources.iter().filter_map(|source| if let Source::Cut(term) = source { Some(*term) } else { None })
    }
}

/// What it takes to compute a term, from where the expression is cut on.
#[derive(Clone, Default)]
struct Cone {
    sources: BTreeSet<Source>,
    /// Of operands, and whether it is a product.
    terms: BTreeSet<(usize, bool)>,
}

impl Cone {
    fn of(sources: impl IntoIterator<Item = Source>) -> Self {
        Self { sources: sources.into_iter().collect(), terms: BTreeSet::new() }
    }

    fn fits(&self, limits: Limits) -> bool {
        let rotations = self.sources.iter().filter(|source| matches!(source, Source::Rotated(..))).count();
        self.sources.len() <= limits.slots
            && self.products() <= limits.products
            && self.terms.len() <= limits.terms
            && rotations <= limits.rotations
    }

    /// How much there is to gain by cutting here: slots first, since a cut takes one itself.
    fn weight(&self) -> (usize, usize, usize) {
        (self.sources.len(), self.products(), self.terms.len())
    }

    fn products(&self) -> usize {
        self.terms.iter().filter(|(_, product)| *product).count()
    }
}

/// The terms at which an expression is cut so that each piece keeps to the limits, in order. Wherever a term and all that it is made
/// of is too much for one kernel, its heaviest operand is computed before.
fn cuts(graph: &Graph, limits: Limits) -> BTreeSet<usize> {
    let mut cuts = BTreeSet::new();
    // A cut lightens what comes after it, but may burden what came before: then there is one more round.
    loop {
        let before = cuts.len();
        let mut cones: Vec<Cone> = Vec::with_capacity(graph.terms.len());
        for (at, term) in graph.terms.iter().enumerate() {
            let mut own = Cone::of(source(*term));
            if term.operands().next().is_some() {
                own.terms.insert((at, matches!(term, Term::Mul(..))));
            }
            cones.push(combined(&own, term.operands(), &cones, &mut cuts, limits));
        }
        combined(&Cone::default(), graph.root.operands(), &cones, &mut cuts, limits);
        if cuts.len() == before {
            return cuts;
        }
    }
}

/// What it takes to compute a term of these operands, of which some are cut off if it is too much.
fn combined(
    own: &Cone,
    operands: impl Iterator<Item = usize>,
    cones: &[Cone],
    cuts: &mut BTreeSet<usize>,
    limits: Limits,
) -> Cone {
    let operands: Vec<usize> = operands.collect();
    loop {
        let mut cone = own.clone();
        for &operand in &operands {
            if cuts.contains(&operand) {
                cone.sources.insert(Source::Cut(operand));
            } else {
                cone.sources.extend(&cones[operand].sources);
                cone.terms.extend(&cones[operand].terms);
            }
        }
        let whole =
            operands.iter().copied().filter(|operand| !cuts.contains(operand) && cones[*operand].weight() > (1, 0, 0));
        match whole.max_by_key(|&operand| cones[operand].weight()) {
            Some(heaviest) if !cone.fits(limits) => cuts.insert(heaviest),
            _ => return cone,
        };
    }
}

fn source(term: Term) -> Option<Source> {
    match term {
        Term::Vector(input) => Some(Source::Vector(input)),
        Term::Rotated { input, by } => Some(Source::Rotated(input, by)),
        Term::Entry(input) => Some(Source::Entry(input)),
        Term::Scalar(_) => Some(Source::Scalars),
        Term::Select { flags, .. } => Some(Source::Flags(flags)),
        _ => None,
    }
}

/// The kernels of an expression, in the order in which they run.
fn pieces(graph: &Graph, limits: Limits) -> Vec<Piece> {
    let cuts = cuts(graph, limits);
    let roots = cuts.iter().map(|&term| (Root::Elements(term), Some(term))).chain([(graph.root, None)]);
    roots.map(|(root, cut)| piece(graph, &cuts, root, cut)).collect()
}

fn piece(graph: &Graph, cuts: &BTreeSet<usize>, root: Root, cut: Option<usize>) -> Piece {
    let mut piece = Piece {
        nodes: Vec::new(),
        root: expression::Root::Element(0),
        sources: Vec::new(),
        rotations: Vec::new(),
        products: 0,
        cut,
        program: OnceLock::new(),
    };
    let is_cut = |term: usize| Some(term) != cut && cuts.contains(&term);
    let mut needed = vec![false; graph.terms.len()];
    root.operands().for_each(|term| needed[term] = true);
    for at in (0..graph.terms.len()).rev() {
        if needed[at] && !is_cut(at) {
            graph.terms[at].operands().for_each(|operand| needed[operand] = true);
        }
    }
    let mut nodes: HashMap<usize, usize> = HashMap::default();
    let mut rotated: Vec<u32> = Vec::new();
    for (at, term) in graph.terms.iter().enumerate().filter(|(at, _)| needed[*at]) {
        let mut slot = |source: Source| {
            let found = piece.sources.iter().position(|known| *known == source).unwrap_or_else(|| {
                piece.sources.push(source);
                piece.sources.len() - 1
            });
            found as u32
        };
        let node = match *term {
            _ if is_cut(at) => Node::Vector { slot: slot(Source::Cut(at)) },
            Term::Vector(input) => Node::Vector { slot: slot(Source::Vector(input)) },
            Term::Rotated { input, by } => {
                let slot = slot(Source::Rotated(input, by));
                // What is read through one slot is rotated by one number.
                let number = rotated.iter().position(|known| *known == slot).unwrap_or_else(|| {
                    rotated.push(slot);
                    piece.rotations.push(by);
                    rotated.len() - 1
                });
                // After the length.
                Node::Rotated { slot, shift: number as u32 + 1 }
            }
            Term::Entry(input) => Node::Element { slot: slot(Source::Entry(input)), at: 0 },
            Term::Scalar(scalar) => Node::Element { slot: slot(Source::Scalars), at: scalar as u32 },
            Term::Add(a, b) => Node::Add(nodes[&a], nodes[&b]),
            Term::Sub(a, b) => Node::Sub(nodes[&a], nodes[&b]),
            Term::Neg(a) => Node::Neg(nodes[&a]),
            Term::Mul(a, b) => {
                piece.products += 1;
                Node::Mul(nodes[&a], nodes[&b])
            }
            Term::Select { flags, yes, no } => {
                Node::Select { slot: slot(Source::Flags(flags)), yes: nodes[&yes], no: nodes[&no] }
            }
        };
        nodes.insert(at, piece.nodes.len());
        piece.nodes.push(node);
    }
    piece.root = match root {
        Root::Elements(a) => expression::Root::Element(nodes[&a]),
        Root::Equal(a, b) => expression::Root::Equal(nodes[&a], nodes[&b]),
    };
    piece
}

impl Vulkan {
    /// The kernels of an expression, made when first asked for.
    fn pieces(&self, graph: &Graph, formulation: Formulation) -> Arc<[Piece]> {
        /// With more, all are forgotten: rotations by other numbers are other expressions.
        const KEPT: usize = 256;
        let key = (graph.terms.clone(), graph.root, graph.field, formulation);
        let mut known = self.pieces.lock();
        if !known.contains_key(&key) && known.len() >= KEPT {
            known.clear();
        }
        known.entry(key).or_insert_with(|| pieces(graph, Limits::of(self.width)).into()).clone()
    }

    /// The program of a kernel of an expression, assembled when first asked for.
    fn fused(&self, piece: &Piece, field: Field, formulation: Formulation) -> Result<Program, Error> {
        if let Some(program) = piece.program.get() {
            return Ok(program.clone());
        }
        // Another piece, which rotates by other numbers, may have it.
        let key = (field, formulation, piece.nodes.clone(), piece.root);
        if let Some(program) = self.expressions.lock().get(&key) {
            return Ok(piece.program.get_or_init(|| program.clone()).clone());
        }
        let not_available = Error::NotAvailable { operation: "evaluate", field };
        let spirv = expression::assemble(field, self.width, formulation, &piece.nodes, piece.root).ok_or(not_available)?;
        let element = field.bytes();
        let mut slots: Vec<SlotUse> = piece.sources.iter().map(|source| source.used(element)).collect();
        slots.resize(Limits::of(self.width).slots, SlotUse::None);
        slots.push(match piece.root {
            expression::Root::Element(_) => SlotUse::Writes(element),
            expression::Root::Equal(..) => SlotUse::Writes(size_of::<u32>()),
        });
        // The name and the size of the library; the module is another.
        let shader = Shader { name: "expression", spirv: &[] };
        // The barriers keep compilers from fetching everything first: without, a PLONK gate takes 0.49 ms instead of 0.38 on an H200.
        let groups = Groups::of(self.device().workgroup_size());
        let mut kernel = self.element_wise(shader, field, &slots, (false, false), groups);
        kernel.spirv = spirv.into();
        kernel.parts.starts = ROTATIONS.get(..piece.rotations.len()).unwrap_or(&ROTATIONS);
        // SAFETY: the module is made of the functions of expression.comp, which are valid by spirv-val, and calls of them by their own
        // types; they keep to the slots told, guard every invocation by the number of elements, and use constant 0 for the workgroup
        // size; what they rotate they read where the parameters of `ROTATIONS` say. Formulations are given to devices that have what
        // they take.
        let program = unsafe { self.device().prepare(&kernel) }?;
        self.expressions.lock().insert(key, program.clone());
        Ok(piece.program.get_or_init(|| program).clone())
    }
}

impl Source {
    fn used(self, element: usize) -> SlotUse {
        match self {
            Source::Vector(_) | Source::Cut(_) => SlotUse::Reads(element),
            Source::Rotated(..) | Source::Entry(_) | Source::Scalars => SlotUse::ReadsAnywhere(element),
            Source::Flags(_) => SlotUse::Reads(size_of::<u32>()),
        }
    }
}

impl Task for Fused {
    fn name(&self) -> &'static str {
        super::NAME
    }

    fn field(&self) -> Field {
        self.graph.field
    }

    fn multiplies(&self) -> Option<Kernel> {
        self.graph.terms.iter().any(|term| matches!(term, Term::Mul(..))).then_some(Kernel::MulAdd)
    }

    fn variant(&self) -> Cow<'_, str> {
        self.graph.structure().into()
    }

    fn in_place(&self) -> bool {
        // A mask is not: its flags may be read four at a time.
        matches!(self.graph.root, Root::Elements(_))
            && !self.graph.terms.iter().any(|term| matches!(term, Term::Rotated { .. } | Term::Entry(_)))
    }

    fn lower(&self, device: &mut Lowering, inputs: &[Option<Region>], outputs: &[Option<Region>]) -> Result<(), Error> {
        let Graph { field, scalars, .. } = &self.graph;
        let element = field.bytes() as u64;
        let scalars = if scalars.is_empty() { None } else { Some(device.constants(bytemuck::cast_slice(scalars))?) };
        let mut cut: HashMap<usize, Region> = HashMap::default();
        let pieces = device.vulkan.pieces(&self.graph, device.formulation);
        let readers = pieces.iter().enumerate().flat_map(|(number, piece)| piece.cuts().map(move |term| (term, number)));
        // The last of them.
        let last: HashMap<usize, usize> = readers.collect();
        for (number, piece) in pieces.iter().enumerate() {
            let program = device.vulkan.fused(piece, *field, device.formulation)?;
            let out = match piece.cut {
                Some(term) => match cut.entry(term) {
                    Entry::Occupied(known) => known.get().clone(),
                    Entry::Vacant(new) => new.insert(device.spare(self.length as u64 * element)?).clone(),
                },
                None => outputs.iter().flatten().next().cloned().ok_or(Error::NoSuchDownload)?,
            };
            let read = |source: &Source| match *source {
                Source::Vector(input) | Source::Flags(input) | Source::Rotated(input, _) | Source::Entry(input) => {
                    inputs.get(input)?.clone()
                }
                Source::Scalars => scalars.clone(),
                Source::Cut(term) => cut.get(&term).cloned(),
            };
            let unused = Limits::of(device.vulkan.width).slots.saturating_sub(piece.sources.len());
            let sources = piece.sources.iter().map(|source| Some((read(source)?, false)));
            let slots = sources.chain(std::iter::repeat_n(None, unused)).chain([Some((out, true))]);
            let length = (!piece.rotations.is_empty()).then_some(self.length as u32);
            let rotations = piece.rotations.iter().map(|by| (by % self.length) as u32);
            let params: SmallVec<[u32; 8]> = length.into_iter().chain(rotations).collect();
            let whole = (self.length as u32, Weight::of(1 + 2 * piece.products));
            device.batch.launch(&program, slots, whole, &params);
            // What no later kernel reads another may write.
            let read = piece.cuts().filter(|term| last.get(term) == Some(&number));
            let unread: Vec<Region> = read.filter_map(|term| cut.remove(&term)).collect();
            device.give_back(unread);
        }
        Ok(())
    }

    fn compute(&self, inputs: &[Values], outputs: &mut [Values]) {
        if let Some(output) = outputs.first_mut() {
            self.graph.compute(inputs, output);
        }
    }

    /// The same expression, of a few positions and of a few hundred, of edges.
    fn trials(&self) -> Vec<Trial> {
        let edges = edges(self.graph.field);
        let rotation = |term: &Term| if let Term::Rotated { by, .. } = term { Some(*by) } else { None };
        // So many that what is rotated by other numbers is so here, too: else this would be another kernel's.
        let few = 1 + self.graph.terms.iter().filter_map(rotation).collect::<BTreeSet<usize>>().len();
        let trial = |length: usize| {
            let mut graph = self.graph.clone();
            // By little, and as differently as they are: what is the same is read once.
            let mut rotations: Vec<usize> = Vec::new();
            for term in &mut graph.terms {
                if let Term::Rotated { by, .. } = term {
                    let number = rotations.iter().position(|known| known == by).unwrap_or_else(|| {
                        rotations.push(*by);
                        rotations.len() - 1
                    });
                    *by = (number + 1) % length;
                }
            }
            let width = graph.field.limbs();
            for (scalar, limbs) in graph.scalars.chunks_exact_mut(width).enumerate() {
                limbs.copy_from_slice(&edges[(5 * scalar + 3) % edges.len()]);
            }
            let entries: BTreeSet<usize> = graph
                .terms
                .iter()
                .filter_map(|term| if let Term::Entry(input) = term { Some(*input) } else { None })
                .collect();
            // Against every edge, every edge: inputs walk through them at speeds of their own.
            let at = |input: usize, index: usize| &edges[(index * (input + 1) + index / edges.len() * input) % edges.len()];
            let inputs = graph.items.iter().enumerate().map(|(input, item)| match item {
                Item::Element(_) => {
                    let length = if entries.contains(&input) { 1 } else { length };
                    Values::Limbs((0..length).flat_map(|index| at(input, index + input).iter().copied()).collect())
                }
                _ => Values::Words((0..length).map(|index| (index as u32 >> (input % 4)) & 1).collect()),
            });
            let inputs = inputs.collect();
            let item = match graph.root {
                Root::Elements(_) => Item::Element(graph.field),
                Root::Equal(..) => Item::Flag,
            };
            Trial { task: Arc::new(Fused { graph, length }), inputs, outputs: vec![(item, length)] }
        };
        vec![trial(few), trial(edges.len() * edges.len() + 1)]
    }
}
