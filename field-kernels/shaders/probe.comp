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
    [[dont_unroll]] for (int pass = 0; pass < 2; ++pass) {
        [[dont_unroll]] for (uint step = 0u; step < steps; ++step) {
#if defined(KERNEL_MUL_CHAIN)
            Op z = op_mul(x, y);
#else
            Op z = op_mul2(x, y, u, v);
            v = u;
            u = y;
#endif
            y = x;
            x = z;
        }
        y = op_right(fe_one());
        u = op_right(fe_zero());
        steps = 1u;
    }
#endif
    return op_result(x);
}

#elif defined(KERNEL_WIDE_RATE) || defined(KERNEL_FMA_RATE)
// Eight accumulators that do not depend on one another, so that what is waited for is the multiplier; 64 operations a step.
const int CHAINS = 8;
const int ROUNDS = 8;

#if defined(KERNEL_WIDE_RATE)
#define Number uint64_t
Number number(uint low, uint high) { return uint64_t(low) | (uint64_t(high) << 32); }
uvec2 bits(Number x) { return uvec2(uint(x), uint(x >> 32)); }
Number multiply_add(Number x, Number y) { return uint64_t(uint(x)) * uint64_t(uint(y)) + x; }
#else
#define Number double
// From 1/2 to 1, with as many significant bits as a double has: where the product is rounded by itself, it shows.
Number number(uint low, uint high) { return packDouble2x32(uvec2(low, (high & 0xfffffu) | 0x3fe00000u)); }
uvec2 bits(Number x) { return unpackDouble2x32(x); }
Number multiply_add(Number x, Number y) {
    precise double sum = fma(x, y, y);
    return sum;
}
#endif

Fe probe(Fe a, Fe b, uint steps) {
    Number factor = number(b.w[0] | 1u, b.w[1]);
    Number x[CHAINS];
    [[unroll]] for (int c = 0; c < CHAINS; ++c) { x[c] = number(a.w[0] + uint(c), a.w[1]); }
    [[dont_unroll]] for (uint step = 0u; step < steps; ++step) {
        [[unroll]] for (int round = 0; round < ROUNDS; ++round) {
            [[unroll]] for (int c = 0; c < CHAINS; ++c) { x[c] = multiply_add(x[c], factor); }
        }
    }
    Fe r;
    [[unroll]] for (int i = 0; i < WORDS; ++i) { r.w[i] = 0u; }
    [[unroll]] for (int c = 0; c < CHAINS; ++c) {
        uvec2 word = bits(x[c]);
        r.w[2 * c % WORDS] ^= word.x;
        r.w[2 * c % WORDS + 1] ^= word.y;
    }
    return r;
}
#endif

void main() {
    Quads quads_a, quads_b, quads_r;
    FETCH(SLOT_A, quads_a)
    FETCH(SLOT_B, quads_b)
#if defined(KERNEL_XOR)
    [[unroll]] for (uint q = 0u; q < QUADS; ++q) { quads_r.quad[q] = quads_a.quad[q] ^ quads_b.quad[q]; }
#else
    Fe a = gathered(quads_a);
    quads_r = scattered(probe(a, gathered(quads_b), push.params[0]));
#endif
    PUT(SLOT_R, quads_r)
}
