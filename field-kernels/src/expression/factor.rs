//! Sums of products with fewer products: a b + a c = a (b + c).

use super::{Node, Root, uses};
use std::collections::HashMap;

/// The same expression in as few multiplications or fewer: of the products of a sum that have factors in common, those are multiplied
/// once; two products after another, those with the most in common first. What is used elsewhere too stays as it is.
pub(super) fn factored(nodes: &[Node], root: Root) -> (Vec<Node>, Root) {
    let mut factoring =
        Factoring { nodes, uses: uses(nodes, root), places: Vec::new(), known: HashMap::new(), new: Vec::new() };
    (0..nodes.len()).for_each(|at| factoring.node(at));
    let place = |node: usize| factoring.places[node];
    let root = match root {
        Root::Element(a) => Root::Element(place(a)),
        Root::Equal(a, b) => Root::Equal(place(a), place(b)),
    };
    (factoring.new, root)
}

struct Factoring<'a> {
    nodes: &'a [Node],
    uses: Vec<usize>,
    /// Where the new nodes of the first nodes are.
    places: Vec<usize>,
    known: HashMap<Node, usize>,
    new: Vec<Node>,
}

/// New nodes whose product it is, and whether it is subtracted.
struct Product {
    negative: bool,
    factors: Vec<usize>,
}

impl Factoring<'_> {
    fn push(&mut self, node: Node) -> usize {
        let node = match node {
            Node::Add(a, b) => Node::Add(a.min(b), a.max(b)),
            Node::Mul(a, b) => Node::Mul(a.min(b), a.max(b)),
            other => other,
        };
        *self.known.entry(node).or_insert_with(|| {
            self.new.push(node);
            self.new.len() - 1
        })
    }

    /// Makes the next node anew.
    fn node(&mut self, at: usize) {
        let place = |node: usize| self.places[node];
        let same = match self.nodes[at] {
            Node::Add(a, b) => Node::Add(place(a), place(b)),
            Node::Sub(a, b) => Node::Sub(place(a), place(b)),
            Node::Neg(a) => Node::Neg(place(a)),
            Node::Mul(a, b) => Node::Mul(place(a), place(b)),
            Node::Select { slot, yes, no } => Node::Select { slot, yes: place(yes), no: place(no) },
            leaf => leaf,
        };
        let sum = matches!(same, Node::Add(..) | Node::Sub(..) | Node::Neg(_)) && self.uses[at] > 0;
        let place = if sum { self.sum(at) } else { None };
        let place = place.unwrap_or_else(|| self.push(same));
        self.places.push(place);
    }

    /// A sum, if any of its products have factors in common.
    fn sum(&mut self, at: usize) -> Option<usize> {
        let (mut terms, mut products) = self.parts(at);
        let before = products.len();
        while let Some((first, second)) = most_in_common(&products) {
            let second = products.remove(second);
            let Product { negative, factors } = &mut products[first];
            let (common, rest, other) = split(factors, &second.factors);
            let opposite = *negative != second.negative;
            let (rest, other) = (self.product(&rest), self.product(&other));
            let sum = self.push(if opposite { Node::Sub(rest, other) } else { Node::Add(rest, other) });
            *factors = [common, vec![sum]].concat();
        }
        if products.len() == before {
            return None;
        }
        for Product { negative, factors } in products {
            terms.push((negative, self.product(&factors)));
        }
        // Something to subtract from comes first.
        terms.sort_by_key(|(negative, _)| *negative);
        let mut terms = terms.into_iter();
        let (negative, first) = terms.next()?;
        let sum = terms.fold(first, |sum, (other, term)| {
            self.push(if other == negative { Node::Add(sum, term) } else { Node::Sub(sum, term) })
        });
        Some(if negative { self.push(Node::Neg(sum)) } else { sum })
    }

    fn product(&mut self, factors: &[usize]) -> usize {
        let (first, others) = factors.split_first().map_or((0, factors), |(first, others)| (*first, others));
        others.iter().fold(first, |product, factor| self.push(Node::Mul(product, *factor)))
    }

    /// The terms of a sum, through the sums that only it uses; products that only it uses apart.
    fn parts(&self, at: usize) -> (Vec<(bool, usize)>, Vec<Product>) {
        let (mut terms, mut products, mut rest) = (Vec::new(), Vec::new(), vec![(false, at)]);
        while let Some((negative, node)) = rest.pop() {
            match self.nodes[node] {
                _ if node != at && self.uses[node] > 1 => terms.push((negative, self.places[node])),
                Node::Add(a, b) => rest.extend([(negative, b), (negative, a)]),
                Node::Sub(a, b) => rest.extend([(!negative, b), (negative, a)]),
                Node::Neg(a) => rest.push((!negative, a)),
                Node::Mul(..) => products.push(Product { negative, factors: self.factors(node) }),
                _ => terms.push((negative, self.places[node])),
            }
        }
        (terms, products)
    }

    /// The factors of a product, through the products that only it uses.
    fn factors(&self, at: usize) -> Vec<usize> {
        let (mut factors, mut rest) = (Vec::new(), vec![at]);
        while let Some(node) = rest.pop() {
            match self.nodes[node] {
                Node::Mul(a, b) if node == at || self.uses[node] == 1 => rest.extend([b, a]),
                _ => factors.push(self.places[node]),
            }
        }
        factors
    }
}

/// The two products that have the most factors in common, if any have, and each at least one that is not.
fn most_in_common(products: &[Product]) -> Option<(usize, usize)> {
    let pairs = (0..products.len()).flat_map(|first| (first + 1..products.len()).map(move |second| (first, second)));
    let common = |(first, second): (usize, usize)| {
        let (common, rest, other) = split(&products[first].factors, &products[second].factors);
        if rest.is_empty() || other.is_empty() { 0 } else { common.len() }
    };
    let mut best = (0, None);
    for pair in pairs {
        let count = common(pair);
        if count > best.0 {
            best = (count, Some(pair));
        }
    }
    best.1
}

/// What two products have in common, and what they have not.
fn split(a: &[usize], b: &[usize]) -> (Vec<usize>, Vec<usize>, Vec<usize>) {
    let (mut common, mut rest, mut other) = (Vec::new(), Vec::new(), b.to_vec());
    for factor in a {
        match other.iter().position(|known| known == factor) {
            Some(at) => common.push(other.remove(at)),
            None => rest.push(*factor),
        }
    }
    (common, rest, other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const P: u64 = 10_007;

    fn value(nodes: &[Node], root: usize) -> u64 {
        let mut values: Vec<u64> = Vec::new();
        for node in nodes {
            values.push(match *node {
                Node::Vector { slot } => u64::from(slot) * u64::from(slot) + 3,
                Node::Add(a, b) => (values[a] + values[b]) % P,
                Node::Sub(a, b) => (values[a] + P - values[b]) % P,
                Node::Neg(a) => (P - values[a]) % P,
                Node::Mul(a, b) => values[a] * values[b] % P,
                _ => 0,
            });
        }
        values[root]
    }

    /// Of what is needed.
    fn products(nodes: &[Node], root: usize) -> usize {
        let uses = uses(nodes, Root::Element(root));
        nodes.iter().zip(uses).filter(|(node, uses)| *uses > 0 && matches!(node, Node::Mul(..))).count()
    }

    /// a b + c a d - a b e, and the gate of PLONK.
    #[test]
    fn common_factors_are_multiplied_once() {
        let leaves = |count: u32| (0..count).map(|slot| Node::Vector { slot });
        let mut nodes: Vec<Node> = leaves(5).collect();
        nodes.extend([
            Node::Mul(0, 1),
            Node::Mul(2, 0),
            Node::Mul(6, 3),
            Node::Mul(0, 4),
            Node::Mul(8, 1),
            Node::Add(5, 7),
            Node::Sub(10, 9),
        ]);
        let (new, root) = factored(&nodes, Root::Element(11));
        let Root::Element(root) = root else { panic!("{root:?}") };
        assert_eq!(value(&new, root), value(&nodes, 11));
        // a (b (1 - e) + c d) would take 3, but there is no 1: a (b - b e + c d).
        assert_eq!((products(&nodes, 11), products(&new, root)), (5, 3));
        let mut gate: Vec<Node> = leaves(8).collect();
        gate.extend([Node::Mul(0, 1), Node::Mul(2, 3), Node::Mul(4, 1), Node::Mul(10, 3), Node::Mul(5, 6)]);
        gate.extend([Node::Add(8, 9), Node::Add(13, 11), Node::Add(14, 12), Node::Add(15, 7)]);
        let (new, root) = factored(&gate, Root::Element(16));
        let Root::Element(root) = root else { panic!("{root:?}") };
        assert_eq!(value(&new, root), value(&gate, 16));
        assert_eq!((products(&gate, 16), products(&new, root)), (5, 4));
    }

    proptest! {
        #[test]
        fn the_value_stays(choices in prop::collection::vec((0u8..6, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..40)) {
            let mut nodes: Vec<Node> = (0..4).map(|slot| Node::Vector { slot }).collect();
            for (kind, a, b) in choices {
                let (a, b) = (a.index(nodes.len()), b.index(nodes.len()));
                nodes.push(match kind {
                    0 | 1 => Node::Add(a, b),
                    2 => Node::Sub(a, b),
                    3 => Node::Neg(a),
                    _ => Node::Mul(a, b),
                });
            }
            let last = nodes.len() - 1;
            let (new, root) = factored(&nodes, Root::Equal(last, last / 2));
            let Root::Equal(a, b) = root else { return Err(TestCaseError::fail("another root")) };
            prop_assert_eq!((value(&new, a), value(&new, b)), (value(&nodes, last), value(&nodes, last / 2)));
            prop_assert!(new.iter().enumerate().all(|(at, node)| node.operands().all(|operand| operand < at)));
            let (new, root) = factored(&nodes, Root::Element(last));
            let Root::Element(root) = root else { return Err(TestCaseError::fail("another root")) };
            prop_assert_eq!(value(&new, root), value(&nodes, last));
            prop_assert!(products(&new, root) <= products(&nodes, last));
        }
    }
}
