//! What to run: the two fields of BLS12-381 as parameters, and the kernels over them, element-wise and reductions, as SPIR-V.
//!
//! This crate knows fields, operations, GLSL and SPIR-V; it knows nothing of Vulkan. The GLSL lies in `shaders/`, one source
//! for both fields and both word widths. The SPIR-V lies in `spirv/` and is committed, so that building the library
//! takes neither a shader compiler nor an SDK. `LOCK` holds the SHA-256 of every source and output; a test compares them on
//! every machine, and the `compile` feature's `compile-kernels` regenerates them. Formulations of multiplication other than the
//! one in `shaders/field.glsl` are GLSL that [`formulation`] generates.

mod divsteps;
pub mod expression;
mod field;
pub mod formulation;
mod kernel;
pub mod lock;

/// The file `LOCK`: it changes whenever a kernel does.
pub const LOCK: &str = include_str!("../LOCK");

pub use field::{Constants, Field};
pub use formulation::Formulation;
pub use kernel::{Kernel, Permutation, Shader, Width, permutations};
