//! Vulkan calls that fail: at every call there is, in every class, nothing comes of it but the right answer or the right error.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use bls12_field_gpu::{CallClass, Faults, Field, Form, MemoryMode, Operation, Options, Validation, Width};
use std::collections::BTreeMap;
use support::{Case, Watched};

#[test]
fn the_layer_counts_what_lives() {
    for (width, memory) in [(Width::Int64, MemoryMode::DeviceLocal), (Width::Int32, MemoryMode::Host)] {
        let faults = Faults::default();
        let options = Options::new().width(width).memory(memory).vulkan_faults(&faults);
        let backend = Watched::validated(options, Validation::On);
        let case = Case::new(Operation::Mul, Field::Fq, Form::Canonical, 100);
        assert_eq!(case.on(&backend).unwrap().elements, case.answer().0);
        let live = faults.live();
        assert_eq!((live["Device"], live["Pipeline"], live["Semaphore"]), (1, 1, 1));
        assert!(live["Buffer"] >= 3 && live["DeviceMemory"] >= 1 && faults.memory() >= 3 * 4800);
        for class in [CallClass::Allocate, CallClass::Create, CallClass::Record, CallClass::Submit, CallClass::Wait] {
            assert!(faults.calls(class) > 0, "{class:?}");
        }
        drop(backend);
        assert_eq!((faults.live(), faults.memory()), (BTreeMap::new(), 0));
    }
}
