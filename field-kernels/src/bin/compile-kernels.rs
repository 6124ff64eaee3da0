//! Rebuilds `spirv/` and `LOCK` from `shaders/` with shaderc; with `--check`, changes nothing and fails if either differs.
//!
//! With `--print fq_digits` it prints the generated text of a formulation and does nothing else; with `--print
//! fq_digits_karatsuba_1`, that of a variant.

use field_kernels::formulation::{Variant, glsl_with};
use field_kernels::{Field, Formulation, Kernel, Permutation, Width, lock, permutations};
use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;

/// The text of a file in `shaders/`.
fn source(name: &str) -> Result<&'static str, String> {
    let found = lock::SOURCES.iter().find(|(file, _)| *file == name);
    found.map(|(_, text)| *text).ok_or_else(|| format!("no file {name} in shaders/"))
}

fn compile(compiler: &shaderc::Compiler, which: &Permutation) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let Permutation { kernel, field, width, formulation, shader } = *which;
    let mut options = shaderc::CompileOptions::new()?;
    options.set_target_env(shaderc::TargetEnv::Vulkan, shaderc::EnvVersion::Vulkan1_2 as u32);
    // Loops that stay loops make modules a fifth as long, which drivers unroll as well: so for devices of which there are few, and for
    // long kernels in words, of which the H200 runs none.
    let long =
        [Kernel::MulAdd, Kernel::Pow, Kernel::Sqrt, Kernel::Scan, Kernel::MulChain, Kernel::SquareChain, Kernel::Mul2Chain];
    let long = long.contains(&kernel) || field == Field::Fq && [Kernel::Mul, Kernel::Square].contains(&kernel);
    // Likewise division steps, which are as quick unrolled.
    let divides = [Kernel::Inverse, Kernel::BatchInverse].contains(&kernel);
    // The functions of expressions stay functions.
    let as_it_is =
        kernel == Kernel::Expression || width == Width::Int32 || ((long || divides) && formulation == Formulation::Words);
    options.set_optimization_level(match (as_it_is, divides) {
        (true, _) => shaderc::OptimizationLevel::Zero,
        (false, true) => shaderc::OptimizationLevel::Size,
        (false, false) => shaderc::OptimizationLevel::Performance,
    });
    options.set_include_callback(|requested, _, _, _| {
        let text = match requested {
            "formulation.glsl" => Ok(lock::formulation_text(field, formulation)),
            file => source(file).map(str::to_owned),
        };
        text.map(|content| shaderc::ResolvedInclude { resolved_name: requested.into(), content })
    });
    let wide = match width {
        Width::Int64 => "1",
        Width::Int32 => "0",
    };
    for (name, value) in lock::field_macros(field) {
        options.add_macro_definition(name, Some(&value));
    }
    for (name, value) in [(kernel.macro_name(), "1"), ("INT64", wide), ("ADDRESSES", wide)] {
        options.add_macro_definition(name, Some(value));
    }
    let artifact = compiler.compile_into_spirv(
        source(kernel.source())?,
        shaderc::ShaderKind::Compute,
        &format!("{}: {}", shader.name, kernel.source()),
        "main",
        Some(&options),
    )?;
    Ok(stripped(artifact.as_binary(), kernel == Kernel::Expression))
}

/// A module without what is for debuggers only: a third of what is not optimized. The names of functions stay if they are looked for.
fn stripped(module: &[u32], keep_functions: bool) -> Vec<u8> {
    const SOURCE: Range<u32> = 3..5;
    const NAME: u32 = 5;
    const MEMBER_NAME: u32 = 6;
    const FUNCTION: u32 = 54;
    let (header, mut rest) = module.split_at(module.len().min(5));
    let mut instructions = Vec::new();
    while let Some(first) = rest.first() {
        let (instruction, after) = rest.split_at((*first as usize >> 16).clamp(1, rest.len()));
        instructions.push(instruction);
        rest = after;
    }
    let functions = instructions.iter().filter(|instruction| instruction[0] & 0xffff == FUNCTION);
    let functions: HashSet<u32> = functions.map(|instruction| instruction[2]).collect();
    let kept = |instruction: &&&[u32]| match instruction[0] & 0xffff {
        NAME => keep_functions && functions.contains(&instruction[1]),
        opcode => opcode != MEMBER_NAME && !SOURCE.contains(&opcode),
    };
    let words = instructions.iter().filter(kept).copied().flatten();
    header.iter().chain(words).flat_map(|word| word.to_le_bytes()).collect()
}

/// The text of the formulation or variant called FIELD_NAME.
fn generated(wanted: &str) -> Result<String, String> {
    let texts = Field::ALL.into_iter().flat_map(|field| {
        let named = Formulation::ALL.into_iter().filter_map(move |one| Some((one.name().to_string(), one.variant(field)?)));
        named.chain(Variant::all(field)).map(move |(name, variant)| (format!("{}_{name}", field.name()), field, variant))
    });
    let mut names = Vec::new();
    for (name, field, variant) in texts {
        if name == wanted {
            return Ok(glsl_with(field, &variant));
        }
        names.push(name);
    }
    Err(format!("no formulation {wanted}; there are {}", names.join(", ")))
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--print");
    if let (Some(_), Some(wanted)) = (arguments.next(), arguments.next()) {
        print!("{}", generated(&wanted)?);
        return Ok(ExitCode::SUCCESS);
    }
    let check = std::env::args().any(|argument| argument == "--check");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiler = shaderc::Compiler::new()?;
    let mut compiled = Vec::new();
    for which in permutations() {
        compiled.push((which.shader.name, compile(&compiler, &which)?));
    }
    let lock_text = lock::lock(compiled.iter().map(|(name, spirv)| (*name, spirv.as_slice())));
    let mut different = 0;
    let files = compiled
        .iter()
        .map(|(name, spirv)| (root.join(format!("spirv/{name}.spv")), spirv.as_slice()))
        .chain([(root.join("LOCK"), lock_text.as_bytes())]);
    for (path, bytes) in files {
        if std::fs::read(&path).ok().as_deref() != Some(bytes) {
            different += 1;
            println!("{} {}", if check { "differs:" } else { "wrote" }, path.display());
            if !check {
                std::fs::write(&path, bytes)?;
            }
        }
    }
    let total: usize = compiled.iter().map(|(_, spirv)| spirv.len()).sum();
    println!(
        "{} kernels, {total} bytes of SPIR-V, {different} files {}",
        compiled.len(),
        if check { "differ" } else { "written" }
    );
    Ok(if check && different > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
