//! The hashes of every shader source, of every generated text and of every compiled kernel, so that drift between the two is caught on
//! machines that have no shader compiler.

use crate::{Field, Formulation, divsteps, formulation};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// The GLSL sources, by file name.
pub const SOURCES: &[(&str, &str)] = &[
    ("compact.comp", include_str!("../shaders/compact.comp")),
    ("divsteps.glsl", include_str!("../shaders/divsteps.glsl")),
    ("dot.comp", include_str!("../shaders/dot.comp")),
    ("elementwise.comp", include_str!("../shaders/elementwise.comp")),
    ("expression.comp", include_str!("../shaders/expression.comp")),
    ("field.glsl", include_str!("../shaders/field.glsl")),
    ("inversion.comp", include_str!("../shaders/inversion.comp")),
    ("io.glsl", include_str!("../shaders/io.glsl")),
    ("movement.comp", include_str!("../shaders/movement.comp")),
    ("power.glsl", include_str!("../shaders/power.glsl")),
    ("probe.comp", include_str!("../shaders/probe.comp")),
    ("reduce.comp", include_str!("../shaders/reduce.comp")),
    ("scan.comp", include_str!("../shaders/scan.comp")),
    ("sums.glsl", include_str!("../shaders/sums.glsl")),
    ("team.glsl", include_str!("../shaders/team.glsl")),
    ("tiles.glsl", include_str!("../shaders/tiles.glsl")),
    ("words.glsl", include_str!("../shaders/words.glsl")),
    ("words_form.glsl", include_str!("../shaders/words_form.glsl")),
];

/// The macros that make a field of `shaders/field.glsl`.
pub fn field_macros(field: Field) -> Vec<(&'static str, String)> {
    vec![
        ("WORDS", (2 * field.limbs()).to_string()),
        ("MODULUS", word_array(field.modulus())),
        ("ONE", word_array(field.r())),
        ("R2", word_array(field.r2())),
        ("BITS", field.bits().to_string()),
        ("FOLD", word_array(field.fold())),
        ("RECIPROCAL", format!("{:#010x}u", field.reciprocal())),
        ("MODULUS_DIGITS", digit_array(field.modulus())),
        ("DIVSTEPS", field.divsteps().to_string()),
        ("N0", format!("{:#010x}u", field.n0())),
    ]
}

/// The text that kernels include as `formulation.glsl`.
pub fn formulation_text(field: Field, formulation: Formulation) -> String {
    let words = || include_str!("../shaders/words_form.glsl").to_owned();
    formulation::glsl(field, formulation).unwrap_or_else(words)
}

fn word_array(limbs: &[u64]) -> String {
    let words: Vec<String> =
        limbs.iter().flat_map(|&limb| [limb as u32, (limb >> 32) as u32]).map(|word| format!("{word:#010x}u")).collect();
    format!("uint[{}]({})", words.len(), words.join(", "))
}

/// Digits of 30 bits, as `shaders/divsteps.glsl` has them.
fn digit_array(limbs: &[u64]) -> String {
    let digits: Vec<String> = divsteps::digits(limbs).iter().map(|digit| format!("{digit:#010x}")).collect();
    format!("int[{}]({})", digits.len(), digits.join(", "))
}

/// The text of the file `LOCK` for the sources in this build and the given compiled kernels.
pub fn lock<'a>(compiled: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut text =
        String::from("# SHA-256 of the shader sources, the field parameters and the SPIR-V. Written by compile-kernels.\n");
    let mut line = |what: &str, name: &str, bytes: &[u8]| {
        for byte in Sha256::digest(bytes) {
            let _ = write!(text, "{byte:02x}");
        }
        let _ = writeln!(text, "  {what}/{name}");
    };
    for (name, source) in SOURCES.iter().copied() {
        line("shaders", name, source.as_bytes());
    }
    for field in Field::ALL {
        let parameters: String = field_macros(field).iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        line("parameters", field.name(), parameters.as_bytes());
    }
    for (field, formulation) in Field::ALL.into_iter().flat_map(|field| Formulation::ALL.map(|which| (field, which))) {
        let name = format!("{}_{}", field.name(), formulation.name());
        line("formulations", &name, formulation_text(field, formulation).as_bytes());
    }
    for (name, spirv) in compiled {
        line("spirv", &format!("{name}.spv"), spirv);
    }
    text
}

#[cfg(all(test, not(feature = "compile")))]
mod tests {
    use crate::{Formulation, Permutation, Width, permutations};

    #[test]
    fn sources_and_spirv_are_those_that_were_compiled_together() {
        let compiled: Vec<_> = permutations().map(|made| (made.shader.name, made.shader.spirv)).collect();
        assert_eq!(
            super::lock(compiled),
            include_str!("../LOCK"),
            "shaders changed without recompiling: run `cargo run -p field-kernels --features compile --bin compile-kernels`"
        );
    }

    #[test]
    fn no_stray_spirv() {
        let mut on_disk: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/spirv"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        on_disk.sort();
        let mut listed: Vec<String> = permutations().map(|made| format!("{}.spv", made.shader.name)).collect();
        listed.sort();
        assert_eq!(on_disk, listed);
        // What a clone and a binary may be asked to carry.
        assert!(permutations().map(|made| made.shader.spirv.len()).sum::<usize>() < 4 << 20);
    }

    /// `OpCapability` instructions of a module: opcode 17, two words, right after the five words of the header.
    fn capabilities(spirv: &[u8]) -> Vec<u32> {
        let words: Vec<u32> = spirv.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
        assert_eq!(words[0], 0x0723_0203);
        words[5..].chunks_exact(2).take_while(|pair| pair[0] == (2 << 16 | 17)).map(|pair| pair[1]).collect()
    }

    #[test]
    fn no_kernel_asks_for_more_than_its_variant_says() {
        const SHADER: u32 = 1;
        const FLOAT64: u32 = 10;
        const INT64: u32 = 11;
        const PHYSICAL_STORAGE_BUFFER_ADDRESSES: u32 = 5347;
        for Permutation { width, formulation, shader, .. } in permutations() {
            let allowed = match (width, formulation) {
                (Width::Int32, _) => &[SHADER][..],
                (Width::Int64, Formulation::Words | Formulation::Digits | Formulation::Adic) => {
                    &[SHADER, INT64, PHYSICAL_STORAGE_BUFFER_ADDRESSES]
                }
                (Width::Int64, Formulation::Doubles) => &[SHADER, FLOAT64, INT64, PHYSICAL_STORAGE_BUFFER_ADDRESSES],
            };
            let asked = capabilities(shader.spirv);
            assert!(asked.iter().all(|capability| allowed.contains(capability)), "{}: {asked:?}", shader.name);
        }
    }
}
