//! The kernels, and the one list of their permutations.

use crate::{Field, Formulation};

/// A kernel: what it computes from its slots a, b, c into r.
///
/// Most are element-wise (`shaders/elementwise.comp`): one invocation computes one r. Reductions (`shaders/reduce.comp`) fold
/// the elements of one workgroup into one r, and have slots a, b and r only. Movements (`shaders/movement.comp`, `shaders/compact.comp`) and dot products
/// (`shaders/dot.comp`), and inverses of many elements (`shaders/inversion.comp`), say there what their invocations do, and what their
/// constants and parameters are. Scans (`shaders/scan.comp`) fold elements too, or pass through them one after another. Those that only
/// measure (`shaders/probe.comp`) are element-wise, with slots a, b and r.
///
/// Specialization constants: 0 is the workgroup size. Of element-wise kernels 1, `CANONICAL`, says that elements are canonical
/// integers rather than in Montgomery form; 2, `SCALAR`, replaces slot b by the one element in the launch's parameters. Those of
/// reductions and scans, and their parameters, are named in their sources; their elements are in Montgomery form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kernel {
    /// r = a + b
    Add,
    /// r = a - b
    Sub,
    /// r = -a
    Neg,
    /// r = a + a
    Double,
    /// r = a b
    Mul,
    /// r = a^2
    Square,
    /// r = a b + c
    MulAdd,
    /// r = a^e, e in the launch's parameters
    Pow,
    /// r = 1 / a, and 0 where a is 0
    Inverse,
    /// r = a^e with e = (p + 1) / 4 in the launch's parameters; flag c = (r^2 = a). Fq only.
    Sqrt,
    /// flag r = (a = b)
    Equal,
    /// r = the sum of a team's a
    Sum,
    /// r = the sum of a team's a b
    InnerProduct,
    /// r = 1 / a, and 0 where a is 0, many at a time
    BatchInverse,
    /// No kernel, but the functions that [`expression`](crate::expression) makes kernels of.
    Expression,
    /// The outputs r, each the sum of products of elements of a and of c: rows of a matrix times columns of another, or, sparse, a row's
    /// values times the elements that its indices in b name.
    Dot,
    /// `r[i] = a[j]` with j a function of i: affine, or i's bits reversed. One invocation moves 16 bytes.
    Move,
    /// r = the transpose of a, or its permutation by reversed bits; one workgroup moves a square of elements.
    Transpose,
    /// `r[i] = a[b[i]]`
    Gather,
    /// `r[b[i]] = a[i]`
    Scatter,
    /// r = how many of a workgroup's flags b are set
    Count,
    /// r = the sums of all that come before each of b, and at the end that of all
    Offsets,
    /// r = the elements of a whose flags b are set, then zeros; c is what [`Kernel::Offsets`] made
    Compact,
    /// number r = how many of a team's a there are up to the last one that is not zero
    Extent,
    /// r = sums of a, or all that they pass
    SumScan,
    /// r = folds of a, or all that they pass: products, linear recurrences, powers
    Scan,
    /// r = a ^ b, bit by bit: what moving the operands takes. This one and those that follow only measure; the steps are the
    /// launch's parameter.
    Xor,
    /// x, y = a, b; in each step x, y = x y, x; r = x
    MulChain,
    /// x = a; in each step x = x^2; r = x
    SquareChain,
    /// x, y, u, v = a, b, b, a; in each step x, y, u, v = x y + u v, x, y, u; r = x
    Mul2Chain,
    /// Wide integer multiply-adds, 64 a step.
    WideRate,
    /// Fused multiply-adds of doubles, 64 a step.
    FmaRate,
}

/// The widest integers a kernel uses, and with them how it reaches its vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Width {
    /// 64-bit multiply-accumulate; vectors by 64-bit buffer device address.
    Int64,
    /// Nothing wider than 32 bits; vectors by storage buffer descriptors.
    Int32,
}

/// A compiled kernel.
#[derive(Clone, Copy)]
pub struct Shader {
    /// Its name, which is also its file's: `fq_mul_int64`.
    pub name: &'static str,
    /// The SPIR-V module, entry point `main`, for Vulkan 1.2. A multiple of four bytes, little-endian words.
    pub spirv: &'static [u8],
}

impl std::fmt::Debug for Shader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shader({}, {} bytes)", self.name, self.spirv.len())
    }
}

impl Width {
    /// Both widths.
    pub const ALL: [Width; 2] = [Width::Int64, Width::Int32];

    /// The width's name in file names.
    pub const fn name(self) -> &'static str {
        match self {
            Width::Int64 => "int64",
            Width::Int32 => "int32",
        }
    }
}

/// How the names of kernels in a width and a formulation end; `None` if there are none.
const fn suffix(width: Width, formulation: Formulation) -> Option<&'static str> {
    match (formulation, width) {
        (Formulation::Words, width) => Some(width.name()),
        (other, Width::Int64) => Some(other.name()),
        (_, Width::Int32) => None,
    }
}

macro_rules! kernels {
    ($($kernel:ident $name:literal $macro_name:literal $source:literal $([$($field:ident)+] $variants:tt)+;)+) => {
        impl Kernel {
            /// Every kernel.
            pub const ALL: &[Kernel] = &[$(Kernel::$kernel),+];

            /// The kernel's name in lower case.
            pub const fn name(self) -> &'static str {
                match self { $(Kernel::$kernel => $name),+ }
            }

            /// The file in `shaders/` that holds this kernel.
            pub const fn source(self) -> &'static str {
                match self { $(Kernel::$kernel => concat!($source, ".comp")),+ }
            }

            /// The macro that selects this kernel in its source.
            pub const fn macro_name(self) -> &'static str {
                match self { $(Kernel::$kernel => $macro_name),+ }
            }

            /// The compiled kernel for a field, a width and a formulation; `None` if there is none.
            pub fn shader(self, field: Field, width: Width, formulation: Formulation) -> Option<Shader> {
                let suffix = suffix(width, formulation)?;
                match self {
                    $(Kernel::$kernel => match field {
                        $($(Field::$field => kernels!(@of $field $name suffix $variants),)+)+
                        #[allow(unreachable_patterns, reason = "some kernels exist for both fields")]
                        _ => None,
                    }),+
                }
            }
        }
    };
    (@of $field:ident $name:literal $suffix:ident [$($variant:literal)+]) => {
        match $suffix {
            $($variant => Some(kernels!(@shader $field $name $variant)),)+
            _ => None,
        }
    };
    (@shader Fq $name:literal $width:literal) => { kernels!(@file "fq" $name $width) };
    (@shader Fr $name:literal $width:literal) => { kernels!(@file "fr" $name $width) };
    (@file $field:literal $name:literal $width:literal) => {
        Shader {
            name: concat!($field, "_", $name, "_", $width),
            #[cfg(not(feature = "compile"))]
            spirv: include_bytes!(concat!("../spirv/", $field, "_", $name, "_", $width, ".spv")),
            // The compiler must build before its output exists.
            #[cfg(feature = "compile")]
            spirv: &[],
        }
    };
}

// A row: the kernel, its name, its macro and its source; fields and their variants, as file names end. What is missing was no gain on the
// H200, which is made for doubles: inverses of 2^22 in digits, 4.9 G/s to 4.5 in words and 7.1 in doubles for Fq; for Fr in doubles 10.5 to
// 10.6 in words and 12.2 in digits, and a PLONK gate in twice the time; no product of Fr in doubles was the quickest but in scans, which signed
// words have overtaken. To the base of the curve there is what multiplies so often that conversions do not count, instead of digits: powers of Fq in digits were 0.059 G, in
// this form 0.075. Sums of two products, of which it does more as well, found no room in 4 MiB.
kernels! {
    Add "add" "KERNEL_ADD" "elementwise" [Fq Fr] ["int64" "int32"];
    Sub "sub" "KERNEL_SUB" "elementwise" [Fq Fr] ["int64" "int32"];
    Neg "neg" "KERNEL_NEG" "elementwise" [Fq Fr] ["int64" "int32"];
    Double "double" "KERNEL_DOUBLE" "elementwise" [Fq Fr] ["int64" "int32"];
    Mul "mul" "KERNEL_MUL" "elementwise" [Fq] ["int64" "int32" "digits" "doubles"] [Fr] ["int64" "int32" "digits"];
    Square "square" "KERNEL_SQUARE" "elementwise" [Fq] ["int64" "int32" "digits" "doubles"] [Fr] ["int64" "int32" "digits"];
    MulAdd "mul_add" "KERNEL_MUL_ADD" "elementwise" [Fq] ["int64" "int32" "digits" "doubles"] [Fr] ["int64" "int32" "digits"];
    Pow "pow" "KERNEL_POW" "elementwise" [Fq] ["int64" "int32" "doubles" "adic"] [Fr] ["int64" "int32" "adic"];
    Inverse "inverse" "KERNEL_INVERSE" "elementwise" [Fq Fr] ["int64" "int32"];
    Sqrt "sqrt" "KERNEL_SQRT" "elementwise" [Fq] ["int64" "int32" "doubles" "adic"];
    Equal "equal" "KERNEL_EQUAL" "elementwise" [Fq Fr] ["int64" "int32"];
    Sum "sum" "KERNEL_SUM" "reduce" [Fq Fr] ["int64" "int32"];
    BatchInverse "batch_inverse" "KERNEL_BATCH_INVERSE" "inversion" [Fq] ["int64" "int32" "doubles"] [Fr] ["int64" "int32" "digits"];
    Expression "expression" "KERNEL_EXPRESSION" "expression" [Fq] ["int64" "int32" "digits" "doubles"] [Fr] ["int64" "int32" "digits"];
    Dot "dot" "KERNEL_DOT" "dot" [Fq Fr] ["int64" "int32"];
    Move "move" "KERNEL_MOVE" "movement" [Fq Fr] ["int64" "int32"];
    Transpose "transpose" "KERNEL_TRANSPOSE" "movement" [Fq Fr] ["int64" "int32"];
    Gather "gather" "KERNEL_GATHER" "movement" [Fq Fr] ["int64" "int32"];
    Scatter "scatter" "KERNEL_SCATTER" "movement" [Fq Fr] ["int64" "int32"];
    Count "count" "KERNEL_COUNT" "compact" [Fr] ["int64" "int32"];
    Offsets "offsets" "KERNEL_OFFSETS" "compact" [Fr] ["int64" "int32"];
    Compact "compact" "KERNEL_COMPACT" "compact" [Fq Fr] ["int64" "int32"];
    InnerProduct "inner_product" "KERNEL_INNER_PRODUCT" "reduce" [Fq Fr] ["int64" "int32"];
    Extent "extent" "KERNEL_EXTENT" "reduce" [Fq Fr] ["int64" "int32"];
    SumScan "sum_scan" "KERNEL_SUM_SCAN" "scan" [Fq Fr] ["int64" "int32"];
    Scan "scan" "KERNEL_SCAN" "scan" [Fq] ["int64" "int32" "digits" "doubles"] [Fr] ["int64" "int32" "digits"];
    Xor "xor" "KERNEL_XOR" "probe" [Fq Fr] ["int64" "int32"];
    MulChain "mul_chain" "KERNEL_MUL_CHAIN" "probe" [Fq] ["int64" "doubles" "adic"] [Fr] ["int64" "digits" "adic"];
    SquareChain "square_chain" "KERNEL_SQUARE_CHAIN" "probe" [Fq] ["int64" "doubles" "adic"] [Fr] ["int64" "digits" "adic"];
    Mul2Chain "mul2_chain" "KERNEL_MUL2_CHAIN" "probe" [Fq] ["int64" "doubles"] [Fr] ["int64" "digits"];
    WideRate "wide_rate" "KERNEL_WIDE_RATE" "probe" [Fq] ["int64"];
    FmaRate "fma_rate" "KERNEL_FMA_RATE" "probe" [Fq] ["doubles"];
}

/// A compiled kernel and what it is.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    /// What it computes.
    pub kernel: Kernel,
    /// In which field.
    pub field: Field,
    /// With how wide integers.
    pub width: Width,
    /// How it multiplies.
    pub formulation: Formulation,
    /// The compiled kernel.
    pub shader: Shader,
}

/// Every compiled kernel there is.
pub fn permutations() -> impl Iterator<Item = Permutation> {
    let kernels = Kernel::ALL.iter().flat_map(|&kernel| Field::ALL.map(|field| (kernel, field)));
    kernels.flat_map(|(kernel, field)| {
        let variants = Width::ALL.into_iter().flat_map(|width| Formulation::ALL.map(|formulation| (width, formulation)));
        variants.filter_map(move |(width, formulation)| {
            let shader = kernel.shader(field, width, formulation)?;
            Some(Permutation { kernel, field, width, formulation, shader })
        })
    })
}
