// What kernels are measured by: chains of operations that depend on one another, which no memory holds up; a pass over memory
// with next to nothing to compute; and the two multipliers of a device by themselves. One invocation computes r[i] from a[i] and
// b[i]. The build defines one KERNEL_*, and the macros of field.glsl and io.glsl; src/kernel.rs lists every combination.
#version 460
#extension GL_EXT_control_flow_attributes : require
#if INT64
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#endif
#if ADDRESSES
#extension GL_EXT_buffer_reference : require
#endif
#extension GL_GOOGLE_include_directive : require

#include "words.glsl"
#include "field.glsl"
#include "io.glsl"
#include "tiles.glsl"

#if defined(KERNEL_MUL_CHAIN) || defined(KERNEL_SQUARE_CHAIN) || defined(KERNEL_MUL2_CHAIN)
#include "formulation.glsl"

// After so many steps, each of which needs what the one before it gave. The last step takes the result out of the formulation: a
// pass of its own, so that there is one multiplication to compile where one can serve both.
Fe probe(Fe a, Fe b, uint steps) {
    Op x = op_left(a);
    Op y = op_left(b);
    Op u = y;
    Op v = x;
#if defined(KERNEL_SQUARE_CHAIN)
    [[dont_unroll]] for (uint step = 0u; step < steps; ++step) { x = op_square(x); }
    x = op_mul(x, op_right(fe_one()));
#else
#if defined(KERNEL_MUL_CHAIN)
    // Two steps a turn, so that no operand has to be moved: of (x, y) = (x y, x), done twice, it is y that the first one changes.
    [[dont_unroll]] for (int pass = 0; pass < 2; ++pass) {
        [[dont_unroll]] for (uint step = 0u;; step += 2u) {
            y = op_mul(x, y);
            if (step + 1u >= steps) { x = y; break; }
            x = op_mul(y, x);
            if (step + 2u >= steps) { break; }
        }
        y = op_right(fe_one());
        steps = 1u;
    }
#else
    [[dont_unroll]] for (int pass = 0; pass < 2; ++pass) {
        [[dont_unroll]] for (uint step = 0u; step < steps; ++step) {
            Op z = op_mul2(x, y, u, v);
            v = u;
            u = y;
            y = x;
            x = z;
        }
        y = op_right(fe_one());
        u = op_right(fe_zero());
        steps = 1u;
    }
#endif
#endif
    return op_result(x);
}

#elif defined(KERNEL_WIDE_RATE) || defined(KERNEL_FMA_RATE)
// Eight accumulators that do not depend on one another, so that what is waited for is the multiplier; 64 operations a step. One factor is a
// constant: if all operands are read from registers, an H200 waits for those (5700 G wide multiply-adds a second, and 14000 G of doubles).
const int CHAINS = 8;
const int ROUNDS = 8;

#if defined(KERNEL_WIDE_RATE)
#define Number uint64_t
#define Factor uint
Factor factor(uint word) { return word; }
Number start(uint word) { return uint64_t(word); }
Number multiply_add(Factor x, Factor y, Number sum) { return uint64_t(uint(sum)) * uint64_t(y) + sum; }
uvec2 bits(Number x) { return uvec2(uint(x), uint(x >> 32)); }
#else
// Products of 48-bit digits are added to sums between 2^100 and 2^101: rounding a product before it is added gives another sum.
// Formulations in doubles rest on a device's not doing that, which Vulkan does not promise; the answers tell.
#define Number double
#define Factor double
Factor factor(uint word) { return double(word) * 65537.0lf; }
Number start(uint word) { return 1901475900342344102245054808064.0lf + double(word) * 281474976710656.0lf; } // 3 2^99 + word 2^48
Number multiply_add(Factor x, Factor y, Number sum) {
    precise double next = fma(x, y, sum);
    return next;
}
uvec2 bits(Number x) { return unpackDouble2x32(x); }
#endif

Fe probe(Fe a, Fe b, uint steps) {
    Factor y = factor(0x9e3779b9u);
    Factor x[CHAINS];
    Number sum[CHAINS];
    [[unroll]] for (int c = 0; c < CHAINS; ++c) {
        x[c] = factor(a.w[0] + uint(c));
        sum[c] = start(a.w[1] + uint(c));
    }
    [[dont_unroll]] for (uint step = 0u; step < steps; ++step) {
        [[unroll]] for (int round = 0; round < ROUNDS; ++round) {
            [[unroll]] for (int c = 0; c < CHAINS; ++c) { sum[c] = multiply_add(x[c], y, sum[c]); }
        }
    }
    Fe r;
    [[unroll]] for (int i = 0; i < WORDS; ++i) { r.w[i] = 0u; }
    [[unroll]] for (int c = 0; c < CHAINS; ++c) {
        uvec2 word = bits(sum[c]);
        r.w[2 * c % WORDS] ^= word.x;
        r.w[2 * c % WORDS + 1] ^= word.y;
    }
    return r;
}
#endif

// What is read before anything is measured. It should make no difference, but the driver's compiler for the H200 makes another kernel of each: with
// zeros past the end most chains are up to 2% quicker, but multiplications of Fq in doubles 1% slower.
#if defined(KERNEL_MUL_CHAIN) && WORDS == 12
#define OPERAND FETCH
#else
#define OPERAND(slot, fetched)                                                                                        \
    [[unroll]] for (uint q = 0u; q < QUADS; ++q) {                                                                    \
        uint at = quad_index(TILED, q);                                                                               \
        fetched.quad[q] = uvec4(0u);                                                                                  \
        if (at < uint(QUADS) * push.count) { fetched.quad[q] = slot.quad[BASE_##slot / 4u + at]; }                    \
    }
#endif

void main() {
    Quads quads_a, quads_b, quads_r;
    OPERAND(SLOT_A, quads_a)
    OPERAND(SLOT_B, quads_b)
#if defined(KERNEL_XOR)
    // Written where it was read: TILED_INPUTS is TILED.
    [[unroll]] for (uint q = 0u; q < QUADS; ++q) { quads_r.quad[q] = quads_a.quad[q] ^ quads_b.quad[q]; }
#else
    Fe a = gathered(quads_a);
    quads_r = scattered(probe(a, gathered(quads_b), push.params[0]));
#endif
    PUT(SLOT_R, quads_r)
}
