//! Adds two vectors, and says what device there is: `cargo run --release --example quick_start`.

use bls12_field_gpu::{Error, add_u64_limbs, backend};

fn main() -> Result<(), Error> {
    // Elements of the base field: six little-endian limbs each.
    let sum = add_u64_limbs(&[7, 0, 0, 0, 0, 0], &[35, 0, 0, 0, 0, 0])?;
    println!("7 + 35 = {}; the device for longer vectors: {}", sum[0], backend()?.engine());
    Ok(())
}
