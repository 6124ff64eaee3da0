// The formulation in words: operands are canonical elements, 32 bits a digit, and R' = R. Every device can run it.
//
// A formulation is a way to multiply. Each has operands in digits of its own and a Montgomery radix R' of its own, and
// offers what follows; kernels that multiply include one as "formulation.glsl" and use nothing else of it.
//
//   Op                      an operand, or a product, which may be an operand again
//   Op op_left(Fe a)        a R' / R
//   Op op_right(Fe b)       b, so that op_mul(op_left(a), op_right(b)) is a b / R, the Montgomery product. And where a is x R,
//                           op_left(a) is x R': products of left operands are left operands
//   Op op_root(Fe a)        op_square(op_root(a)) is a^2 / R
//   Op op_mul(Op a, Op b)   a b / R'
//   Op op_square(Op a)      a^2 / R'
//   Op op_mul2(Op a, Op b, Op c, Op d)   (a b + c d) / R', with one reduction
//   Fe op_result(Op r)      the canonical words of a product
//   Fe op_product(Op a, Op b)   op_result(op_mul(a, b))
//   Fe op_kept(Op r)        of what op_result takes, or of op_right(Fe): as many words, to be kept in memory,
//   Op op_back(Fe a)        and the same again, or its equal modulo p

#define Op Fe
// Sums of more than two products wait for their reduction: see Sum below.
#define LONG_SUMS

Op op_left(Fe a) { return a; }
Op op_right(Fe b) { return b; }
Op op_root(Fe a) { return a; }
Fe op_result(Op r) { return r; }
Fe op_kept(Op r) { return r; }
Op op_back(Fe a) { return a; }

Op op_mul(Op a, Op b) { return fe_mul(a, b); }
Fe op_product(Op a, Op b) { return fe_mul(a, b); }

// As fe_mul, with each product of two different words once: word i times itself and times twice the words above it. WORDS (WORDS + 1) / 2 +
// WORDS^2 + WORDS wide multiplications instead of 2 WORDS^2 + WORDS.
//
// Bound: what is added up to round i, a_i being the words up to i, is a_i (2 a - a_i). So between rounds t is below 2 a + p < 3p, which for Fr
// takes one bit more than WORDS words: `above`. At the end t is (a^2 + M p) / R < p^2 / R + p, which is below 2p.
Op op_square(Op a) {
    const bool FITS = P[WORDS - 1] < 0x55555555u; // 3p < R
    Fe t, twice;
    [[unroll]] for (int j = 0; j < WORDS; ++j) {
        t.w[j] = 0u;
        twice.w[j] = (a.w[j] << 1) | (j > 0 ? a.w[j > 0 ? j - 1 : 0] >> 31 : 0u); // 2p < R
    }
    uint above = 0u;
    [[unroll]] for (int i = 0; i < WORDS; ++i) {
        uint high = 0u;
        t.w[i] = carrying_mul_add(a.w[i], a.w[i], t.w[i], high);
        [[unroll]] for (int j = i + 1; j < WORDS; ++j) {
            // The lowest of the words above begins with a zero, not with a bit of word i.
            t.w[j] = carrying_mul_add(a.w[i], j == i + 1 ? a.w[j] << 1 : twice.w[j], t.w[j], high);
        }
        uint carry = fe_drop_word(t);
        if (FITS) {
            t.w[WORDS - 1] = high + carry;
        } else {
            uint over = 0u, last = 0u;
            uint sum = carrying_add(above, high, over);
            t.w[WORDS - 1] = carrying_add(sum, carry, last);
            above = over + last;
        }
    }
    return fe_reduce_once(t);
}

// As fe_mul, with two products added to the accumulator before it is reduced: 3 WORDS^2 + WORDS wide multiplications instead of
// twice 2 WORDS^2 + WORDS.
//
// Bound: between rounds t is below a + c + p < 3p, which for Fr takes one bit more than WORDS words: `above`. At the end t is
// (a b + c d + M p) / R < 2 p^2 / R + p, which is below 2p because 2 p < R.
Op op_mul2(Op a, Op b, Op c, Op d) {
    Fe t;
    [[unroll]] for (int j = 0; j < WORDS; ++j) { t.w[j] = 0u; }
    uint above = 0u;
    [[unroll]] for (int i = 0; i < WORDS; ++i) {
        uint first = 0u, second = 0u;
        [[unroll]] for (int j = 0; j < WORDS; ++j) { t.w[j] = carrying_mul_add(a.w[j], b.w[i], t.w[j], first); }
        [[unroll]] for (int j = 0; j < WORDS; ++j) { t.w[j] = carrying_mul_add(c.w[j], d.w[i], t.w[j], second); }
        uint carry = fe_drop_word(t);
        // Together with what is above, below 2^33.
        uint over = 0u, more = 0u, last = 0u;
        uint sum = carrying_add(above, first, over);
        sum = carrying_add(sum, second, more);
        t.w[WORDS - 1] = carrying_add(sum, carry, last);
        above = over + more + last;
    }
    return fe_reduce_once(t);
}

// A sum of products that is not reduced yet: WORDS^2 wide multiplications for each product, and WORDS^2 + WORDS for all of them.
//
// Bound: k products below p^2 each, reduced, are below k p^2 / R + p, which must be below 4p: for Fr k may be 6, for Fq 29. All the
// more they fit 2 WORDS words and one.
struct Sum { Wide t; };

Sum sum_zero() { return Sum(wide_zero()); }

Sum sum_add(Sum s, Op a, Op b) { return Sum(wide_add_product(s.t, a, b)); }

Op sum_result(Sum s) {
    Wide t = wide_cleared(s.t);
    // Less 2p, if it is not below; then it is below 2p.
    Fe whole = wide_upper(t), reduced;
    uint borrow = 0u;
    [[unroll]] for (int i = 0; i < WORDS; ++i) {
        uint twice = (P[i] << 1) | (i > 0 ? P[i > 0 ? i - 1 : 0] >> 31 : 0u);
        reduced.w[i] = borrowing_sub(whole.w[i], twice, borrow);
    }
    return fe_reduce_once(fe_select(t.w[2 * WORDS] >= borrow, reduced, whole));
}
