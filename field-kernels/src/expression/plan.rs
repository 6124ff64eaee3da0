//! What an expression computes, in which order and in which representation.

use super::{Node, Root};
use std::collections::{HashMap, HashSet};

/// How a value is kept, as `shaders/words_form.glsl` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Representation {
    /// Canonical words, as elements lie in memory.
    Canonical,
    /// An operand; a product of it with a right one is a right one. Products of left operands are left operands.
    Left,
    /// An operand, whose canonical words are the value's.
    Right,
    /// What squares to a right operand.
    Root,
    /// The negative's canonical words, and a left operand of them.
    Negative,
    LeftNegative,
}

/// A node in a representation.
pub(super) type Value = (usize, Representation);

/// A call, or nearly.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Gather { node: Node, to: Value },
    Broadcast { slot: u32, at: u32, to: Value },
    Select { slot: u32, yes: Value, no: Value, to: Value },
    Call { name: &'static str, operands: Vec<Value>, to: Value },
}

/// An expression, planned.
pub(super) struct Plan {
    /// What is read per position, each once.
    pub(super) fetched: Vec<Node>,
    pub(super) steps: Vec<Step>,
    pub(super) root: Root,
}

/// What a node turns out to be.
#[derive(Clone, Debug)]
enum Shape {
    /// It is part of another one, or not needed.
    Absorbed,
    Leaf,
    Select,
    Product(usize, usize),
    /// Terms, and pairs of products that share a reduction; whether each is subtracted. In a pair, whether the second product is,
    /// relative to the first.
    Sum {
        terms: Vec<(bool, usize)>,
        pairs: Vec<Pair>,
    },
}

#[derive(Clone, Debug)]
struct Pair {
    negative: bool,
    first: (usize, usize),
    second: (usize, usize),
    second_negative: bool,
}

impl Plan {
    pub(super) fn new(nodes: &[Node], root: Root) -> Self {
        Planner::new(nodes, root).plan(root)
    }
}

struct Planner<'a> {
    nodes: &'a [Node],
    shapes: Vec<Shape>,
    /// In which representations each node is needed.
    needed: Vec<Vec<Representation>>,
    /// For each product of two factors, by the factors: the one that is the left operand, and the other one.
    sides: HashMap<(usize, usize), (usize, usize)>,
    done: HashSet<Value>,
    /// The number of the next value that is no node's.
    next: usize,
    fetched: Vec<Node>,
    steps: Vec<Step>,
}

impl<'a> Planner<'a> {
    fn new(nodes: &'a [Node], root: Root) -> Self {
        let mut uses = vec![0usize; nodes.len()];
        root.operands().for_each(|node| uses[node] += 1);
        // Only of what is needed.
        for at in (0..nodes.len()).rev() {
            if uses[at] > 0 {
                nodes[at].operands().for_each(|operand| uses[operand] += 1);
            }
        }
        let mut planner = Self {
            nodes,
            shapes: vec![Shape::Absorbed; nodes.len()],
            needed: vec![Vec::new(); nodes.len()],
            sides: HashMap::new(),
            done: HashSet::new(),
            next: nodes.len(),
            fetched: Vec::new(),
            steps: Vec::new(),
        };
        root.operands().for_each(|node| planner.need(node, Representation::Canonical));
        // A node's users come after it: when it is its turn, all that it is needed for is known.
        for at in (0..nodes.len()).rev() {
            if !planner.needed[at].is_empty() {
                planner.shape(at, &uses);
            }
        }
        planner
    }

    fn need(&mut self, node: usize, representation: Representation) {
        if !self.needed[node].contains(&representation) {
            self.needed[node].push(representation);
        }
    }

    fn needs(&self, node: usize, representation: Representation) -> bool {
        self.needed[node].contains(&representation)
    }

    /// Decides what a needed node is, and what it needs.
    fn shape(&mut self, at: usize, uses: &[usize]) {
        self.shapes[at] = match self.nodes[at] {
            Node::Vector { .. } | Node::Rotated { .. } | Node::Element { .. } => Shape::Leaf,
            Node::Select { yes, no, .. } => {
                [yes, no].into_iter().for_each(|operand| self.need(operand, Representation::Canonical));
                Shape::Select
            }
            Node::Mul(a, b) => {
                // Left, if that is all it is needed as.
                if self.needed[at] == [Representation::Left] {
                    [a, b].into_iter().for_each(|factor| self.need(factor, Representation::Left));
                } else if self.is_square(a, b) {
                    self.need(a, Representation::Root);
                } else {
                    self.need_factors(a, b);
                }
                Shape::Product(a, b)
            }
            Node::Add(..) | Node::Sub(..) | Node::Neg(_) => {
                let (mut terms, mut products) = (Vec::new(), Vec::new());
                self.terms(at, false, uses, &mut terms, &mut products);
                let mut pairs = Vec::new();
                let mut pending: Option<(bool, usize)> = None;
                for (negative, product) in products {
                    let Some((first_negative, first)) = pending.take() else {
                        pending = Some((negative, product));
                        continue;
                    };
                    let (Node::Mul(a, b), Node::Mul(c, d)) = (self.nodes[first], self.nodes[product]) else { continue };
                    let second_negative = negative != first_negative;
                    self.need_factors(a, b);
                    // A factor's negative is made from its canonical words.
                    if second_negative {
                        self.need(c, Representation::Canonical);
                        self.need(d, Representation::Right);
                        self.need(c, Representation::LeftNegative);
                    } else {
                        self.need_factors(c, d);
                    }
                    pairs.push(Pair { negative: first_negative, first: (a, b), second: (c, d), second_negative });
                }
                terms.extend(pending);
                terms.iter().for_each(|&(_, term)| self.need(term, Representation::Canonical));
                Shape::Sum { terms, pairs }
            }
        };
    }

    /// The terms of a sum, through the sums that only it uses; products that only it uses apart.
    fn terms(
        &self,
        at: usize,
        negative: bool,
        uses: &[usize],
        terms: &mut Vec<(bool, usize)>,
        products: &mut Vec<(bool, usize)>,
    ) {
        let mut part = |node: usize, negative: bool| match self.nodes[node] {
            Node::Add(..) | Node::Sub(..) | Node::Neg(_) if uses[node] == 1 => {
                self.terms(node, negative, uses, terms, products);
            }
            Node::Mul(..) if uses[node] == 1 => products.push((negative, node)),
            _ => terms.push((negative, node)),
        };
        match self.nodes[at] {
            Node::Add(a, b) => {
                part(a, negative);
                part(b, negative);
            }
            Node::Sub(a, b) => {
                part(a, negative);
                part(b, !negative);
            }
            Node::Neg(a) => part(a, !negative),
            _ => {}
        }
    }

    /// Whether a product is the square of something that is no product: of its canonical words.
    fn is_square(&self, a: usize, b: usize) -> bool {
        a == b && !matches!(self.nodes[a], Node::Mul(..))
    }

    /// Of two factors one must be a left operand, the other a right one. A product is a right one anyway if it is needed as
    /// anything else; anything can be made a left one, at some cost.
    fn need_factors(&mut self, a: usize, b: usize) {
        let product = |node: usize| matches!(self.nodes[node], Node::Mul(..));
        let (left, right) = match (product(a), product(b)) {
            (true, false) => (b, a),
            (true, true) if self.needs(a, Representation::Canonical) || self.needs(a, Representation::Right) => (b, a),
            // What is a left operand elsewhere is one here.
            (false, false) if self.needs(b, Representation::Left) && !self.needs(a, Representation::Left) => (b, a),
            _ => (a, b),
        };
        self.need(left, Representation::Left);
        self.need(right, Representation::Right);
        self.sides.insert((a, b), (left, right));
    }

    fn plan(mut self, root: Root) -> Plan {
        for at in 0..self.nodes.len() {
            match self.shapes[at].clone() {
                Shape::Absorbed => {}
                Shape::Leaf => self.leaf(at),
                Shape::Select => {
                    let Node::Select { slot, yes, no } = self.nodes[at] else { continue };
                    let (yes, no) = ((yes, Representation::Canonical), (no, Representation::Canonical));
                    self.steps.push(Step::Select { slot, yes, no, to: (at, Representation::Canonical) });
                }
                Shape::Product(a, b) => self.product(at, a, b),
                Shape::Sum { terms, pairs } => self.sum(at, &terms, &pairs),
            }
            self.convert(at);
        }
        Plan { fetched: self.fetched, steps: self.steps, root }
    }

    fn leaf(&mut self, at: usize) {
        let (node, to) = (self.nodes[at], (at, Representation::Canonical));
        match node {
            Node::Element { slot, at, .. } => self.steps.push(Step::Broadcast { slot, at, to }),
            _ => {
                if !self.fetched.contains(&node) {
                    self.fetched.push(node);
                }
                self.steps.push(Step::Gather { node, to });
            }
        }
    }

    fn call(&mut self, name: &'static str, operands: Vec<Value>, to: Value) {
        self.steps.push(Step::Call { name, operands, to });
        self.done.insert(to);
    }

    /// The operands of a product of two factors, as decided.
    fn operands(&self, a: usize, b: usize) -> [Value; 2] {
        let (left, right) = self.sides.get(&(a, b)).copied().unwrap_or((a, b));
        [(left, Representation::Left), (right, Representation::Right)]
    }

    fn product(&mut self, at: usize, a: usize, b: usize) {
        use Representation::{Canonical, Left, Right, Root};
        if self.needed[at] == [Left] {
            let (name, operands) =
                if a == b { ("x_square", vec![(a, Left)]) } else { ("x_mul", vec![(a, Left), (b, Left)]) };
            return self.call(name, operands, (at, Left));
        }
        let words = self.needed[at].iter().any(|needed| *needed != Right);
        let [left, right] = self.operands(a, b);
        match (self.is_square(a, b), self.needs(at, Right)) {
            (true, _) => self.call("x_square", vec![(a, Root)], (at, Right)),
            (false, true) => self.call("x_mul", vec![left, right], (at, Right)),
            (false, false) => return self.call("x_product", vec![left, right], (at, Canonical)),
        }
        if words {
            self.call("x_result", vec![(at, Right)], (at, Canonical));
        }
    }

    fn sum(&mut self, at: usize, terms: &[(bool, usize)], pairs: &[Pair]) {
        use Representation::{Canonical, LeftNegative, Right};
        let mut parts: Vec<(bool, Value)> = terms.iter().map(|&(negative, term)| (negative, (term, Canonical))).collect();
        for pair in pairs {
            let second = match pair.second_negative {
                true => [(pair.second.0, LeftNegative), (pair.second.1, Right)],
                false => self.operands(pair.second.0, pair.second.1),
            };
            let operands = [self.operands(pair.first.0, pair.first.1), second].concat();
            let alone = terms.is_empty() && pairs.len() == 1 && !pair.negative;
            let (sum, words) = (self.fresh(Right), if alone { (at, Canonical) } else { self.fresh(Canonical) });
            self.call("x_mul2", operands, sum);
            self.call("x_result", vec![sum], words);
            parts.push((pair.negative, words));
        }
        // Something to subtract from comes first.
        parts.sort_by_key(|(negative, _)| *negative);
        let mut parts = parts.into_iter();
        let Some((negated, mut sum)) = parts.next() else { return };
        let last = parts.len();
        for (number, (negative, part)) in parts.enumerate() {
            let name = if negative && !negated { "x_sub" } else { "x_add" };
            let to = if number + 1 == last && !negated { (at, Canonical) } else { self.fresh(Canonical) };
            self.call(name, vec![sum, part], to);
            sum = to;
        }
        // All are subtracted; or there is one term, negated twice.
        if sum == (at, Canonical) {
            return;
        }
        if !negated {
            let negative = self.fresh(Canonical);
            self.call("x_neg", vec![sum], negative);
            sum = negative;
        }
        self.call("x_neg", vec![sum], (at, Canonical));
    }

    fn fresh(&mut self, representation: Representation) -> Value {
        self.next += 1;
        (self.next - 1, representation)
    }

    /// Makes the representations that are needed of a node and are not made yet, from its canonical words.
    fn convert(&mut self, at: usize) {
        use Representation::{Canonical, Left, LeftNegative, Negative, Right, Root};
        for needed in self.needed[at].clone() {
            if self.done.contains(&(at, needed)) {
                continue;
            }
            let words = vec![(at, Canonical)];
            match needed {
                Left => self.call("x_left", words, (at, Left)),
                Right => self.call("x_right", words, (at, Right)),
                Root => self.call("x_root", words, (at, Root)),
                LeftNegative => {
                    self.call("x_neg", words, (at, Negative));
                    self.call("x_left", vec![(at, Negative)], (at, LeftNegative));
                }
                Canonical | Negative => {}
            }
        }
    }
}
