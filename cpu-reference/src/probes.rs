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

/// What both of the following multiply by: a constant, since multipliers wait for operands if all of them are read from registers.
const FACTOR: u32 = 0x9e37_79b9;

/// Wide multiply-adds: s += (s mod 2^32) y, of eight sums.
pub const WIDE: Probe = |a, _, steps, r| {
    eight(
        a,
        steps,
        r,
        u64::from,
        |_, sum| u64::from(sum as u32).wrapping_mul(u64::from(FACTOR)).wrapping_add(sum),
        |sum| sum,
    );
};

/// Fused multiply-adds of doubles: s += x y, of eight sums that begin between 2^100 and 2^101, x and y of 48 bits. Rounding products
/// before they are added gives other sums.
pub const FMA: Probe = |a, _, steps, r| {
    let digit = |word: u32| f64::from(word) * 65537.0;
    let start = |word: u32| (3u128 << 99) as f64 + f64::from(word) * (1u64 << 48) as f64;
    let y = digit(FACTOR);
    eight(a, steps, r, start, |x, sum| digit(x).mul_add(y, sum), f64::to_bits);
};

fn chain<F: LimbField>([a, b]: [&[u64]; 2], steps: u32, r: &mut [u64], next: impl Fn([F; 4]) -> F) {
    let element = |limbs| F::elements(limbs)[0];
    let mut last = [element(a), element(b), element(b), element(a)];
    for _ in 0..steps {
        last = [next(last), last[0], last[1], last[2]];
    }
    r.copy_from_slice(F::limbs(&last[..1]));
}

/// Eight sums, each with a lowest limb's two words, to which the number of the sum is added: a factor, and where the sum starts.
/// They are combined in the limbs of r, in turn.
fn eight<T: Copy>(
    a: &[u64],
    steps: u32,
    r: &mut [u64],
    start: fn(u32) -> T,
    next: impl Fn(u32, T) -> T,
    bits: fn(T) -> u64,
) {
    r.fill(0);
    for index in 0..8 {
        let [factor, from] = [a[0] as u32, (a[0] >> 32) as u32].map(|word| word.wrapping_add(index));
        let mut sum = start(from);
        for _ in 0..8 * steps {
            sum = next(factor, sum);
        }
        r[index as usize % r.len()] ^= bits(sum);
    }
}
