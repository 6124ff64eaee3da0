//! What the kernels that only measure compute, one element at a time: their answers are compared like all others.

use crate::LimbField;

/// From the limbs of a and b, after so many steps, the limbs of r.
pub type Probe = fn(a: &[u64], b: &[u64], steps: u32, r: &mut [u64]);

/// r = a ^ b, whatever the steps.
pub const XOR: Probe = |a, b, _, r| r.iter_mut().zip(a.iter().zip(b)).for_each(|(r, (a, b))| *r = a ^ b);

/// Products of the last two values: x, y = x y, x.
pub fn mul_chain<F: LimbField>() -> Probe {
    |a, b, steps, r| chain::<F>([a, b], steps, r, |[x, y, ..]| x * y)
}

/// Squares: x = x^2.
pub fn square_chain<F: LimbField>() -> Probe {
    |a, b, steps, r| chain::<F>([a, b], steps, r, |[x, ..]| x.square())
}

/// Sums of two products of the last four values.
pub fn mul2_chain<F: LimbField>() -> Probe {
    |a, b, steps, r| chain::<F>([a, b], steps, r, |[x, y, u, v]| x * y + u * v)
}

/// Wide multiply-adds: x += (x mod 2^32) f, of eight values.
pub const WIDE: Probe = |a, b, steps, r| {
    let factor = b[0] & 0xffff_ffff | 1;
    eight(a, steps, r, |x| x, |x| (x & 0xffff_ffff).wrapping_mul(factor).wrapping_add(x), |x| x);
};

/// Fused multiply-adds of doubles: x = x f + f, of eight values.
pub const FMA: Probe = |a, b, steps, r| {
    let number = |bits: u64| f64::from_bits((bits & ((1 << 52) - 1)) | (0x3fe << 52));
    let factor = number(b[0] | 1);
    eight(a, steps, r, number, |x| x.mul_add(factor, factor), f64::to_bits);
};

fn chain<F: LimbField>([a, b]: [&[u64]; 2], steps: u32, r: &mut [u64], next: impl Fn([F; 4]) -> F) {
    let element = |limbs| F::elements(limbs)[0];
    let mut last = [element(a), element(b), element(b), element(a)];
    for _ in 0..steps {
        last = [next(last), last[0], last[1], last[2]];
    }
    r.copy_from_slice(F::limbs(&last[..1]));
}

/// The values begin as a's lowest limb with 0 to 7 added to its lower word, and are combined in the limbs of r, in turn.
fn eight<T: Copy>(a: &[u64], steps: u32, r: &mut [u64], begin: fn(u64) -> T, next: impl Fn(T) -> T, end: fn(T) -> u64) {
    r.fill(0);
    for index in 0..8 {
        let low = (a[0] as u32).wrapping_add(index);
        let mut value = begin(a[0] >> 32 << 32 | u64::from(low));
        for _ in 0..8 * steps {
            value = next(value);
        }
        r[index as usize % r.len()] ^= end(value);
    }
}
