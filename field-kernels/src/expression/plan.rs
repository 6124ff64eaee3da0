//! What an expression computes, in which order and in which representation.

use super::{Node, Root, uses};
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
    /// A sum of products, not reduced.
    Sum,
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
    /// Terms, each added or subtracted, and products that share reductions.
    Sum {
        terms: Vec<(bool, usize)>,
        groups: Vec<Group>,
    },
}

/// Products that share a reduction.
#[derive(Clone, Debug)]
struct Group {
    /// Whether all of it is subtracted.
    negative: bool,
    /// Factors, and whether the product is subtracted from the others. The first is not.
    products: Vec<(usize, usize, bool)>,
}

impl Plan {
    /// With at most so many products to a reduction.
    pub(super) fn new(nodes: &[Node], root: Root, most_products: usize) -> Self {
        Planner::new(nodes, root, most_products).plan(root)
    }
}

struct Planner<'a> {
    nodes: &'a [Node],
    most_products: usize,
    shapes: Vec<Shape>,
    /// In which representations each node is needed.
    needed: Vec<Vec<Representation>>,
    /// For each product of two factors, by the factors: the one that is the left operand, and the other one.
    sides: HashMap<(usize, usize), (usize, usize)>,
    done: HashSet<Value>,
    /// The number of the next value that is no node's.
    next: usize,
    steps: Vec<Step>,
}

impl<'a> Planner<'a> {
    fn new(nodes: &'a [Node], root: Root, most_products: usize) -> Self {
        let uses = uses(nodes, root);
        let mut planner = Self {
            nodes,
            most_products,
            shapes: vec![Shape::Absorbed; nodes.len()],
            needed: vec![Vec::new(); nodes.len()],
            sides: HashMap::new(),
            done: HashSet::new(),
            next: nodes.len(),
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
        if !self.needs(node, representation) {
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
                let mut groups = Vec::new();
                for group in products.chunks(self.most_products) {
                    match group {
                        // Before what waits meanwhile.
                        [(negative, product)] => terms.insert(0, (*negative, *product)),
                        [(negative, _), ..] => groups.push(self.group(*negative, group)),
                        [] => {}
                    }
                }
                terms.iter().for_each(|&(_, term)| self.need(term, Representation::Canonical));
                Shape::Sum { terms, groups }
            }
        };
    }

    fn group(&mut self, negative: bool, products: &[(bool, usize)]) -> Group {
        let mut group = Group { negative, products: Vec::new() };
        for &(subtracted, product) in products {
            let Node::Mul(a, b) = self.nodes[product] else { continue };
            let opposite = subtracted != negative;
            if opposite {
                // A factor's negative is made from its canonical words.
                self.need(a, Representation::LeftNegative);
                self.need(b, Representation::Right);
            } else {
                self.need_factors(a, b);
            }
            group.products.push((a, b, opposite));
        }
        group
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

    /// What is needed for what is needed, in the order in which it is: few values wait for their use at a time.
    fn plan(mut self, root: Root) -> Plan {
        for node in root.operands() {
            self.make((node, Representation::Canonical));
        }
        Plan { steps: self.steps, root }
    }

    /// Makes a value, after all that it is made from.
    fn make(&mut self, value: Value) {
        use Representation::{Canonical, Left, LeftNegative, Negative, Right, Root, Sum};
        if self.done.contains(&value) {
            return;
        }
        let (at, representation) = value;
        match (representation, &self.shapes[at]) {
            (Canonical | Right, &Shape::Product(a, b)) | (Left, &Shape::Product(a, b))
                if representation != Left || self.needed[at] == [Left] =>
            {
                self.product(value, a, b);
            }
            (Canonical, Shape::Leaf) => self.leaf(at),
            (Canonical, Shape::Select) => {
                let Node::Select { slot, yes, no } = self.nodes[at] else { return };
                let (yes, no) = ((yes, Canonical), (no, Canonical));
                self.make(yes);
                self.make(no);
                self.steps.push(Step::Select { slot, yes, no, to: value });
                self.done.insert(value);
            }
            (Canonical, Shape::Sum { terms, groups }) => {
                let (terms, groups) = (terms.clone(), groups.clone());
                self.sum(value, &terms, &groups);
            }
            (Canonical | Sum, _) => {}
            (Left, _) => self.call("x_left", &[(at, Canonical)], value),
            (Right, _) => self.call("x_right", &[(at, Canonical)], value),
            (Root, _) => self.call("x_root", &[(at, Canonical)], value),
            (Negative, _) => self.call("x_neg", &[(at, Canonical)], value),
            (LeftNegative, _) => self.call("x_left", &[(at, Negative)], value),
        }
    }

    fn call(&mut self, name: &'static str, operands: &[Value], to: Value) {
        operands.iter().for_each(|operand| self.make(*operand));
        self.steps.push(Step::Call { name, operands: operands.to_vec(), to });
        self.done.insert(to);
    }

    fn leaf(&mut self, at: usize) {
        let (node, to) = (self.nodes[at], (at, Representation::Canonical));
        self.steps.push(match node {
            Node::Element { slot, at, .. } => Step::Broadcast { slot, at, to },
            _ => Step::Gather { node, to },
        });
        self.done.insert(to);
    }

    /// The operands of a product of two factors, as decided.
    fn operands(&self, (a, b, opposite): (usize, usize, bool)) -> [Value; 2] {
        if opposite {
            return [(a, Representation::LeftNegative), (b, Representation::Right)];
        }
        let (left, right) = self.sides.get(&(a, b)).copied().unwrap_or((a, b));
        [(left, Representation::Left), (right, Representation::Right)]
    }

    /// A product as a left operand that is nothing else, as a right one, or in words: by way of a right one if that is needed too.
    fn product(&mut self, value: Value, a: usize, b: usize) {
        use Representation::{Canonical, Left, Right, Root};
        let (at, representation) = value;
        let by_right = self.needs(at, Right) || self.is_square(a, b);
        match representation {
            Left if a == b => self.call("x_square", &[(a, Left)], value),
            Left => self.call("x_mul", &[(a, Left), (b, Left)], value),
            Canonical if by_right => self.call("x_result", &[(at, Right)], value),
            Canonical => self.call("x_product", &self.operands((a, b, false)), value),
            _ if self.is_square(a, b) => self.call("x_square", &[(a, Root)], value),
            _ => self.call("x_mul", &self.operands((a, b, false)), value),
        }
    }

    fn sum(&mut self, value: Value, terms: &[(bool, usize)], groups: &[Group]) {
        use Representation::{Canonical, Right, Sum};
        let mut parts: Vec<(bool, Value)> = Vec::new();
        let alone = terms.is_empty() && groups.len() == 1;
        for group in groups {
            let reduced = self.fresh(Right);
            let words = if alone && !group.negative { value } else { self.fresh(Canonical) };
            if let [first, second] = group.products[..] {
                self.call("x_mul2", &[self.operands(first), self.operands(second)].concat(), reduced);
            } else {
                let mut sum = self.fresh(Sum);
                self.call("x_sum_zero", &[], sum);
                for &product in &group.products {
                    let [left, right] = self.operands(product);
                    let more = self.fresh(Sum);
                    self.call("x_sum_add", &[sum, left, right], more);
                    sum = more;
                }
                self.call("x_sum_result", &[sum], reduced);
            }
            self.call("x_result", &[reduced], words);
            parts.push((group.negative, words));
        }
        parts.extend(terms.iter().map(|&(negative, term)| (negative, (term, Canonical))));
        // Something to subtract from comes first.
        parts.sort_by_key(|(negative, _)| *negative);
        let mut parts = parts.into_iter();
        let Some((negated, mut sum)) = parts.next() else { return };
        let last = parts.len();
        for (number, (negative, part)) in parts.enumerate() {
            let name = if negative && !negated { "x_sub" } else { "x_add" };
            let to = if number + 1 == last && !negated { value } else { self.fresh(Canonical) };
            self.call(name, &[sum, part], to);
            sum = to;
        }
        // All are subtracted; or there is one term, negated twice.
        if sum == value {
            return;
        }
        if !negated {
            let negative = self.fresh(Canonical);
            self.call("x_neg", &[sum], negative);
            sum = negative;
        }
        self.call("x_neg", &[sum], value);
    }

    /// A value that is no node's.
    fn fresh(&mut self, representation: Representation) -> Value {
        self.next += 1;
        (self.next - 1, representation)
    }
}
