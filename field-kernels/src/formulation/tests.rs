//! Every variant against big integers, and the bounds that its comments state.

use super::bounds::{Bounds, Interval};
use super::program::{Op, Program};
use super::radix::{Radix, modulo};
use super::{Routine, Variant, adic, halves, signed};
use crate::Field;
use num_bigint::BigInt;
use proptest::prelude::*;
use std::collections::HashMap;

/// A variant's functions, run on the CPU.
struct Model {
    radix: Radix,
    variant: Variant,
    programs: HashMap<Routine, Program>,
}

type Digits = Vec<i128>;

impl Model {
    fn new(field: Field, variant: &Variant) -> Self {
        let made = variant.routines().filter(|&routine| variant.shortcut(routine).is_none());
        let programs = made.map(|routine| (routine, variant.program(field, routine))).collect();
        Self { radix: variant.radix(field), variant: *variant, programs }
    }

    fn run(&self, routine: Routine, arguments: &[&Digits]) -> Digits {
        let arguments: Vec<&[i128]> = arguments.iter().map(|digits| digits.as_slice()).collect();
        self.programs[&routine].evaluate(&arguments)
    }

    fn operand(&self, routine: Routine, element: &BigInt) -> Digits {
        let words = Radix::to_words(element, self.radix.words());
        self.run(routine, &[&words.into_iter().map(i128::from).collect()])
    }

    fn result(&self, digits: &Digits) -> BigInt {
        self.words(Routine::Result, &[digits])
    }

    /// The element that a routine returns, `fe_reduce_once` included if it calls that.
    fn words(&self, routine: Routine, arguments: &[&Digits]) -> BigInt {
        let words = self.run(routine, arguments);
        let value = words.iter().rev().fold(BigInt::ZERO, |value, &word| (value << 32) + word);
        let p = self.radix.modulus();
        let value = if self.programs[&routine].reduce_once && value >= p { value - &p } else { value };
        assert!(value < p, "{routine:?} is not canonical");
        value
    }

    fn montgomery_radix(&self) -> BigInt {
        if self.variant == Variant::Adic {
            return adic::montgomery_radix(self.radix.field);
        }
        BigInt::from(1) << (self.radix.width as usize * self.radix.count)
    }

    /// What digits stand for.
    fn value(&self, digits: &Digits) -> BigInt {
        if self.variant == Variant::Adic { adic::value(digits) } else { self.radix.value(digits) }
    }

    /// x / by modulo p.
    fn divided(&self, x: &BigInt, by: &BigInt) -> BigInt {
        let p = self.radix.modulus();
        let inverse = by.modinv(&p).unwrap();
        modulo(&(x * inverse), &p)
    }

    /// Checks one product of each kind of canonical elements, down to the words.
    fn check_elements(&self, [a, b, c, d]: [&BigInt; 4]) {
        let r = BigInt::from(1) << (32 * self.radix.words());
        let (left, right) = (self.operand(Routine::Left, a), self.operand(Routine::Right, b));
        let product = self.run(Routine::Mul, &[&left, &right]);
        assert_eq!(self.result(&product), self.divided(&(a * b), &r), "{a} * {b}");
        if self.programs.contains_key(&Routine::Product) {
            let product = self.words(Routine::Product, &[&left, &right]);
            assert_eq!(product, self.divided(&(a * b), &r), "{a} * {b}");
        }
        let square = self.run(Routine::Square, &[&self.operand(Routine::Root, a)]);
        assert_eq!(self.result(&square), self.divided(&(a * a), &r), "{a}^2");
        let (left2, right2) = (self.operand(Routine::Left, c), self.operand(Routine::Right, d));
        let sum = self.run(Routine::Mul2, &[&left, &right, &left2, &right2]);
        assert_eq!(self.result(&sum), self.divided(&(a * b + c * d), &r), "{a} * {b} + {c} * {d}");
    }

    /// Checks one product of each kind of operands, modulo p, and returns the three.
    fn check_operands(&self, [a, b, c, d]: [&Digits; 4]) -> [Digits; 3] {
        let value = |digits: &Digits| self.value(digits);
        let p = self.radix.modulus();
        let check = |routine, arguments: &[&Digits], wanted: BigInt| {
            let got = self.run(routine, arguments);
            assert_eq!(modulo(&value(&got), &p), self.divided(&wanted, &self.montgomery_radix()), "{arguments:?}");
            for (digit, range) in got.iter().zip(self.operand_range()) {
                assert!(Interval::new(*digit, *digit).within(range), "{arguments:?}");
            }
            got
        };
        [
            check(Routine::Mul, &[a, b], value(a) * value(b)),
            check(Routine::Square, &[a], value(a) * value(a)),
            check(Routine::Mul2, &[a, b, c, d], value(a) * value(b) + value(c) * value(d)),
        ]
    }

    /// The digits of any operand.
    fn operand_range(&self) -> Vec<Interval> {
        if self.variant == Variant::Halves {
            return self.range(Interval::new(0, halves::highest_digit(self.radix)));
        }
        if self.variant == Variant::Adic {
            let (half, high) = (i128::from(self.radix.half()), adic::highest_word());
            return [Interval::new(-half, half - 1), Interval::new(-high, high)].repeat(self.radix.count / 2);
        }
        let top = match self.variant {
            Variant::Signed => signed::highest_digit(self.radix),
            _ => i128::from(self.radix.top(self.radix.shift())) + 1,
        };
        self.range(Interval::new(-top, top))
    }

    /// The digits of 2^shift times a canonical element.
    fn element_range(&self, shift: u32) -> Vec<Interval> {
        if self.variant == Variant::Halves {
            return self.range(Interval::new(0, (1 << 45) - 1));
        }
        if self.variant == Variant::Adic {
            return self.operand_range();
        }
        self.range(Interval::new(0, i128::from(self.radix.top(shift)) + 1))
    }

    fn range(&self, top: Interval) -> Vec<Interval> {
        let half = i128::from(self.radix.half());
        let any = match self.variant {
            Variant::Halves => Interval::new(0, 2 * half - 1),
            _ => Interval::new(-half, half - 1),
        };
        let mut range = vec![any; self.radix.count];
        range[self.radix.count - 1] = top;
        range
    }

    /// What holds for all such arguments.
    fn bounds(&self, routine: Routine, arguments: &[&[Interval]]) -> Bounds {
        let wraps = !matches!(self.variant, Variant::Signed | Variant::Adic);
        self.programs[&routine].bounds(arguments, wraps).unwrap_or_else(|what| panic!("{what}"))
    }

    /// The least and the largest value of digits in a range, in 1000ths of p, rounded outward.
    fn values(&self, digits: &[Interval]) -> (BigInt, BigInt) {
        let low: Digits = digits.iter().map(|digit| digit.low).collect();
        let high: Digits = digits.iter().map(|digit| digit.high).collect();
        let p = self.radix.modulus();
        (self.value(&low) * 1000 / &p - 1, self.value(&high) * 1000 / &p + 1)
    }
}

fn models() -> impl Iterator<Item = (String, Model)> {
    Field::ALL.into_iter().flat_map(|field| {
        let named = move |(name, variant): (String, Variant)| (format!("{field} {name}"), Model::new(field, &variant));
        Variant::all(field).into_iter().map(named)
    })
}

/// Canonical elements at the edges.
fn edges(radix: Radix) -> Vec<BigInt> {
    let p = radix.modulus();
    let one = BigInt::from(1);
    let r = &one << (32 * radix.words());
    let mut edges = vec![BigInt::ZERO, one.clone(), BigInt::from(2), &p - 1, &p - 2, (&p - 1) / 2, &r % &p, &r * &r % &p];
    let bits = p.bits() as usize;
    edges.push((&one << (bits - 1)) - 1);
    // All digits the largest and the smallest, and unsigned ones of all ones, as far up as an element goes.
    for width in [24, 29, 30, 32] {
        let all = |digit: i64, count: usize| (0..count).map(|j| BigInt::from(digit) << (width * j)).sum::<BigInt>();
        for count in [1, 2, (bits - 2) / width] {
            let half = 1i64 << (width - 1);
            edges.extend([all(half, count), all(half - 1, count), all(2 * half - 1, count), &p - all(half, count)]);
        }
    }
    edges
}

#[test]
fn products_of_edges_are_those_of_big_integers() {
    for (name, model) in models() {
        println!("{name}");
        let edges = edges(model.radix);
        for (i, a) in edges.iter().enumerate() {
            // Each with itself and some others; the second product of mul2 is another pair.
            for step in [0, 1, 3, 4, 7] {
                let at = |j: usize| &edges[j % edges.len()];
                model.check_elements([a, at(i + step), at(i + 2 * step + 4), at(i + 4)]);
            }
        }
    }
}

#[test]
fn digits_at_their_extremes_stay_exact() {
    for (name, model) in models() {
        println!("{name}");
        let range = model.operand_range();
        let low: Digits = range.iter().map(|digit| digit.low).collect();
        let high: Digits = range.iter().map(|digit| digit.high).collect();
        let alternating: Digits =
            range.iter().enumerate().map(|(j, digit)| if j % 2 == 0 { digit.low } else { digit.high }).collect();
        let halves: Digits = range
            .iter()
            .enumerate()
            .map(|(j, digit)| if j < model.radix.count.div_ceil(2) { digit.low } else { digit.high })
            .collect();
        let all = [&low, &high, &alternating, &halves];
        for a in all {
            for b in all {
                for (c, d) in [(a, b), (&low, &low), (&low, &high)] {
                    model.check_operands([a, b, c, d]);
                }
            }
        }
    }
}

#[test]
fn long_chains_stay_in_range() {
    for (name, model) in models() {
        println!("{name}");
        let p = model.radix.modulus();
        let start = &p - 5;
        let mut chain: [Digits; 4] = [
            model.operand(Routine::Left, &start),
            model.operand(Routine::Left, &(&p - 1)),
            model.operand(Routine::Right, &(&p - 2)),
            model.operand(Routine::Root, &(&p / 3)),
        ];
        for _ in 0..60 {
            let [a, b, c] = model.check_operands([&chain[0], &chain[1], &chain[2], &chain[3]]);
            chain = [b, c, a, chain[0].clone()];
        }
    }
}

/// What the module's comment says of a power: from `op_left` through any products to a product by one.
#[test]
fn powers_end_in_words() {
    for (name, model) in models() {
        println!("{name}");
        let p = model.radix.modulus();
        let r = BigInt::from(1) << (32 * model.radix.words());
        let element = &p - 3;
        let base = model.operand(Routine::Left, &element);
        let one = model.operand(Routine::Right, &(&r % &p));
        let mut power = base.clone();
        let mut wanted = element.clone();
        for step in 0..6 {
            assert_eq!(model.result(&model.run(Routine::Mul, &[&power, &one])), wanted);
            (power, wanted) = if step % 2 == 0 {
                (model.run(Routine::Square, &[&power]), model.divided(&(&wanted * &wanted), &r))
            } else {
                (model.run(Routine::Mul, &[&base, &power]), model.divided(&(&wanted * &element), &r))
            };
        }
    }
}

#[test]
fn bounds_hold_for_all_operands() {
    for (name, model) in models() {
        let any = model.operand_range();
        let any = any.as_slice();
        for (routine, arguments) in
            [(Routine::Mul, vec![any; 2]), (Routine::Square, vec![any]), (Routine::Mul2, vec![any; 4])]
        {
            let bounds = model.bounds(routine, &arguments);
            for (j, (output, range)) in bounds.outputs.iter().zip(any).enumerate() {
                assert!(output.within(*range), "{name} {routine:?}: digit {j} is {output:?}, not within {range:?}");
            }
            let (low, high) = model.values(&bounds.outputs);
            println!(
                "{name} {routine:?}: columns up to 2^{:.3}, doubles up to {:.3} 2^46, from {low} p / 1000 to {high}",
                (bounds.column as f64).log2(),
                bounds.double as f64 / (1u64 << 46) as f64,
            );
        }
    }
}

/// The bounds are not so wide that anything would pass: digits of twice the size do not.
#[test]
fn bounds_do_not_hold_for_larger_digits() {
    for (name, model) in models() {
        let twice = |digit: Interval| Interval::new(2 * digit.low, 2 * digit.high);
        let range: Vec<Interval> = model.operand_range().into_iter().map(twice).collect();
        assert!(model.programs[&Routine::Mul].bounds(&[&range, &range], true).is_err(), "{name}");
    }
}

/// A product by `op_left` of something, times `op_left` of something else, and so on: running products stay what `op_result` takes.
#[test]
fn running_products_are_what_op_result_takes() {
    // Of x-adic digits op_result takes any, as its own tests show.
    for (name, model) in models().filter(|(_, model)| model.variant != Variant::Adic) {
        let (left, mut running) = (model.element_range(model.radix.shift()), model.element_range(0));
        for round in 0..60 {
            let next = model.bounds(Routine::Mul, &[&left, &running]).outputs;
            let (low, high) = model.values(&next);
            assert!(low > BigInt::from(-1000) && high < BigInt::from(2000), "{name}, round {round}: {low} {high}");
            running = running.iter().zip(&next).map(|(a, b)| Interval::new(a.low.min(b.low), a.high.max(b.high))).collect();
        }
        // There is nothing that a further round could add.
        let next = model.bounds(Routine::Mul, &[&left, &running]).outputs;
        assert!(next.iter().zip(&running).all(|(next, known)| next.within(*known)), "{name}");
    }
}

#[test]
fn results_are_what_op_result_takes() {
    for (name, model) in models() {
        let any = model.operand_range();
        let shift = model.radix.shift();
        let (left, right, root) = (model.element_range(shift), model.element_range(0), model.element_range(shift / 2));
        for (routine, arguments) in [
            (Routine::Mul, vec![&*left, &*right]),
            (Routine::Mul, vec![&*any, &*right]),
            (Routine::Square, vec![&*root]),
            (Routine::Mul2, vec![&*left, &*right, &*left, &*right]),
        ] {
            let bounds = model.bounds(routine, &arguments);
            let (low, high) = model.values(&bounds.outputs);
            let most = if model.programs[&Routine::Result].reduce_once { 2000 } else { 1000 };
            let takes_any = model.variant == Variant::Adic;
            assert!(takes_any || low > BigInt::from(-1000) && high < BigInt::from(most), "{name} {routine:?} {low} {high}");
        }
        // Ends in words by itself, of any operands.
        if model.programs.contains_key(&Routine::Product) {
            model.bounds(Routine::Product, &[&any, &any]);
        }
        // The conversions themselves.
        let word = vec![Interval::new(0, u32::MAX.into()); model.radix.words()];
        for routine in [Routine::Left, Routine::Right, Routine::Root] {
            model.bounds(routine, &[&word]);
        }
        model.bounds(Routine::Result, &[&any]);
    }
}

/// Sums of any number of products that they may have: in range, and right modulo p.
#[test]
fn sums_of_products_wait_to_be_reduced() {
    let most = usize::try_from(signed::MOST_PRODUCTS).unwrap();
    let mut found = 0;
    for (name, model) in models().filter(|(_, model)| model.programs.contains_key(&Routine::SumAdd)) {
        println!("{name}");
        found += 1;
        // For all operands.
        let (any, starts) = (model.operand_range(), signed::starts(model.radix));
        let mut sums = vec![Interval::new(0, 0); starts.len()];
        for _ in 0..most {
            sums = model.bounds(Routine::SumAdd, &[&sums, &any, &any]).outputs;
            assert!(sums.iter().all(|sum| sum.within(Interval::new(0, (1 << 40) - 1))));
        }
        let result = model.bounds(Routine::SumResult, &[&sums]).outputs;
        assert!(result.iter().zip(&any).all(|(digit, range)| digit.within(*range)), "{name}: {result:?}");
        // Of operands as large as they get, and of others.
        let choices: [fn(usize) -> bool; 5] = [|_| true, |_| false, |j| j % 2 == 0, |j| j % 3 == 1, |j| j > 4];
        let extremes = choices.map(|high| {
            let digit = |(j, range): (usize, &Interval)| if high(j) { range.high } else { range.low };
            any.iter().enumerate().map(digit).collect()
        });
        let extremes: Vec<Digits> = extremes.into();
        let edges: Vec<Digits> = edges(model.radix).iter().map(|edge| model.operand(Routine::Left, edge)).collect();
        for operands in [extremes, edges] {
            for first in 0..operands.len() {
                for count in 0..=most {
                    let (mut sums, mut wanted) = (vec![0; starts.len()], BigInt::ZERO);
                    for at in 0..count {
                        let [a, b] = [first + at * (first % 5), first * (at % 3)].map(|at| &operands[at % operands.len()]);
                        sums = model.run(Routine::SumAdd, &[&sums, a, b]);
                        wanted += model.radix.value(a) * model.radix.value(b);
                    }
                    // As `sum_result` does it.
                    sums.iter_mut().zip(&starts).for_each(|(sum, start)| *sum += (most - count) as i128 * start);
                    let result = model.run(Routine::SumResult, &[&sums]);
                    let p = model.radix.modulus();
                    assert_eq!(modulo(&model.radix.value(&result), &p), model.divided(&wanted, &model.montgomery_radix()));
                    let within = result.iter().zip(&any).all(|(&digit, range)| Interval::new(digit, digit).within(*range));
                    assert!(within, "{name}: {result:?}");
                    assert_eq!(model.result(&result), model.divided(&wanted, &model.montgomery_radix()));
                }
            }
        }
    }
    assert_eq!(found, 2);
}

#[test]
fn operands_of_elements_have_the_highest_digits_that_are_stated() {
    for (name, model) in models().filter(|(_, model)| model.variant != Variant::Adic) {
        let p = model.radix.modulus();
        for routine in [Routine::Left, Routine::Right, Routine::Root] {
            let shift = routine.shift(model.radix);
            for element in [BigInt::ZERO, &p - 1] {
                let digits = model.operand(routine, &element);
                assert_eq!(model.radix.value(&digits), element << shift, "{name}");
                let range = model.element_range(shift);
                assert!(digits.iter().zip(range).all(|(&digit, range)| Interval::new(digit, digit).within(range)));
            }
        }
    }
}

#[test]
fn nothing_is_computed_in_vain() {
    for (name, model) in models() {
        for program in model.programs.values() {
            for (node, uses) in program.nodes.iter().zip(program.uses()) {
                let free = matches!(node.op, Op::Input { .. } | Op::Constant(_));
                assert!(free || uses > 0, "{name} {}: {node:?}", program.name);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn products_are_those_of_big_integers(words in prop::array::uniform4(prop::collection::vec(any::<u32>(), 12))) {
        for (_, model) in models() {
            let p = model.radix.modulus();
            let [a, b, c, d] = words.each_ref().map(|words| BigInt::from_slice(num_bigint::Sign::Plus, words) % &p);
            model.check_elements([&a, &b, &c, &d]);
        }
    }
}

/// What a text is included into: the file that includes it, and macros.
#[cfg(feature = "compile")]
#[test]
fn every_text_compiles() {
    const BEFORE: &str = "#version 460
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
";
    const AFTER: &str = "
layout(local_size_x = 64) in;
layout(std430, binding = 0) buffer Elements { Fe elements[]; };
void main() {
    Op a = op_left(elements[0]), b = op_right(elements[1]);
#if defined(LONG_SUMS)
    elements[4] = op_result(sum_result(sum_add(sum_add(sum_zero(), a, b), b, b)));
#endif
    elements[0] = op_result(op_mul(a, b));
    elements[1] = op_result(op_square(op_root(elements[2])));
    elements[2] = op_result(op_mul2(a, b, a, b));
    elements[3] = op_product(a, b);
}
";
    let source = |name| crate::lock::SOURCES.iter().find(|(file, _)| *file == name).unwrap().1;
    let compiler = shaderc::Compiler::new().unwrap();
    for field in Field::ALL {
        let mut options = shaderc::CompileOptions::new().unwrap();
        options.set_target_env(shaderc::TargetEnv::Vulkan, shaderc::EnvVersion::Vulkan1_2 as u32);
        options.add_macro_definition("INT64", Some("1"));
        options.add_macro_definition("OPAQUE_ZERO", Some("int(elements[3].w[0])"));
        crate::lock::field_macros(field).iter().for_each(|(name, value)| options.add_macro_definition(name, Some(value)));
        for (name, variant) in Variant::all(field) {
            let text = super::glsl_with(field, &variant);
            let (elements, main) = AFTER.split_once("void main").unwrap();
            let parts = [BEFORE, source("words.glsl"), source("field.glsl"), elements, &text, "void main", main];
            let compiled =
                compiler.compile_into_spirv(&parts.concat(), shaderc::ShaderKind::Compute, &name, "main", Some(&options));
            compiled.unwrap_or_else(|what| panic!("{field} {name}: {what}"));
        }
    }
}
