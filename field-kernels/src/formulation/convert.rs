//! Between the words of an element and its balanced digits.

use super::program::{Builder, Struct, Type, Value};
use super::radix::Radix;

/// `struct Fe` of shaders/field.glsl.
pub(super) const fn fe(radix: Radix) -> Struct {
    Struct { name: "Fe", member: "w", element: Type::U32, len: radix.words() }
}

/// The words of x + `constants`, as many as there are constants, from the words of x.
pub(super) fn added(b: &mut Builder, x: &[Value], constants: &[Value]) -> Vec<Value> {
    let mut carry = None;
    let mut words = Vec::new();
    for (k, &constant) in constants.iter().enumerate() {
        let mut sum = b.convert(constant, Type::U64);
        if let Some(carry) = carry {
            sum = b.add(sum, carry);
        }
        if let Some(&word) = x.get(k) {
            let word = b.convert(word, Type::U64);
            sum = b.add(word, sum);
        }
        let sum = b.named(sum, "s");
        let word = b.convert(sum, Type::U32);
        words.push(b.named(word, format!("w{k}")));
        if k + 1 < constants.len() {
            let above = b.shr(sum, 32);
            carry = Some(b.named(above, "carry"));
        }
    }
    words
}

/// The digits of 2^shift times an element, each increased by 2^(width-1): unsigned, below 2^width.
pub(super) fn digits_of_words(b: &mut Builder, words: &[Value], radix: Radix, shift: u32) -> Vec<Value> {
    let width = radix.width;
    let shifted: Vec<Value> = (0..words.len() + usize::from(shift > 0))
        .map(|k| {
            let high = words.get(k).map(|&word| if shift > 0 { b.shl(word, shift) } else { word });
            let low = k.checked_sub(1).filter(|_| shift > 0).map(|below| b.shr(words[below], 32 - shift));
            let joined = match (high, low) {
                (Some(high), Some(low)) => b.or(high, low),
                (one, other) => one.or(other).unwrap_or_else(|| b.constant(Type::U32, 0)),
            };
            if shift > 0 { b.named(joined, format!("x{k}")) } else { joined }
        })
        .collect();
    b.note("plus 2^(width - 1) in every digit, so that balanced digits are unsigned ones");
    let bias = Radix::to_words(&radix.bias(), (width as usize * radix.count).div_ceil(32));
    let bias: Vec<Value> = bias.into_iter().map(|word| b.constant(Type::U32, word)).collect();
    let sums = added(b, &shifted, &bias);
    (0..radix.count)
        .map(|j| {
            let (word, offset) = (j * width as usize / 32, j as u32 * width % 32);
            let mut field = if offset > 0 { b.shr(sums[word], offset) } else { sums[word] };
            if offset + width > 32 {
                let high = b.shl(sums[word + 1], 32 - offset);
                field = b.or(field, high);
            }
            if offset + width == 32 { field } else { b.mask(field, width) }
        })
        .collect()
}

/// The words, up to one subtraction of p, of an element between -p and 2p. `digits` are increased by 2^(width-1) each:
/// unsigned, below 2^width. `top` is the highest one, as it is, signed.
///
/// Where the highest digit is above zero, so is the element, and it is below 2p as it stands. Otherwise it is below p, since p's
/// highest digit is large, and p is added. Either way it then is between 0 and 2p.
pub(super) fn words_of_digits(b: &mut Builder, digits: &[Value], top: Value, radix: Radix) -> Vec<Value> {
    let words = radix.words();
    let packed: Vec<Value> = (0..words)
        .map(|k| {
            let mut word = None;
            for (j, &digit) in digits.iter().enumerate() {
                let at = (j as u32 * radix.width) as i32 - 32 * k as i32;
                let part = match at {
                    ..0 if at <= -(radix.width as i32) => continue,
                    ..0 => b.shr(digit, at.unsigned_abs()),
                    0 => digit,
                    1..32 => b.shl(digit, at.unsigned_abs()),
                    _ => continue,
                };
                word = Some(match word {
                    None => part,
                    Some(word) => b.or(word, part),
                });
            }
            let word = word.unwrap_or_else(|| b.constant(Type::U32, 0));
            b.named(word, format!("x{k}"))
        })
        .collect();
    b.note("all ones where the highest digit is not above zero");
    let one_less = b.add_constant(top, -1);
    let sign = b.shr(one_less, 31);
    let sign = b.convert(sign, Type::U32);
    let sign = b.named(sign, "not_positive");
    let ones = b.constant(Type::U32, u32::MAX);
    let positive = b.sub(ones, sign);
    let positive = b.named(positive, "positive");
    // Without what the digits have been increased by; with p, or without.
    let bias = radix.bias();
    let without = Radix::to_words(&-&bias, words);
    let with = Radix::to_words(&(radix.modulus() - &bias), words);
    let mut select = |(without, with): (u32, u32)| {
        let (without, with) = (b.constant(Type::U32, without), b.constant(Type::U32, with));
        let (without, with) = (b.and(positive, without), b.and(sign, with));
        b.or(without, with)
    };
    let constants: Vec<Value> = without.into_iter().zip(with).map(&mut select).collect();
    added(b, &packed, &constants)
}
