//! What is true: every operation computed by arkworks, in parallel by rayon, and the cheapest check that proves a result.
//!
//! This crate knows arkworks; it knows nothing of Vulkan or GLSL. An operation is a [`Twin`]: a function that computes
//! it on vectors and one that finds the first wrong element of somebody else's answer. A reduction is a [`Fold`]. Vectors are little-endian limbs,
//! read where they lie, never converted; [`Form`] says what the limbs mean.
//!
//! ```
//! use cpu_reference::{Form, Operands, Positions, Results, add};
//! let twin = add::<ark_bls12_381::Fr>();
//! let (a, b) = ([2, 0, 0, 0], [3, 0, 0, 0]);
//! let operands = Operands { vectors: [&a, &b, &[]], parameter: &[], form: Form::Canonical };
//! let mut sum = [0; 4];
//! (twin.compute)(&operands, &mut Results { elements: &mut sum, mask: &mut [] });
//! assert_eq!(sum, [5, 0, 0, 0]);
//! assert_eq!((twin.first_wrong)(&operands, &sum, &[], Positions::All), None);
//! ```

mod inversions;
mod layout;
pub mod matrices;
pub mod movement;
pub mod probes;
mod reductions;
mod scans;
mod twins;

pub use inversions::{first_wrong_inverse, inverses};
pub use layout::{LimbField, try_zeroed_vec, zeroed_vec};
pub use reductions::{Fold, inner_product, product, sum, sum_of_squares};
pub use scans::{Recurrence, Walk, evaluate, powers, scan, scan_first_wrong};
pub use twins::{
    Form, Operands, Positions, Results, Twin, add, add_scalar, double, equal, from_montgomery, inverse, mul, mul_add, neg,
    pow, scale, sqrt, square, sub, sub_scalar, to_montgomery,
};
