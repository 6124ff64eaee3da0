//! The operations on little-endian limbs: methods of [`Limbs`], and the free functions of [`fq`] and [`fr`].

use crate::call::Call;
use crate::operation::Operation;
use crate::{Backend, Error, Field, Form};

/// The operations of a backend on vectors of canonical integers, given as little-endian 64-bit limbs: six per element of Fq,
/// four per element of Fr. Made by [`Backend::fq`] and [`Backend::fr`].
///
/// The methods are those of the modules [`fq`] and [`fr`], which describe them.
///
/// ```
/// use bls12_field_gpu::{Backend, Options};
/// let backend = Backend::new(&Options::new())?;
/// let product = backend.fq().mul_u64_limbs(&[6, 0, 0, 0, 0, 0], &[7, 0, 0, 0, 0, 0])?;
/// assert_eq!(product, [42, 0, 0, 0, 0, 0]);
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Limbs<'b> {
    backend: &'b Backend,
    field: Field,
}

impl Backend {
    /// The operations on limbs of Fq.
    ///
    /// ```
    /// assert!(bls12_field_gpu::backend()?.fq().add_u64_limbs(&[], &[])?.is_empty());
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn fq(&self) -> Limbs<'_> {
        Limbs { backend: self, field: Field::Fq }
    }

    /// The operations on limbs of Fr.
    ///
    /// ```
    /// assert!(bls12_field_gpu::backend()?.fr().add_u64_limbs(&[], &[])?.is_empty());
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn fr(&self) -> Limbs<'_> {
        Limbs { backend: self, field: Field::Fr }
    }
}

impl Limbs<'_> {
    fn call<'a>(&self, operation: Operation, vectors: &'a [&'a [u64]], parameters: &[&'a [u64]]) -> Call<'a> {
        let parameter = parameters.first().copied().unwrap_or(&[]);
        Call { operation, field: self.field, form: Form::Canonical, vectors, parameter }
    }

    fn run(&self, call: &Call, elements: &mut [u64], mask: &mut [bool]) -> Result<(), Error> {
        self.backend.execute_into(call, elements, mask).map(drop)
    }
}

macro_rules! methods {
    ($($name:ident $into:ident $operation:ident ($($vector:ident)+) ($($parameter:ident)?);)+) => {
        impl Limbs<'_> {
            $(
                #[doc = concat!("See [`fq::", stringify!($name), "`].\n\n# Errors\nAs there.\n\n```\n")]
                #[doc = "let (backend, one) = (bls12_field_gpu::backend()?, [1, 0, 0, 0]);"]
                #[doc = concat!("let result = backend.fr().", stringify!($name), "(", $("&", methods!(@one $vector), ",",)+ $("&", methods!(@one $parameter),)? ")?;")]
                #[doc = concat!("assert_eq!(result, bls12_field_gpu::fr::", stringify!($name), "(", $("&", methods!(@one $vector), ",",)+ $("&", methods!(@one $parameter),)? ")?);")]
                #[doc = "# Ok::<(), bls12_field_gpu::Error>(())\n```"]
                pub fn $name(&self, $($vector: &[u64],)+ $($parameter: &[u64])?) -> Result<Vec<u64>, Error> {
                    let outcome = self.backend.execute(&self.call(Operation::$operation, &[$($vector),+], &[$($parameter)?]))?;
                    Ok(outcome.elements)
                }

                #[doc = concat!("See [`fq::", stringify!($into), "`].\n\n# Errors\nAs there.\n\n```\n")]
                #[doc = "let (backend, one, mut out) = (bls12_field_gpu::backend()?, [1, 0, 0, 0], [0; 4]);"]
                #[doc = concat!("backend.fr().", stringify!($into), "(", $("&", methods!(@one $vector), ",",)+ $("&", methods!(@one $parameter), ",",)? "&mut out)?;")]
                #[doc = concat!("assert_eq!(out.to_vec(), bls12_field_gpu::fr::", stringify!($name), "(", $("&", methods!(@one $vector), ",",)+ $("&", methods!(@one $parameter),)? ")?);")]
                #[doc = "# Ok::<(), bls12_field_gpu::Error>(())\n```"]
                pub fn $into(&self, $($vector: &[u64],)+ $($parameter: &[u64],)? out: &mut [u64]) -> Result<(), Error> {
                    self.run(&self.call(Operation::$operation, &[$($vector),+], &[$($parameter)?]), out, &mut [])
                }
            )+
        }
    };
    (@one $argument:ident) => { "one" };
}

methods! {
    add_u64_limbs add_u64_limbs_into Add (a b) ();
    sub_u64_limbs sub_u64_limbs_into Sub (a b) ();
    neg_u64_limbs neg_u64_limbs_into Neg (a) ();
    double_u64_limbs double_u64_limbs_into Double (a) ();
    mul_u64_limbs mul_u64_limbs_into Mul (a b) ();
    square_u64_limbs square_u64_limbs_into Square (a) ();
    mul_add_u64_limbs mul_add_u64_limbs_into MulAdd (a b c) ();
    add_scalar_u64_limbs add_scalar_u64_limbs_into AddScalar (a) (scalar);
    sub_scalar_u64_limbs sub_scalar_u64_limbs_into SubScalar (a) (scalar);
    scale_u64_limbs scale_u64_limbs_into Scale (a) (scalar);
    pow_u64_limbs pow_u64_limbs_into Pow (a) (exponent);
    inverse_u64_limbs inverse_u64_limbs_into Inverse (a) ();
    inverse_or_zero_u64_limbs inverse_or_zero_u64_limbs_into InverseOrZero (a) ();
    to_montgomery_u64_limbs to_montgomery_u64_limbs_into ToMontgomery (a) ();
    from_montgomery_u64_limbs from_montgomery_u64_limbs_into FromMontgomery (a) ();
}

impl Limbs<'_> {
    /// See [`fq::sqrt_u64_limbs`]; [`Error::NotAvailable`] for Fr.
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// let (roots, has_root) = bls12_field_gpu::backend()?.fq().sqrt_u64_limbs(&[1, 0, 0, 0, 0, 0])?;
    /// assert_eq!((roots[0], has_root[0]), (1, true));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn sqrt_u64_limbs(&self, a: &[u64]) -> Result<(Vec<u64>, Vec<bool>), Error> {
        let outcome = self.backend.execute(&self.call(Operation::Sqrt, &[a], &[]))?;
        Ok((outcome.elements, outcome.mask))
    }

    /// See [`fq::sqrt_u64_limbs_into`]; [`Error::NotAvailable`] for Fr.
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// let (mut roots, mut has_root) = ([0; 6], [false]);
    /// bls12_field_gpu::backend()?.fq().sqrt_u64_limbs_into(&[1, 0, 0, 0, 0, 0], &mut roots, &mut has_root)?;
    /// assert_eq!((roots[0], has_root[0]), (1, true));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn sqrt_u64_limbs_into(&self, a: &[u64], roots: &mut [u64], has_root: &mut [bool]) -> Result<(), Error> {
        self.run(&self.call(Operation::Sqrt, &[a], &[]), roots, has_root)
    }

    /// See [`fq::equal_u64_limbs`].
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// let mask = bls12_field_gpu::backend()?.fr().equal_u64_limbs(&[1, 0, 0, 0], &[1, 0, 0, 0])?;
    /// assert_eq!(mask, [true]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn equal_u64_limbs(&self, a: &[u64], b: &[u64]) -> Result<Vec<bool>, Error> {
        Ok(self.backend.execute(&self.call(Operation::Equal, &[a, b], &[]))?.mask)
    }

    /// See [`fq::equal_u64_limbs_into`].
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// let mut mask = [true];
    /// bls12_field_gpu::backend()?.fr().equal_u64_limbs_into(&[1, 0, 0, 0], &[2, 0, 0, 0], &mut mask)?;
    /// assert_eq!(mask, [false]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn equal_u64_limbs_into(&self, a: &[u64], b: &[u64], mask: &mut [bool]) -> Result<(), Error> {
        self.run(&self.call(Operation::Equal, &[a, b], &[]), &mut [], mask)
    }
}

/// The functions of a module: a function that returns its result and one that writes it into the caller's slice.
macro_rules! functions {
    ($module:ident, $limbs:literal, $one:ident; $(
        $name:ident $into:ident ($($argument:ident)+)
        $summary:literal, $cost:literal,
        $example:expr;
    )+) => { $(
        #[doc = $summary]
        ///
        #[doc = concat!("Vectors are canonical integers below the modulus, ", $limbs, " little-endian limbs per element. ", $cost)]
        ///
        /// # Errors
        /// Bad input: a vector that is not whole elements, vectors of different lengths, an element not below the modulus. Or
        /// the device fails, or what it computed is wrong ([`Error::kind`]).
        ///
        /// ```
        #[doc = concat!("use bls12_field_gpu::", stringify!($module), "::", stringify!($name), ";")]
        #[doc = $example]
        /// # Ok::<(), bls12_field_gpu::Error>(())
        /// ```
        pub fn $name($($argument: &[u64]),+) -> Result<Vec<u64>, Error> {
            crate::backend()?.$module().$name($($argument),+)
        }

        #[doc = concat!("As [`", stringify!($name), "`], into `out`, which must be as long as `a`.")]
        ///
        /// # Errors
        #[doc = concat!("As [`", stringify!($name), "`]; and [`Error::OutputLength`].")]
        ///
        /// ```
        #[doc = concat!("use bls12_field_gpu::", stringify!($module), "::", stringify!($into), ";")]
        #[doc = concat!("let one = ", $one!(1), ";")]
        #[doc = concat!("let mut out = ", $one!(0), ";")]
        #[doc = concat!(stringify!($into), "(", $("&", functions!(@one $argument), ", ",)+ "&mut out)?;")]
        #[doc = concat!("assert_eq!(out.to_vec(), bls12_field_gpu::", stringify!($module), "::", stringify!($name), "(", $("&", functions!(@one $argument), ", ",)+ ")?);")]
        /// # Ok::<(), bls12_field_gpu::Error>(())
        /// ```
        pub fn $into($($argument: &[u64],)+ out: &mut [u64]) -> Result<(), Error> {
            crate::backend()?.$module().$into($($argument,)+ out)
        }
    )+ };
    (@one $argument:ident) => { "one" };
}

macro_rules! module {
    ($(#[doc = $doc:literal])+ $module:ident, $limbs:literal, $n:ident, $p_minus_1:literal) => {
        $(#[doc = $doc])+
        pub mod $module {
            use crate::Error;

            functions! {
                $module, $limbs, $n;
                add_u64_limbs add_u64_limbs_into (a b)
                    "The sums a + b, element by element.",
                    "O(n); bound by memory.",
                    concat!("let sum = add_u64_limbs(&", $n!(7), ", &", $n!(35), ")?;\nassert_eq!(sum, ", $n!(42), ");");
                sub_u64_limbs sub_u64_limbs_into (a b)
                    "The differences a - b, element by element.",
                    "O(n); bound by memory.",
                    concat!("let difference = sub_u64_limbs(&", $n!(7), ", &", $n!(5), ")?;\nassert_eq!(difference, ", $n!(2), ");");
                neg_u64_limbs neg_u64_limbs_into (a)
                    "The negatives -a: p - a, and 0 for 0.",
                    "O(n); bound by memory.",
                    concat!("let p_minus_1 = ", $p_minus_1, ";\nassert_eq!(neg_u64_limbs(&p_minus_1)?, ", $n!(1), ");");
                double_u64_limbs double_u64_limbs_into (a)
                    "The doubles 2 a.",
                    "O(n); bound by memory.",
                    concat!("assert_eq!(double_u64_limbs(&", $n!(21), ")?, ", $n!(42), ");");
                mul_u64_limbs mul_u64_limbs_into (a b)
                    "The products a b, element by element.",
                    "O(n), two Montgomery multiplications per element.",
                    concat!("let product = mul_u64_limbs(&", $n!(6), ", &", $n!(7), ")?;\nassert_eq!(product, ", $n!(42), ");");
                square_u64_limbs square_u64_limbs_into (a)
                    "The squares a^2.",
                    "O(n), two Montgomery multiplications per element.",
                    concat!("assert_eq!(square_u64_limbs(&", $n!(12), ")?, ", $n!(144), ");");
                mul_add_u64_limbs mul_add_u64_limbs_into (a b c)
                    "a b + c, element by element.",
                    "O(n), two Montgomery multiplications per element.",
                    concat!("let result = mul_add_u64_limbs(&", $n!(6), ", &", $n!(6), ", &", $n!(6), ")?;\nassert_eq!(result, ", $n!(42), ");");
                add_scalar_u64_limbs add_scalar_u64_limbs_into (a scalar)
                    "a + s for one element s, the scalar.",
                    "O(n); bound by memory.",
                    concat!("let sum = add_scalar_u64_limbs(&", $n!(38), ", &", $n!(4), ")?;\nassert_eq!(sum, ", $n!(42), ");");
                sub_scalar_u64_limbs sub_scalar_u64_limbs_into (a scalar)
                    "a - s for one element s, the scalar.",
                    "O(n); bound by memory.",
                    concat!("let difference = sub_scalar_u64_limbs(&", $n!(44), ", &", $n!(2), ")?;\nassert_eq!(difference, ", $n!(42), ");");
                scale_u64_limbs scale_u64_limbs_into (a scalar)
                    "a s for one element s, the scalar.",
                    "O(n), two Montgomery multiplications per element.",
                    concat!("let product = scale_u64_limbs(&", $n!(14), ", &", $n!(3), ")?;\nassert_eq!(product, ", $n!(42), ");");
                pow_u64_limbs pow_u64_limbs_into (a exponent)
                    "The powers a^e for one exponent e: little-endian limbs of an integer, as many as you like (none are 0). a^0 = 1, also for a = 0.",
                    "O(n), about 1.3 multiplications per element and bit of the exponent, at most the modulus' number of bits.",
                    concat!("// An exponent of one limb.\nassert_eq!(pow_u64_limbs(&", $n!(3), ", &[5])?, ", $n!(243), ");");
                inverse_u64_limbs inverse_u64_limbs_into (a)
                    "The inverses 1 / a. A zero is [`Error::ZeroInverse`], which names it.",
                    "O(n), as long as about 40 multiplications per element (division steps); checked by one: a * a^-1 = 1.",
                    concat!(
                        "let inverse = inverse_u64_limbs(&", $n!(2), ")?;\n",
                        "assert_eq!(bls12_field_gpu::", stringify!($module), "::double_u64_limbs(&inverse)?, ", $n!(1), ");\n",
                        "let error = inverse_u64_limbs(&", $n!(0), ").unwrap_err();\n",
                        "assert!(matches!(error, bls12_field_gpu::Error::ZeroInverse { index: 0 }));"
                    );
                inverse_or_zero_u64_limbs inverse_or_zero_u64_limbs_into (a)
                    "The inverses 1 / a, and 0 where a is 0.",
                    "O(n), as long as about 40 multiplications per element (division steps); checked by one: a * a^-1 = 1.",
                    concat!("assert_eq!(inverse_or_zero_u64_limbs(&", $n!(0), ")?, ", $n!(0), ");");
                to_montgomery_u64_limbs to_montgomery_u64_limbs_into (a)
                    "a R mod p with R = 2^(64 limbs): canonical integers in, the Montgomery form that arkworks and blst keep in memory out.",
                    "O(n), one Montgomery multiplication per element.",
                    concat!(
                        "use ark_ff::AdditiveGroup as _;\n",
                        "let montgomery = to_montgomery_u64_limbs(&", $n!(0), ")?;\n",
                        "assert_eq!(montgomery, ark_bls12_381::Fq::ZERO.0.0[..", $limbs, "]);"
                    );
                from_montgomery_u64_limbs from_montgomery_u64_limbs_into (a)
                    "a / R mod p with R = 2^(64 limbs): Montgomery form in, canonical integers out.",
                    "O(n), one Montgomery multiplication per element.",
                    concat!(
                        "let montgomery = bls12_field_gpu::", stringify!($module), "::to_montgomery_u64_limbs(&", $n!(42), ")?;\n",
                        "assert_eq!(from_montgomery_u64_limbs(&montgomery)?, ", $n!(42), ");"
                    );
            }

            /// Which elements of two vectors are equal, as a mask.
            ///
            #[doc = concat!("Vectors are canonical integers below the modulus, ", $limbs, " little-endian limbs per element. O(n).")]
            ///
            /// # Errors
            /// Bad input: a vector that is not whole elements, vectors of different lengths, an element not below the modulus.
            /// Or the device fails, or what it computed is wrong ([`Error::kind`]).
            ///
            /// ```
            #[doc = concat!("let mask = bls12_field_gpu::", stringify!($module), "::equal_u64_limbs(&", $n!(3), ", &", $n!(3), ")?;")]
            /// assert_eq!(mask, [true]);
            /// # Ok::<(), bls12_field_gpu::Error>(())
            /// ```
            pub fn equal_u64_limbs(a: &[u64], b: &[u64]) -> Result<Vec<bool>, Error> {
                crate::backend()?.$module().equal_u64_limbs(a, b)
            }

            /// As [`equal_u64_limbs`], into `mask`, which must have one flag per element.
            ///
            /// # Errors
            /// As [`equal_u64_limbs`]; and [`Error::OutputLength`].
            ///
            /// ```
            /// let mut mask = [true];
            #[doc = concat!("bls12_field_gpu::", stringify!($module), "::equal_u64_limbs_into(&", $n!(3), ", &", $n!(4), ", &mut mask)?;")]
            /// assert_eq!(mask, [false]);
            /// # Ok::<(), bls12_field_gpu::Error>(())
            /// ```
            pub fn equal_u64_limbs_into(a: &[u64], b: &[u64], mask: &mut [bool]) -> Result<(), Error> {
                crate::backend()?.$module().equal_u64_limbs_into(a, b, mask)
            }

            module!(@sqrt $module);
        }
    };
    (@sqrt fr) => {};
    (@sqrt fq) => {
        /// Square roots, and a mask of which elements have one: (roots, has_root).
        ///
        /// Of the two roots r and p - r of a square, the one that is itself a square: a^((p + 1) / 4). Where an element has no
        /// root, the place holds a root of -a, which proves that there is none (p = 3 mod 4).
        ///
        /// Vectors are canonical integers below the modulus, 6 little-endian limbs per element. O(n), about 465 multiplications
        /// per element; checked by one: r^2 = a. (Which of the two
        /// roots it is, is checked in the kernel's self-test only.)
        ///
        /// # Errors
        /// Bad input: a vector that is not whole elements, an element not below the modulus. Or the device fails, or what it
        /// computed is wrong ([`Error::kind`]).
        ///
        /// ```
        /// // 16 has the roots 4 and -4, and 4 is a square itself; -1 has no root.
        /// let p_minus_1 = bls12_field_gpu::fq::neg_u64_limbs(&[1, 0, 0, 0, 0, 0])?;
        /// let (roots, has_root) = bls12_field_gpu::fq::sqrt_u64_limbs(&[&[16, 0, 0, 0, 0, 0], &p_minus_1[..]].concat())?;
        /// assert_eq!(has_root, [true, false]);
        /// assert_eq!(roots[..6], [4, 0, 0, 0, 0, 0]);
        /// # Ok::<(), bls12_field_gpu::Error>(())
        /// ```
        pub fn sqrt_u64_limbs(a: &[u64]) -> Result<(Vec<u64>, Vec<bool>), Error> {
            crate::backend()?.fq().sqrt_u64_limbs(a)
        }

        /// As [`sqrt_u64_limbs`], into `roots`, as long as `a`, and `has_root`, one flag per element.
        ///
        /// # Errors
        /// As [`sqrt_u64_limbs`]; and [`Error::OutputLength`].
        ///
        /// ```
        /// let (mut roots, mut has_root) = ([0; 6], [false]);
        /// bls12_field_gpu::fq::sqrt_u64_limbs_into(&[16, 0, 0, 0, 0, 0], &mut roots, &mut has_root)?;
        /// assert_eq!((roots, has_root), ([4, 0, 0, 0, 0, 0], [true]));
        /// # Ok::<(), bls12_field_gpu::Error>(())
        /// ```
        pub fn sqrt_u64_limbs_into(a: &[u64], roots: &mut [u64], has_root: &mut [bool]) -> Result<(), Error> {
            crate::backend()?.fq().sqrt_u64_limbs_into(a, roots, has_root)
        }
    };
}

/// A small integer as an element of Fq, in the text of an example.
macro_rules! six {
    ($value:literal) => {
        concat!("[", $value, ", 0, 0, 0, 0, 0]")
    };
}

/// A small integer as an element of Fr, in the text of an example.
macro_rules! four {
    ($value:literal) => {
        concat!("[", $value, ", 0, 0, 0]")
    };
}

module! {
    /// Operations on vectors of elements of the base field Fq, six limbs each, on the process-wide [`backend`](crate::backend).
    fq, 6, six,
    "[0xb9feffffffffaaaa, 0x1eabfffeb153ffff, 0x6730d2a0f6b0f624, 0x64774b84f38512bf, 0x4b1ba7b6434bacd7, 0x1a0111ea397fe69a]"
}

module! {
    /// Operations on vectors of elements of the scalar field Fr, four limbs each, on the process-wide [`backend`](crate::backend).
    fr, 4, four,
    "[0xffffffff00000000, 0x53bda402fffe5bfe, 0x3339d80809a1d805, 0x73eda753299d7d48]"
}
