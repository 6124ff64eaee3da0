//! Formulations of modular multiplication: different ways to compute the same products, of which a device has its
//! favourite.
//!
//! Each is Montgomery multiplication (P. L. Montgomery, "Modular Multiplication Without Trial Division", Math. Comp. 44(170),
//! 1985) on digits of a radix of its own, with R' = 2^(width count) in the place of R (`adic` has another). Each is written once, as a straight-line
//! program (`program`), which is then read as GLSL, as a calculation on the CPU, as bounds, and as counts of instructions.
//!
//! Of each formulation there are variants. [`Formulation::variant`] names those that kernels are made of, which were the quickest on
//! the one GPU that all were measured on; the others are kept, and tested, for GPUs that like other things:
//! `compile-kernels --print` shows any of them.
//!
//! # The GLSL
//! To be included after shaders/field.glsl, with 64-bit integers, and doubles if the formulation uses them, and with a macro
//! `OPAQUE_ZERO`, an `int` that is zero and that the compiler cannot know, such as a push constant:
//! ```glsl
//! struct Op { T d[N]; };              // an operand in digits
//! Op op_left(Fe a);                   // a R'/R
//! Op op_right(Fe b);                  // b
//! Op op_root(Fe a);                   // a sqrt(R'/R)
//! Fe op_result(Op r);                 // the canonical words of a result
//! Op op_mul(Op a, Op b);              // a b / R'
//! Op op_square(Op a);                 // a a / R'
//! Op op_mul2(Op a, Op b, Op c, Op d); // (a b + c d) / R'
//! Fe op_product(Op a, Op b);          // op_result(op_mul(a, b)), or something quicker
//! Fe op_kept(Op r);                   // a result in words, to be kept in memory,
//! Op op_back(Fe a);                   // and the result again, or its equal modulo p
//! ```
//! so that `op_mul(op_left(a), op_right(b))`, `op_square(op_root(a))` and `op_mul2(op_left(a), op_right(b), op_left(c),
//! op_right(d))` are results in the Montgomery form of the vectors, with R = 2^(32 WORDS).
//!
//! Every result of these functions is an operand for all of them, any number of times over. `op_result`, though, needs a value
//! between -p and 2p (but in `adic`, where it takes any operand), and takes only: the three results above, and a product by
//! `op_right` of something. So a power goes from `op_left` through any products and squares to `op_result(op_mul(power, op_right(fe_one())))`.

mod adic;
#[cfg(test)]
mod bounds;
mod convert;
mod counts;
mod digits;
mod doubles;
#[cfg(test)]
mod evaluate;
mod halves;
mod program;
mod quarters;
mod radix;
mod signed;
mod text;

#[cfg(test)]
mod tests;

use crate::Field;
pub use counts::Counts;
pub use digits::{Digits, Product};
pub use doubles::{Conversion, Doubles};
use program::{Program, Struct};
use radix::Radix;

/// The most products of a sum that share a reduction, where more than two do: as many as the bound of `Sum` in `shaders/words_form.glsl`
/// allows for Fr; `signed` proves the same number.
pub(crate) const LONG_SUM: usize = 6;

/// How modular multiplication is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Formulation {
    /// On 32-bit words with carries: written by hand, in shaders/field.glsl and shaders/words_form.glsl.
    Words,
    /// On signed digits: Fq on such of 30 bits, in 64-bit columns without carries; Fr on words, two products to a 64-bit sum.
    Digits,
    /// In doubles: Fq on 48-bit digits, products split in halves; Fr on signed 24-bit digits, of which there are no kernels
    /// any more: signed words are quicker.
    Doubles,
    /// On digits to the base from which the curve is made, as polynomials: the quickest to multiply, and slow to convert elements to and from.
    Adic,
}

/// A formulation with its choices made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// A variant of [`Formulation::Digits`].
    Digits(Digits),
    /// A variant of [`Formulation::Doubles`].
    Doubles(Doubles),
    /// The variant of [`Formulation::Doubles`] that splits products in halves. Of Fq only.
    Halves,
    /// The variant of [`Formulation::Digits`] whose digits are words.
    Signed,
    /// The variant of [`Formulation::Adic`].
    Adic,
}

/// One of the functions that a formulation consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Routine {
    /// `op_left`
    Left,
    /// `op_right`
    Right,
    /// `op_root`
    Root,
    /// `op_result`
    Result,
    /// `op_mul`
    Mul,
    /// `op_square`
    Square,
    /// `op_mul2`
    Mul2,
    /// `op_product`
    Product,
    /// `sums_add`, of some formulations only: see [`Variant::routines`].
    SumAdd,
    /// `sums_result`, likewise.
    SumResult,
}

impl Routine {
    /// Those that every formulation has: all but [`SumAdd`](Self::SumAdd) and [`SumResult`](Self::SumResult).
    pub const COMMON: [Routine; 8] = [
        Routine::Left,
        Routine::Right,
        Routine::Root,
        Routine::Result,
        Routine::Mul,
        Routine::Square,
        Routine::Mul2,
        Routine::Product,
    ];

    /// The function's name in GLSL.
    pub const fn name(self) -> &'static str {
        match self {
            Routine::Left => "op_left",
            Routine::Right => "op_right",
            Routine::Root => "op_root",
            Routine::Result => "op_result",
            Routine::Mul => "op_mul",
            Routine::Square => "op_square",
            Routine::Mul2 => "op_mul2",
            Routine::Product => "op_product",
            Routine::SumAdd => "sums_add",
            Routine::SumResult => "sums_result",
        }
    }

    const fn operands(self) -> &'static [&'static str] {
        match self {
            Routine::Left | Routine::Right | Routine::Root | Routine::Result | Routine::Square => &["a"],
            Routine::Mul | Routine::Product => &["a", "b"],
            Routine::Mul2 => &["a", "b", "c", "d"],
            Routine::SumAdd => &["s", "a", "b"],
            Routine::SumResult => &["s"],
        }
    }

    /// By which power of two an operand is multiplied.
    const fn shift(self, radix: Radix) -> u32 {
        match self {
            Routine::Left => radix.shift(),
            Routine::Root => radix.shift() / 2,
            _ => 0,
        }
    }
}

impl Formulation {
    /// Every formulation.
    pub const ALL: [Formulation; 4] = [Formulation::Words, Formulation::Digits, Formulation::Doubles, Formulation::Adic];

    /// The formulation's name in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Formulation::Words => "words",
            Formulation::Digits => "digits",
            Formulation::Doubles => "doubles",
            Formulation::Adic => "adic",
        }
    }

    /// The variant of it that is used for a field, if its text is generated.
    pub const fn variant(self, field: Field) -> Option<Variant> {
        match (self, field) {
            (Formulation::Words, _) => None,
            (Formulation::Digits, Field::Fr) => Some(Variant::Signed),
            (Formulation::Digits, Field::Fq) => Some(Variant::Digits(Digits {
                product: Product::Quarters { throughout: true, squares: false },
                skip: 1,
                opaque: true,
            })),
            (Formulation::Doubles, Field::Fq) => Some(Variant::Halves),
            (Formulation::Doubles, Field::Fr) => {
                Some(Variant::Doubles(Doubles { karatsuba: true, skip: 2, conversion: Conversion::Convert }))
            }
            (Formulation::Adic, _) => Some(Variant::Adic),
        }
    }
}

impl Variant {
    /// All there are for a field, with a name for each.
    pub fn all(field: Field) -> Vec<(String, Variant)> {
        let mut all = match field {
            Field::Fq => vec![("halves".to_owned(), Variant::Halves)],
            Field::Fr => Vec::new(),
        };
        all.push(("adic".to_owned(), Variant::Adic));
        all.push(("signed".to_owned(), Variant::Signed));
        let products = [
            ("digits", Product::Schoolbook, false),
            ("digits_karatsuba", Product::Karatsuba, false),
            ("digits_karatsuba_opaque", Product::Karatsuba, true),
            ("digits_quarters", Product::Quarters { throughout: false, squares: false }, false),
            ("digits_quarters_opaque", Product::Quarters { throughout: false, squares: true }, true),
            ("digits_throughout", Product::Quarters { throughout: true, squares: true }, false),
            ("digits_throughout_opaque", Product::Quarters { throughout: true, squares: true }, true),
        ];
        for (name, product, opaque) in products {
            for skip in 0..=1 {
                all.push((format!("{name}_{skip}"), Variant::Digits(Digits { product, skip, opaque })));
            }
        }
        for (name, karatsuba, conversion) in [
            ("doubles", false, Conversion::Convert),
            ("doubles_bias", false, Conversion::Bias),
            ("doubles_karatsuba", true, Conversion::Convert),
            ("doubles_karatsuba_bias", true, Conversion::Bias),
        ] {
            for skip in 0..=2 {
                all.push((format!("{name}_{skip}"), Variant::Doubles(Doubles { karatsuba, skip, conversion })));
            }
        }
        all
    }

    /// The routines that it has.
    pub fn routines(&self) -> impl Iterator<Item = Routine> + use<> {
        let sums = (*self == Variant::Signed).then_some([Routine::SumAdd, Routine::SumResult]);
        Routine::COMMON.into_iter().chain(sums.into_iter().flatten())
    }

    fn radix(&self, field: Field) -> Radix {
        if *self == Variant::Halves {
            return halves::radix(field);
        }
        let (width, count) = match (self, field) {
            (Variant::Digits(_), Field::Fq) => (30, 13),
            (Variant::Digits(_), Field::Fr) => (30, 9),
            (Variant::Doubles(_), Field::Fq) => (24, 16),
            (Variant::Doubles(_), Field::Fr) => (24, 11),
            (Variant::Signed | Variant::Adic, Field::Fq | Field::Fr) => (32, 2 * field.limbs()),
            (Variant::Halves, _) => unreachable!("above"),
        };
        Radix { field, width, count }
    }

    /// The text of a routine that is others, one after the other.
    fn shortcut(&self, routine: Routine) -> Option<&'static str> {
        (routine == Routine::Product && !matches!(self, Variant::Halves | Variant::Signed)).then_some(
            "// The canonical words of a b / R'.\nFe op_product(Op a, Op b) { return op_result(op_mul(a, b)); }\n",
        )
    }

    fn operand(&self, radix: Radix) -> Struct {
        match self {
            Variant::Digits(_) => Digits::operand(radix),
            Variant::Doubles(_) => Doubles::operand(radix),
            Variant::Halves => halves::operand(),
            Variant::Signed => signed::operand(radix),
            Variant::Adic => adic::operand(radix),
        }
    }

    fn program(&self, field: Field, routine: Routine) -> Program {
        let radix = self.radix(field);
        let prose = self.prose(radix, routine);
        match self {
            Variant::Digits(digits) => digits.program(radix, routine, prose),
            Variant::Doubles(doubles) => doubles.program(radix, routine, prose),
            Variant::Halves => halves::program(radix, routine, prose),
            Variant::Signed => signed::program(radix, routine, prose),
            Variant::Adic => adic::program(radix, routine, prose),
        }
    }

    fn prose(&self, radix: Radix, routine: Routine) -> String {
        let factor = |shift| if shift == 0 { String::new() } else { format!("2^{shift} ") };
        let what = match routine {
            Routine::Left if *self == Variant::Adic => "a R'/R: the left factor of a product.".into(),
            Routine::Root if *self == Variant::Adic => "a sqrt(R'/R), to be squared.".into(),
            Routine::Result if *self == Variant::Adic => "The canonical words of any operand.".into(),
            Routine::Left => format!("{}a: the left factor of a product.", factor(radix.shift())),
            Routine::Right => "a: the right factor of a product.".into(),
            Routine::Root => format!("{}a, to be squared.", factor(radix.shift() / 2)),
            Routine::Result => "The canonical words of a value between -p and 2p.".into(),
            Routine::Mul => "a b / R'.".into(),
            Routine::Square => "a^2 / R'.".into(),
            Routine::Mul2 => "(a b + c d) / R', with one reduction.".into(),
            Routine::Product => "The canonical words of a b / R'.".into(),
            Routine::SumAdd => "The columns of s + a b.".into(),
            Routine::SumResult => format!("s / R', a sum of {} products.", signed::MOST_PRODUCTS),
        };
        match routine {
            Routine::Left | Routine::Right | Routine::Root | Routine::Result => what,
            _ => {
                let square = routine == Routine::Square;
                let how = match self {
                    Variant::Digits(digits) => digits.product.prose(square),
                    Variant::Halves => halves::PROSE,
                    Variant::Signed => signed::PROSE,
                    Variant::Adic => adic::PROSE,
                    Variant::Doubles(Doubles { karatsuba: true, .. }) => Product::Karatsuba.prose(square),
                    Variant::Doubles(_) => Product::Schoolbook.prose(square),
                };
                format!("{what} {how}")
            }
        }
    }

    fn introduction(&self, radix: Radix) -> String {
        let Radix { field, width, count } = radix;
        let form = match self {
            Variant::Halves => return halves::introduction(radix),
            Variant::Signed => return signed::introduction(radix),
            Variant::Adic => return adic::introduction(radix),
            Variant::Digits(_) => {
                "Products are summed in 64-bit columns, t0 the lowest, which have room for all of them and need no carries until \
                 the reduction (D. J. Bernstein, \"Curve25519: New Diffie-Hellman Speed Records\", PKC 2006)."
            }
            Variant::Doubles(_) => {
                "Columns, t0 the lowest, are doubles between 2^52 and 2^53, where doubles are the integers: every fused multiply-add \
                 is exact, and a double's bits are a constant plus the integer (after N. Emmart, F. Zheng, C. Weems, \"Faster \
                 Modular Exponentiation Using Double Precision Floating Point Arithmetic on the GPU\", ARITH 2018)."
            }
        };
        format!(
            "{field} in {count} balanced digits of {width} bits: each but the highest is from -2^{0} up to 2^{0} - 1. R' = 2^{1}. \
             {form}\n\nThe lowest columns are cleared by Montgomery reduction, by multiples of p, where possible such as are 1 modulo \
             2^{width} or more, so that the lowest digit is the multiplier (H. Orup, \"Simplifying Quotient Determination in \
             High-Radix Modular Multiplication\", ARITH 1995). No result is canonical before op_result; every result is an operand \
             again.\n\nGenerated by field-kernels/src/formulation, where bounds are proved for all digits in range.",
            width - 1,
            width as usize * count,
        )
    }
}

/// The text of a formulation's functions for a field; `None` for [`Formulation::Words`], whose text is no generated one.
pub fn glsl(field: Field, formulation: Formulation) -> Option<String> {
    formulation.variant(field).map(|variant| glsl_with(field, &variant))
}

/// The same for a variant.
pub fn glsl_with(field: Field, variant: &Variant) -> String {
    let radix = variant.radix(field);
    let mut text = text::comment(&variant.introduction(radix));
    text.push('\n');
    text.push_str(&variant.operand(radix).glsl());
    if *variant == Variant::Signed {
        text.push_str(&signed::sums_of(radix).glsl());
    }
    for routine in variant.routines() {
        text.push('\n');
        match variant.shortcut(routine) {
            None => text.push_str(&variant.program(field, routine).glsl()),
            Some(shortcut) => text.push_str(shortcut),
        }
    }
    text.push_str(match variant {
        Variant::Signed | Variant::Adic => signed::KEPT,
        _ => "\nFe op_kept(Op r) { return op_result(r); }\nOp op_back(Fe a) { return op_right(a); }\n",
    });
    if *variant == Variant::Signed {
        text.push_str(&signed::sums_glsl(radix));
    }
    text
}

/// How many operations a routine of a formulation has; `None` for [`Formulation::Words`].
pub fn counts(field: Field, formulation: Formulation, routine: Routine) -> Option<Counts> {
    formulation.variant(field).map(|variant| counts_with(field, &variant, routine))
}

/// The same for a variant.
pub fn counts_with(field: Field, variant: &Variant, routine: Routine) -> Counts {
    if variant.shortcut(routine).is_some() {
        return counts_with(field, variant, Routine::Mul) + counts_with(field, variant, Routine::Result);
    }
    variant.program(field, routine).counts()
}
