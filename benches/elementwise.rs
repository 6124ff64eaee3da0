//! add, mul and inverse on Fq, host to host, by every engine, verified and not. Each bench first asserts its answer.
//!
//! `cargo bench` measures; `cargo bench -- --test` runs everything once, on whatever device there is.

#![allow(clippy::expect_used, reason = "a bench that cannot run stops")]

use bls12_field_gpu::{
    Backend, Call, DeviceChoice, Field, Form, MemoryMode, Operation, Options, Outcome, Placement, Verify, oneshot,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

type Run = Box<dyn Fn(&Call) -> Outcome>;

fn engines() -> Vec<(&'static str, Run)> {
    let backend = |options: Options| -> Run {
        let backend = Backend::new(&options).expect("a backend");
        Box::new(move |call| backend.execute(call).expect("an outcome"))
    };
    let on_device = || Options::new().require_gpu(true).placement(Placement::Device);
    let gpu = |memory, verify| backend(on_device().memory(memory).verify(verify));
    let cpu = || Backend::new(&Options::new().device(DeviceChoice::Cpu)).expect("a backend");
    let one_core = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let on_one_core = cpu();
    vec![
        ("oneshot", Box::new(move |call| oneshot::execute(&on_device().verify(Verify::Off), call).expect("an outcome"))),
        ("host_memory", gpu(MemoryMode::Host, Verify::Off)),
        ("host_memory_verified", gpu(MemoryMode::Host, Verify::All)),
        ("device_local", gpu(MemoryMode::DeviceLocal, Verify::Off)),
        ("device_local_verified", gpu(MemoryMode::DeviceLocal, Verify::All)),
        ("cpu_one_core", Box::new(move |call| one_core.install(|| on_one_core.execute(call).expect("an outcome")))),
        ("cpu_all_cores", backend(Options::new().device(DeviceChoice::Cpu))),
    ]
}

/// `length` elements below the modulus, none of them zero, from a fixed seed.
fn vector(random: &mut fastrand::Rng, length: usize) -> Vec<u64> {
    let top = Field::Fq.modulus()[5];
    (0..length)
        .flat_map(|_| [(); 5].map(|()| random.u64(..)).into_iter().chain([random.u64(1..top)]).collect::<Vec<_>>())
        .collect()
}

fn elementwise(criterion: &mut Criterion) {
    let engines = engines();
    let cpu = Backend::new(&Options::new().device(DeviceChoice::Cpu)).expect("a backend");
    // Once through everything is enough for a smoke test, and a software device is slow.
    let smoke = std::env::args().any(|argument| argument == "--test");
    for operation in [Operation::Add, Operation::Mul, Operation::Inverse] {
        let mut group = criterion.benchmark_group(operation.name());
        group.sample_size(10);
        for length in [64, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 20] {
            if smoke && length > 1 << 12 {
                continue;
            }
            let mut random = fastrand::Rng::with_seed(381);
            let vectors: Vec<Vec<u64>> = (0..operation.row().vectors).map(|_| vector(&mut random, length)).collect();
            let vectors: Vec<&[u64]> = vectors.iter().map(Vec::as_slice).collect();
            let call = Call { operation, field: Field::Fq, form: Form::Canonical, vectors: &vectors, parameter: &[] };
            let expected = cpu.execute(&call).expect("an outcome").elements;
            group.throughput(Throughput::Elements(length as u64));
            for (name, run) in &engines {
                assert_eq!(run(&call).elements, expected, "{} of {length} by {name}", operation.name());
                group.bench_function(BenchmarkId::new(*name, length), |bencher| bencher.iter(|| run(black_box(&call))));
            }
        }
    }
}

criterion_group!(benches, elementwise);
criterion_main!(benches);
