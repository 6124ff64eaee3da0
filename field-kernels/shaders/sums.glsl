// Sums of products, which are not reduced before they are complete: WORDS^2 wide multiplications a product, and WORDS^2 + 2 WORDS a
// sum, where Montgomery products would take 2 WORDS^2 + WORDS each. To be included after field.glsl.
//
//   Long long_zero()
//   Long long_add(Long s, Fe a, Fe b)    s + a b, up to 2^27 times
//   Fe long_result(Long s)               s / R mod p
//
// There are two ways to add up; COLUMNS, a constant, says whether it is the first.
//
// Columns of 64 bits, in which halves of sums of two products are added up. Elements are taken in balanced digits of 32 bits, so that
// two products fit such a sum (see field-kernels/src/formulation/signed.rs, which does the same for single products). The fewest
// instructions, a third less than the other one, and the most registers.
//
// Bound: digits are from -2^31 up to 2^31 - 1, so products are from -(2^62 - 2^31) up to 2^62, and two of them with START in front are not
// negative and below 2^64. A column takes fewer than WORDS + 2 halves for every product: below 2^36, 2^27 times.
//
// Words, carried as they are added up: for what waits for memory most of the time, and for devices without 64-bit integers.

#if !INT64
#undef COLUMNS
#define COLUMNS false
#endif

struct Long {
    Wide words;
#if INT64
    uint64_t t[2 * WORDS];
    uint count;
#endif
};

Long long_zero() {
    Long s;
    s.words = wide_zero();
#if INT64
    [[unroll]] for (int k = 0; k < 2 * WORDS; ++k) { s.t[k] = 0ul; }
    s.count = 0u;
#endif
    return s;
}

#if INT64

const uint64_t START = 0x7fffffff00000000ul;

// In how many sums the products of a column are.
int long_sums(int column) { return (min(column, WORDS - 1) - max(0, column - WORDS + 1) + 2) / 2; }

// A carry goes into the next digit where a word, or the word with the carry into it, is 2^31 or more.
void long_digits(Fe a, out int d[WORDS]) {
    uint carry = 0u;
    [[unroll]] for (int i = 0; i < WORDS; ++i) {
        uint digit = a.w[i] + carry;
        carry = (a.w[i] | digit) >> 31;
        d[i] = int(digit);
    }
}

Long long_add_to_columns(Long s, Fe a, Fe b) {
    int x[WORDS], y[WORDS];
    long_digits(a, x);
    long_digits(b, y);
    [[unroll]] for (int k = 0; k < 2 * WORDS - 1; ++k) {
        // As many rounds for every column, or compilers may not unroll them, and keep digits in memory.
        [[unroll]] for (int n = 0; n < WORDS; n += 2) {
            int i = max(0, k - WORDS + 1) + n;
            if (i <= min(k, WORDS - 1)) {
                uint64_t sum = START + uint64_t(int64_t(x[i]) * int64_t(y[k - i]));
                if (i < min(k, WORDS - 1)) { sum += uint64_t(int64_t(x[i + 1]) * int64_t(y[k - i - 1])); }
                s.t[k] += uint64_t(uint(sum));
                s.t[k + 1] += sum >> 32;
            }
        }
    }
    s.count += 1u;
    return s;
}

// The words of columns, without what the starts have added up to.
Long long_carried(Long s) {
    int64_t carry = 0l;
    [[unroll]] for (int k = 0; k < 2 * WORDS; ++k) {
        int64_t column = int64_t(s.t[k]) + carry;
        if (k > 0) { column -= int64_t(s.count) * int64_t(uint64_t(long_sums(k - 1)) * (START >> 32)); }
        s.words.w[k] = uint(column);
        carry = column >> 32;
    }
    s.words.w[2 * WORDS] = uint(carry);
    return s;
}

#endif

Long long_add(Long s, Fe a, Fe b) {
#if INT64
    if (COLUMNS) { return long_add_to_columns(s, a, b); }
#endif
    s.words = wide_add_product(s.words, a, b);
    return s;
}

// Bound: p < 2^BITS, so what lies above bit 2 BITS of a sum of less than 2^32 products fits a word, h. FOLD = 2^(2 BITS) mod p; with h FOLD
// in its stead t is below 2^(2 BITS) + 2^32 p. Montgomery reduction (wide_cleared) adds less than R p and divides by R: what is left is
// below 2^(2 BITS) / R + p and a little, less than 2p, since 2^BITS is less than R / 2 and than 2p.
Fe long_result(Long s) {
    const int SHIFT = 2 * BITS - 32 * (2 * WORDS - 1);
    const uint FOLDED[WORDS] = FOLD;
#if INT64
    if (COLUMNS) { s = long_carried(s); }
#endif
    Wide t = s.words;
    uint h = t.w[2 * WORDS - 1] >> SHIFT | t.w[2 * WORDS] << (32 - SHIFT);
    t.w[2 * WORDS - 1] &= (1u << SHIFT) - 1u;
    uint high = 0u, carry = 0u;
    [[unroll]] for (int j = 0; j < WORDS; ++j) { t.w[j] = carrying_mul_add(FOLDED[j], h, t.w[j], high); }
    t.w[WORDS] = carrying_add(t.w[WORDS], high, carry);
    [[unroll]] for (int j = WORDS + 1; j < 2 * WORDS; ++j) { t.w[j] = carrying_add(t.w[j], 0u, carry); }
    return fe_reduce_once(wide_upper(wide_cleared(t)));
}
