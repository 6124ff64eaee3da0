//! The table of operations agrees with itself, with the errors, and with what calls return.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use bls12_field_gpu::{Error, Field, Operation, Output, TABLE};
use std::collections::HashSet;
use support::{Case, FORMS, cpu, rows};

#[test]
fn each_row_is_found_by_its_operation_and_has_a_name_of_its_own() {
    for row in &TABLE {
        assert!(std::ptr::eq(row.operation.row(), row));
        assert_eq!(row.operation.name(), row.name);
        // The name is the variant's, in the way that Rust spells functions.
        assert_eq!(row.name.replace('_', ""), format!("{:?}", row.operation).to_lowercase());
        assert!((1..=3).contains(&row.vectors));
    }
    assert_eq!(TABLE.iter().map(|row| row.name).collect::<HashSet<_>>().len(), TABLE.len());
}

#[test]
fn only_square_roots_are_missing_and_only_in_fr() {
    assert_eq!(rows().count(), 2 * TABLE.len() - 1);
    assert!(!Operation::Sqrt.row().available(Field::Fr));
    let case = Case { vectors: vec![vec![0; 4]], ..Case::new(Operation::Sqrt, Field::Fr, FORMS[0], 0) };
    assert!(matches!(case.on(&cpu()), Err(Error::NotAvailable { .. })));
}

#[test]
fn outcomes_have_the_shape_that_the_table_says() {
    let backend = cpu();
    for (row, field) in rows() {
        let outcome = Case::new(row.operation, field, FORMS[1], 5).on(&backend).unwrap();
        let (elements, flags) = match row.output {
            Output::Elements => (5, 0),
            Output::Mask => (0, 5),
            Output::ElementsAndMask => (5, 5),
        };
        assert_eq!((outcome.elements.len(), outcome.mask.len()), (elements * field.limbs(), flags), "{}", row.name);
    }
}

#[test]
fn the_form_matters_where_the_table_says_so() {
    let backend = cpu();
    for (row, field) in rows() {
        let [canonical, montgomery] = FORMS.map(|form| Case::new(row.operation, field, form, 9).on(&backend).unwrap());
        assert_eq!(canonical != montgomery, row.form_matters, "{} in {field}", row.name);
    }
}
