//! The kernels, and the one list of their permutations.

use crate::Field;

/// A kernel: what it computes from its slots a, b, c into r.
///
/// Most are element-wise (`shaders/elementwise.comp`): one invocation computes one r. Reductions (`shaders/reduce.comp`) fold
/// the elements of one workgroup into one r, and have slots a, b and r only.
///
/// Specialization constants: 0 is the workgroup size. Of element-wise kernels 1, `CANONICAL`, says that elements are canonical
/// integers rather than in Montgomery form; 2, `SCALAR`, replaces slot b by the one element in the launch's parameters. Of
/// reductions 3, `GROUP`, is the number of elements per workgroup; elements are in Montgomery form.
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
    /// r = a^e with e = (p + 1) / 4 in the launch's parameters; flag c = (r^2 = a). Fq only.
    Sqrt,
    /// r = a R mod p
    ToMontgomery,
    /// r = a / R mod p
    FromMontgomery,
    /// flag r = (a = b)
    Equal,
    /// r = the sum of a workgroup's a
    Sum,
    /// r = the sum of a workgroup's a b
    InnerProduct,
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

macro_rules! kernels {
    ($($kernel:ident $name:literal $macro_name:literal $source:literal [$($field:ident)+];)+) => {
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

            /// The compiled kernel for a field and a width; `None` if the kernel does not exist for the field.
            pub fn shader(self, field: Field, width: Width) -> Option<Shader> {
                match (self, field, width) {
                    $($(
                        (Kernel::$kernel, Field::$field, Width::Int64) => Some(kernels!(@shader $field $name "int64")),
                        (Kernel::$kernel, Field::$field, Width::Int32) => Some(kernels!(@shader $field $name "int32")),
                    )+)+
                    #[allow(unreachable_patterns, reason = "some kernels exist for both fields")]
                    _ => None,
                }
            }
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

kernels! {
    Add "add" "KERNEL_ADD" "elementwise" [Fq Fr];
    Sub "sub" "KERNEL_SUB" "elementwise" [Fq Fr];
    Neg "neg" "KERNEL_NEG" "elementwise" [Fq Fr];
    Double "double" "KERNEL_DOUBLE" "elementwise" [Fq Fr];
    Mul "mul" "KERNEL_MUL" "elementwise" [Fq Fr];
    Square "square" "KERNEL_SQUARE" "elementwise" [Fq Fr];
    MulAdd "mul_add" "KERNEL_MUL_ADD" "elementwise" [Fq Fr];
    Pow "pow" "KERNEL_POW" "elementwise" [Fq Fr];
    Sqrt "sqrt" "KERNEL_SQRT" "elementwise" [Fq];
    ToMontgomery "to_montgomery" "KERNEL_TO_MONTGOMERY" "elementwise" [Fq Fr];
    FromMontgomery "from_montgomery" "KERNEL_FROM_MONTGOMERY" "elementwise" [Fq Fr];
    Equal "equal" "KERNEL_EQUAL" "elementwise" [Fq Fr];
    Sum "sum" "KERNEL_SUM" "reduce" [Fq Fr];
    InnerProduct "inner_product" "KERNEL_INNER_PRODUCT" "reduce" [Fq Fr];
}

/// Every compiled kernel there is.
pub fn permutations() -> impl Iterator<Item = (Kernel, Field, Width, Shader)> {
    Kernel::ALL.iter().flat_map(|&kernel| {
        Field::ALL.into_iter().flat_map(move |field| {
            Width::ALL
                .into_iter()
                .filter_map(move |width| kernel.shader(field, width).map(|shader| (kernel, field, width, shader)))
        })
    })
}
