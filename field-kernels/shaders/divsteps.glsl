// The inverse of an element by division steps: D. J. Bernstein, B.-Y. Yang, "Fast constant-time gcd computation and modular
// inversion", TCHES 2019(3), section 10, with delta from 1/2 on, as libsecp256k1 has it (P. Wuille, doc/safegcd_implementation.md,
// whose bounds these are). No branch and no address depends on the element.
//
// A division step takes (delta, f, g), f odd, to (1 - delta, g, (g - f) / 2) if delta > 0 and g is odd, else to
// (1 + delta, f, (g + (g mod 2) f) / 2). From f = p and an element g below p, DIVSTEPS of them lead to g = 0 and f = 1 or -1 (or p,
// if the element is 0): src/field.rs says why. What k steps do to f and g depends on their lowest k bits only, and is a matrix of
// integers divided by 2^k: so 30 steps are taken on single words, and their matrix is then applied to f and g, and modulo p to d
// and e, which stay multiples of them modulo p: f = d a / c, g = e a / c.
//
// Costs about 16 instructions a step, and BATCHES * DIGITS * 12 wide multiply-adds: on the H200 1.2 ns for Fq and 0.67 for Fr, as much
// as 38 and 35 multiplications; alone, 29 and 18 us. CPU twin with the bounds checked: src/divsteps.rs.

// Integers in digits of 30 bits, least significant first; all but the highest, which has the sign, are not negative.
#define DIGITS ((32 * WORDS + 29) / 30)
#define DIGIT_MASK 0x3fffffff
#define BATCHES ((DIVSTEPS + 29) / 30)

struct Digits { int d[DIGITS]; };

// Signed columns of 64 bits.
#if INT64
#define Column int64_t
Column column_zero() { return int64_t(0); }
Column column_add(Column t, int a, int b) { return t + int64_t(a) * int64_t(b); }
Column column_shift(Column t) { return t >> 30; }
int column_low(Column t) { return int(t); }
#else
struct Column { uint low; int high; };
Column column_zero() { return Column(0u, 0); }
Column column_add(Column t, int a, int b) {
    int high, low;
    uint carry;
    imulExtended(a, b, high, low);
    t.low = uaddCarry(t.low, uint(low), carry);
    t.high += high + int(carry);
    return t;
}
Column column_shift(Column t) { return Column((t.low >> 30) | (uint(t.high) << 2), t.high >> 30); }
int column_low(Column t) { return int(t.low); }
#endif

Digits to_digits(Fe a) {
    Digits r;
    [[unroll]] for (int i = 0; i < DIGITS; ++i) {
        int word = 30 * i / 32, shift = 30 * i % 32;
        uint digit = a.w[word] >> shift;
        if (shift > 2 && word + 1 < WORDS) { digit |= a.w[word + 1] << (32 - shift); }
        r.d[i] = int(digit) & DIGIT_MASK;
    }
    return r;
}

// Of digits that are not negative.
Fe from_digits(Digits a) {
    Fe r;
    [[unroll]] for (int k = 0; k < WORDS; ++k) {
        int digit = 32 * k / 30, shift = 32 * k % 30;
        r.w[k] = uint(a.d[digit]) >> shift;
        if (digit + 1 < DIGITS) { r.w[k] |= uint(a.d[digit + 1]) << (30 - shift); }
    }
    return r;
}

// The matrix of 30 steps, times 2^30: |u| + |v| and |q| + |r| are at most 2^30.
struct Matrix { int u, v, q, r; };

// 30 steps on the lowest bits of f and g. zeta is -(delta + 1/2); its magnitude stays below DIVSTEPS + 30.
Matrix divsteps(inout int zeta, int f, int g) {
    Matrix t = Matrix(1, 0, 0, 1);
    for (int step = 0; step < 30; ++step) {
        int odd = -(g & 1);
        int swap = zeta >> 31;            // -1 where delta > 0
        int sign = (swap | 1) & odd;      // of f, which is added to an odd g: -1 where they swap
        swap &= odd;
        g += sign * f;
        t.q += sign * t.u;
        t.r += sign * t.v;
        zeta = (zeta ^ swap) - 1;
        f -= swap * g;                    // f + (g - f) = g
        t.u -= swap * t.q;
        t.v -= swap * t.r;
        g >>= 1;
        t.u <<= 1;
        t.v <<= 1;
    }
    return t;
}

// (a x + b y + m p) / 2^30, where that is an integer.
//
// Bounds: f and g stay between -p and p, d and e between -2p and p. The multiple of p that makes up for negative ones leaves
// a d + b e between -2^30 p and 2^30 p; what is then subtracted is less than 2^30 p and not negative. A column is no more than
// 2^30 2^30 (of x and y together) + 2^30 2^30 (of p) + what is carried, 2^32: below 2^62.
Digits combined(int a, Digits x, int b, Digits y, int m) {
    const int p[DIGITS] = MODULUS_DIGITS;
    Digits r;
    Column t = column_zero();
    for (int i = 0; i < DIGITS; ++i) {
        t = column_add(column_add(column_add(t, a, x.d[i]), b, y.d[i]), m, p[i]);
        if (i > 0) { r.d[i - 1] = column_low(t) & DIGIT_MASK; }
        t = column_shift(t);
    }
    r.d[DIGITS - 1] = column_low(t);
    return r;
}

// The m for which (a x + b y + m p) / 2^30 is an integer, between -2p and p as x and y are.
int multiple(int a, Digits x, int b, Digits y) {
    int m = (a & (x.d[DIGITS - 1] >> 31)) + (b & (y.d[DIGITS - 1] >> 31));
    return m - ((m - int(N0) * (a * x.d[0] + b * y.d[0])) & DIGIT_MASK); // N0 is -p^-1
}

// a + (p where mask is -1), negated where negate is -1; again in digits of which only the highest may be negative.
Digits adjusted(Digits a, int mask, int negate) {
    const int p[DIGITS] = MODULUS_DIGITS;
    int carry = 0;
    [[unroll]] for (int i = 0; i < DIGITS; ++i) {
        int digit = (((a.d[i] + (p[i] & mask)) ^ negate) - negate) + carry;
        a.d[i] = i + 1 < DIGITS ? digit & DIGIT_MASK : digit;
        carry = digit >> 30;
    }
    return a;
}

// c / a modulo p as integers, canonical; 0 for a = 0. With c = R^2, a of a R is the Montgomery form of the inverse.
Fe fe_divided(Fe c, Fe a) {
    const int p[DIGITS] = MODULUS_DIGITS;
    Digits d, e = to_digits(c), f, g = to_digits(a);
    [[unroll]] for (int i = 0; i < DIGITS; ++i) {
        d.d[i] = 0;
        f.d[i] = p[i];
    }
    int zeta = -1;
    [[dont_unroll]] for (int batch = 0; batch < BATCHES; ++batch) {
        Matrix t = divsteps(zeta, f.d[0], g.d[0]);
        Digits x = combined(t.u, d, t.v, e, multiple(t.u, d, t.v, e));
        e = combined(t.q, d, t.r, e, multiple(t.q, d, t.r, e));
        d = x;
        x = combined(t.u, f, t.v, g, 0);
        g = combined(t.q, f, t.r, g, 0);
        f = x;
    }
    // d is between -2p and p: first above -p, then of the right sign, then not negative.
    d = adjusted(d, d.d[DIGITS - 1] >> 31, f.d[DIGITS - 1] >> 31);
    d = adjusted(d, d.d[DIGITS - 1] >> 31, 0);
    return from_digits(d);
}
