//! Fused expressions: one kernel that reads each operand once and writes its result once, assembled at run time from the committed
//! functions of `shaders/expression.comp`. Nothing is compiled but by the driver.
//!
//! An expression is a list of [`Node`]s, each made from earlier ones, and a [`Root`]. Common factors of sums are multiplied once
//! (`factor.rs`), it is planned (`plan.rs`: which values are needed in which representation, which products share a reduction), and a
//! module is made in which `main` is the calls that it is.
//!
//! ```
//! use field_kernels::expression::{Node, Root, assemble};
//! use field_kernels::{Field, Formulation, Width};
//! // The first slot times the second one.
//! let nodes = [Node::Vector { slot: 0 }, Node::Vector { slot: 1 }, Node::Mul(0, 1)];
//! let spirv = assemble(Field::Fr, Width::Int64, Formulation::Words, &nodes, Root::Element(2));
//! assert!(spirv.is_some_and(|bytes| bytes.len() % 4 == 0));
//! ```

mod factor;
mod plan;

use crate::formulation::LONG_SUM;
use crate::{Field, Formulation, Kernel, Width};
use plan::{Plan, Representation, Step};
use rspirv::binary::Assemble as _;
use rspirv::dr::{Builder, Instruction, Module, Operand};
use rspirv::spirv::{FunctionControl, Op, SelectionControl, Word};
use std::collections::{HashMap, HashSet};

/// A value for each position, made from the values of earlier nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// The elements of a slot.
    Vector {
        /// Which slot.
        slot: u32,
    },
    /// The elements of a slot of `params[0]` elements, read from element `params[shift]` on and around its end.
    Rotated {
        /// Which slot.
        slot: u32,
        /// Which of the launch's parameters.
        shift: u32,
    },
    /// One element of a slot, at all positions.
    Element {
        /// Which slot.
        slot: u32,
        /// Which of its elements.
        at: u32,
    },
    /// The sum of two.
    Add(usize, usize),
    /// The first less the second.
    Sub(usize, usize),
    /// The negative.
    Neg(usize),
    /// The Montgomery product.
    Mul(usize, usize),
    /// One where a flag is set, another where it is not.
    Select {
        /// The slot of the flags.
        slot: u32,
        /// Where a flag is set.
        yes: usize,
        /// Where none is.
        no: usize,
    },
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Root {
    /// The elements of a node.
    Element(usize),
    /// Flags: whether two nodes are equal.
    Equal(usize, usize),
}

impl Node {
    /// The nodes it is made from.
    pub fn operands(&self) -> impl Iterator<Item = usize> + use<> {
        let (a, b) = match *self {
            Node::Vector { .. } | Node::Rotated { .. } | Node::Element { .. } => (None, None),
            Node::Neg(a) => (Some(a), None),
            Node::Add(a, b) | Node::Sub(a, b) | Node::Mul(a, b) | Node::Select { yes: a, no: b, .. } => (Some(a), Some(b)),
        };
        a.into_iter().chain(b)
    }
}

impl Root {
    /// The nodes whose values are written or compared.
    pub fn operands(self) -> impl Iterator<Item = usize> {
        let (a, b) = match self {
            Root::Element(a) => (a, None),
            Root::Equal(a, b) => (a, Some(b)),
        };
        std::iter::once(a).chain(b)
    }
}

/// How often each node is an operand of what is needed for the root, or written itself; 0 if it is not needed.
fn uses(nodes: &[Node], root: Root) -> Vec<usize> {
    let mut uses = vec![0; nodes.len()];
    root.operands().for_each(|node| uses[node] += 1);
    for at in (0..nodes.len()).rev() {
        if uses[at] > 0 {
            nodes[at].operands().for_each(|operand| uses[operand] += 1);
        }
    }
    uses
}

/// The module of an expression, entry point `main`; `None` if there are no such functions, or a node is made from a later one.
///
/// Slots are those of a launch: up to eleven to read and the last, the twelfth, to write, if they are reached by address
/// ([`Width::Int64`]); three and the fourth otherwise. Specialization constants are those of element-wise kernels; a workgroup's tile
/// (constants 3 to 5) serves one operand after another.
pub fn assemble(field: Field, width: Width, formulation: Formulation, nodes: &[Node], root: Root) -> Option<Vec<u8>> {
    let earlier = nodes.iter().enumerate().all(|(at, node)| node.operands().all(|operand| operand < at));
    if !earlier || !root.operands().all(|operand| operand < nodes.len()) {
        return None;
    }
    let library = Kernel::Expression.shader(field, width, formulation)?;
    let module = rspirv::dr::load_bytes(library.spirv).ok()?;
    let writer = Writer::new(module)?;
    let most_products = if writer.functions.contains_key("x_sum_add") { LONG_SUM } else { 2 };
    let (nodes, root) = factor::factored(nodes, root);
    writer.write(&Plan::new(&nodes, root, most_products))
}

/// Operands that are fetched before the first is waited for. A PLONK gate takes 0.44 ms with 2, 0.38 with 3, 0.44 with 4, 0.41 with 5, 0.40 with
/// 6 and 8 on the H200.
const AHEAD: usize = 3;

/// A function of the library.
#[derive(Clone, Copy)]
struct Function {
    id: Word,
    result: Word,
}

/// Writes calls into `main`.
struct Writer {
    builder: Builder,
    functions: HashMap<String, Function>,
    main: Instruction,
    uint: Word,
}

impl Writer {
    fn new(mut module: Module) -> Option<Self> {
        let results: HashMap<Word, Word> = module
            .functions
            .iter()
            .filter_map(|function| function.def.as_ref())
            .filter_map(|def| Some((def.result_id?, def.result_type?)))
            .collect();
        let mut functions = HashMap::new();
        for name in &module.debug_names {
            let [Operand::IdRef(id), Operand::LiteralString(mangled)] = &name.operands[..] else { continue };
            let Some(&result) = results.get(id) else { continue };
            // `x_add(struct-Fe-..`
            let short = mangled.split('(').next().unwrap_or_default();
            functions.insert(short.to_owned(), Function { id: *id, result });
        }
        module.debug_names.clear();
        let main = functions.get("main")?.id;
        let place = module.functions.iter().position(|function| function.def_id() == Some(main))?;
        let main = module.functions.remove(place).def?;
        let is_uint = |type_: &&Instruction| {
            type_.class.opcode == Op::TypeInt && type_.operands == [Operand::LiteralBit32(32), Operand::LiteralBit32(0)]
        };
        let uint = module.types_global_values.iter().find(is_uint)?.result_id?;
        Some(Self { builder: Builder::new_from_module(module), functions, main, uint })
    }

    fn call(&mut self, name: &str, arguments: &[Word]) -> Option<Word> {
        let Function { id, result } = *self.functions.get(name)?;
        self.builder.function_call(result, None, id, arguments.iter().copied()).ok()
    }

    fn number(&mut self, value: u32) -> Word {
        self.builder.constant_bit32(self.uint, value)
    }

    fn write(mut self, plan: &Plan) -> Option<Vec<u8>> {
        let (result, id) = (self.main.result_type?, self.main.result_id?);
        let Some(Operand::IdRef(type_)) = self.main.operands.get(1).cloned() else { return None };
        self.builder.begin_function(result, Some(id), FunctionControl::NONE, type_).ok()?;
        self.builder.begin_block(None).ok()?;
        self.return_where("x_surplus")?;
        let mut values: HashMap<(usize, Representation), Word> = HashMap::new();
        let mut fetched: HashMap<Node, Word> = HashMap::new();
        // What is needed soon is fetched before anything is waited for; an operand that is gathered twice, once.
        let mut operands: Vec<Node> = Vec::new();
        for step in &plan.steps {
            if let Step::Gather { node, .. } = step
                && !operands.contains(node)
            {
                operands.push(*node);
            }
        }
        let mut operands = operands.into_iter();
        self.fetch(operands.by_ref().take(AHEAD), &mut fetched)?;
        for step in &plan.steps {
            if matches!(step, Step::Gather { .. }) {
                self.fetch(operands.by_ref().take(1), &mut fetched)?;
            }
            let (name, target, arguments): (&str, _, Vec<Word>) = match step {
                Step::Gather { node, to } => ("x_gather", *to, vec![*fetched.get(node)?]),
                Step::Broadcast { slot, at, to } => ("x_broadcast", *to, vec![self.number(*slot), self.number(*at)]),
                Step::Select { slot, yes, no, to } => {
                    let slot = self.number(*slot);
                    let flag = self.call("x_flag", &[slot])?;
                    ("x_select", *to, vec![flag, *values.get(yes)?, *values.get(no)?])
                }
                Step::Call { name, operands, to } => {
                    let operands = operands.iter().map(|operand| values.get(operand).copied()).collect::<Option<_>>()?;
                    (name, *to, operands)
                }
            };
            let value = self.call(name, &arguments)?;
            values.insert(target, value);
        }
        let of = |node: usize| values.get(&(node, Representation::Canonical)).copied();
        match plan.root {
            Root::Element(node) => self.call("x_put", &[of(node)?])?,
            Root::Equal(a, b) => {
                let equal = self.call("x_equal", &[of(a)?, of(b)?])?;
                self.call("x_put_flag", &[equal])?
            }
        };
        self.builder.ret().ok()?;
        self.builder.end_function().ok()?;
        let mut module = self.builder.module();
        keep_what_is_called(&mut module, id);
        Some(module.assemble().into_iter().flat_map(Word::to_le_bytes).collect())
    }
}

impl Writer {
    /// Ends what has nothing to do, as a function without arguments says.
    fn return_where(&mut self, name: &str) -> Option<()> {
        let condition = self.call(name, &[])?;
        let (end, after) = (self.builder.id(), self.builder.id());
        self.builder.selection_merge(after, SelectionControl::NONE).ok()?;
        self.builder.branch_conditional(condition, end, after, []).ok()?;
        self.builder.begin_block(Some(end)).ok()?;
        self.builder.ret().ok()?;
        self.builder.begin_block(Some(after)).ok()?;
        Some(())
    }

    /// Fetches operands, for later.
    fn fetch(&mut self, operands: impl Iterator<Item = Node>, fetched: &mut HashMap<Node, Word>) -> Option<()> {
        for node in operands {
            let quads = match node {
                Node::Rotated { slot, shift } => {
                    let arguments = [self.number(slot), self.number(shift)];
                    self.call("x_fetch_rotated", &arguments)?
                }
                Node::Vector { slot } => {
                    let slot = self.number(slot);
                    self.call("x_fetch", &[slot])?
                }
                _ => return None,
            };
            fetched.insert(node, quads);
        }
        Some(())
    }
}

/// Drops the functions that are not called from `main`, directly or not.
fn keep_what_is_called(module: &mut Module, main: Word) {
    let mut called = HashSet::new();
    let mut waiting = vec![main];
    while let Some(id) = waiting.pop() {
        if !called.insert(id) {
            continue;
        }
        let function = module.functions.iter().find(|function| function.def_id() == Some(id));
        for instruction in function.into_iter().flat_map(|function| function.all_inst_iter()) {
            if let (Op::FunctionCall, Some(Operand::IdRef(callee))) =
                (instruction.class.opcode, instruction.operands.first())
            {
                waiting.push(*callee);
            }
        }
    }
    module.functions.retain(|function| function.def_id().is_some_and(|id| called.contains(&id)));
    // Decorations of what is gone.
    let mut defined: HashSet<Word> =
        module.types_global_values.iter().filter_map(|instruction| instruction.result_id).collect();
    let inside = module.functions.iter().flat_map(|function| function.all_inst_iter());
    defined.extend(inside.filter_map(|instruction| instruction.result_id));
    module.annotations.retain(|annotation| match annotation.operands.first() {
        Some(Operand::IdRef(target)) => defined.contains(target),
        _ => true,
    });
}
