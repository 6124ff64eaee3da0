// Prime field arithmetic on WORDS 32-bit words, least significant first. A field is parameters only, passed in by
// the build as macros and derived from the modulus p in field-kernels/src/field.rs:
//
//   WORDS     words per element; R = 2^(32 WORDS)
//   MODULUS   p                        N0   -p^-1 mod 2^32
//   ONE       R mod p                  R2   R^2 mod p
//   BITS      2^(BITS - 1) < p         FOLD 2^(2 BITS) mod p
//   RECIPROCAL   2^(BITS + 31) / p, rounded down, or one less
//
// Every function but those of Wide takes and returns canonical values, that is values below p. No branch and no address depends on a
// value: each runs in data-independent time as far as the device's arithmetic does.
// Needed of p, and asserted in field.rs: p is odd and its highest word is below 2^31 - 1.

struct Fe { uint w[WORDS]; };

const uint P[WORDS] = MODULUS;

Fe fe_one() { return Fe(ONE); }
Fe fe_r2() { return Fe(R2); }

Fe fe_zero() {
    Fe r;
    [[unroll]] for (int i = 0; i < WORDS; ++i) { r.w[i] = 0u; }
    return r;
}

// The integer 1 (not R mod p): multiplying by it takes a value out of Montgomery form.
Fe fe_unit() {
    Fe r;
    [[unroll]] for (int i = 0; i < WORDS; ++i) { r.w[i] = i == 0 ? 1u : 0u; }
    return r;
}

Fe fe_select(bool condition, Fe yes, Fe no) {
    Fe r;
    [[unroll]] for (int i = 0; i < WORDS; ++i) { r.w[i] = condition ? yes.w[i] : no.w[i]; }
    return r;
}

bool fe_equal(Fe a, Fe b) {
    uint difference = 0u;
    [[unroll]] for (int i = 0; i < WORDS; ++i) { difference |= a.w[i] ^ b.w[i]; }
    return difference == 0u;
}

bool fe_is_zero(Fe a) {
    uint any = 0u;
    [[unroll]] for (int i = 0; i < WORDS; ++i) { any |= a.w[i]; }
    return any == 0u;
}

// t below 2p in, t mod p out.
Fe fe_reduce_once(Fe t) {
    Fe reduced;
    uint borrow = 0u;
    [[unroll]] for (int i = 0; i < WORDS; ++i) { reduced.w[i] = borrowing_sub(t.w[i], P[i], borrow); }
    return fe_select(borrow == 0u, reduced, t);
}

Fe fe_add(Fe a, Fe b) {
    Fe sum;
    uint carry = 0u;
    [[unroll]] for (int i = 0; i < WORDS; ++i) { sum.w[i] = carrying_add(a.w[i], b.w[i], carry); }
    return fe_reduce_once(sum); // a + b < 2p < 2^(32 WORDS): no carry out
}

Fe fe_sub(Fe a, Fe b) {
    Fe difference;
    uint borrow = 0u;
    [[unroll]] for (int i = 0; i < WORDS; ++i) { difference.w[i] = borrowing_sub(a.w[i], b.w[i], borrow); }
    // Where a < b the difference has wrapped to a - b + 2^(32 WORDS): adding p wraps it back, to a - b + p.
    uint mask = 0u - borrow;
    uint carry = 0u;
    [[unroll]] for (int i = 0; i < WORDS; ++i) {
        difference.w[i] = carrying_add(difference.w[i], P[i] & mask, carry);
    }
    return difference;
}

Fe fe_neg(Fe a) {
    Fe negated;
    uint borrow = 0u;
    [[unroll]] for (int i = 0; i < WORDS; ++i) { negated.w[i] = borrowing_sub(P[i], a.w[i], borrow); }
    return fe_select(fe_is_zero(a), a, negated);
}

// The second half of a round of Montgomery multiplication: adds the multiple m p of p that clears t's lowest word, and drops that word.
// What is carried is returned: with what the first half carried it makes the highest word, which is left to the caller.
uint fe_drop_word(inout Fe t) {
    uint m = t.w[0] * N0, carry = 0u;
    carrying_mul_add(m, P[0], t.w[0], carry); // the low word is zero by the choice of m
    [[unroll]] for (int j = 1; j < WORDS; ++j) { t.w[j - 1] = carrying_mul_add(m, P[j], t.w[j], carry); }
    return carry;
}

// Montgomery product a * b / R mod p.
//
// Coarsely integrated operand scanning (C. K. Koc, T. Acar, B. S. Kaliski, "Analyzing and Comparing Montgomery
// Multiplication Algorithms", IEEE Micro 16(3), 1996): for each word of b, add a * b_i to the accumulator t, then add the
// multiple m of p that clears t's lowest word, and drop that word. 2 WORDS^2 + WORDS wide multiplications.
//
// Bound: with a, b < p, t stays below 2p at the end of every round (t' = (t + a b_i + m p) / 2^32 < (2p + 2 p (2^32 - 1)) /
// 2^32), and because p's highest word is below 2^31 - 1 the two carries of a round, high + carry, fit one word: t needs no
// word beyond WORDS between rounds. One conditional subtraction makes the result canonical.
Fe fe_mul(Fe a, Fe b) {
    Fe t;
    [[unroll]] for (int j = 0; j < WORDS; ++j) { t.w[j] = 0u; }
    [[unroll]] for (int i = 0; i < WORDS; ++i) {
        uint high = 0u;
        [[unroll]] for (int j = 0; j < WORDS; ++j) {
            t.w[j] = carrying_mul_add(a.w[j], b.w[i], t.w[j], high);
        }
        t.w[WORDS - 1] = high + fe_drop_word(t);
    }
    return fe_reduce_once(t);
}

// Integers of twice as many words and one more, for sums of products.
struct Wide { uint w[2 * WORDS + 1]; };

Wide wide_zero() {
    Wide t;
    [[unroll]] for (int i = 0; i <= 2 * WORDS; ++i) { t.w[i] = 0u; }
    return t;
}

// t + a b, if there is room for it.
Wide wide_add_product(Wide t, Fe a, Fe b) {
    uint above = 0u; // the carry into word i + WORDS
    [[unroll]] for (int i = 0; i < WORDS; ++i) {
        uint high = 0u;
        [[unroll]] for (int j = 0; j < WORDS; ++j) { t.w[i + j] = carrying_mul_add(a.w[j], b.w[i], t.w[i + j], high); }
        t.w[i + WORDS] = carrying_add(t.w[i + WORDS], high, above);
    }
    t.w[2 * WORDS] += above;
    return t;
}

// t plus the multiple of p below R p that makes it a multiple of R, which is what lies above its lower WORDS words, if there is room for
// it: (t + M p) / R in words, and a word more.
Wide wide_cleared(Wide t) {
    uint above = 0u; // the carry into word i + WORDS
    [[unroll]] for (int i = 0; i < WORDS; ++i) {
        uint m = t.w[i] * N0;
        uint high = 0u;
        [[unroll]] for (int j = 0; j < WORDS; ++j) { t.w[i + j] = carrying_mul_add(m, P[j], t.w[i + j], high); }
        t.w[i + WORDS] = carrying_add(t.w[i + WORDS], high, above);
    }
    t.w[2 * WORDS] += above;
    return t;
}

// The words of t from word WORDS on, but for the last.
Fe wide_upper(Wide t) {
    Fe r;
    [[unroll]] for (int i = 0; i < WORDS; ++i) { r.w[i] = t.w[i + WORDS]; }
    return r;
}
