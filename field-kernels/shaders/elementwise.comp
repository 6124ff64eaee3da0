// Element-wise operations: one invocation computes r[i] from a[i], b[i], c[i]. The build defines one KERNEL_*, and the
// macros of field.glsl and io.glsl; src/kernel.rs lists every combination.
#version 460
#extension GL_EXT_control_flow_attributes : require
#if INT64
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#endif
#if ADDRESSES
#extension GL_EXT_buffer_reference : require
#endif
#extension GL_GOOGLE_include_directive : require

#if defined(KERNEL_EQUAL)
#define MASK_IN_R
#elif defined(KERNEL_SQRT)
#define MASK_IN_C
#endif

#include "words.glsl"
#include "field.glsl"
#include "io.glsl"
#include "tiles.glsl"
#include "formulation.glsl"

// The form the elements' bytes are in: canonical integers, or Montgomery form (a R mod p). Sums and comparisons are
// the same in both; products of canonical integers need one more multiplication, by R^2, to lose their 1/R.
layout(constant_id = 1) const bool CANONICAL = false;
// The second operand is one element, in push constants, for the whole vector.
layout(constant_id = 2) const bool SCALAR = false;

Fe params_element() {
    Fe element;
    [[unroll]] for (int i = 0; i < WORDS; ++i) { element.w[i] = push.params[i]; }
    return element;
}

#if defined(KERNEL_MUL) || defined(KERNEL_MUL_ADD)
// The product of two elements in the form the vectors are in.
Fe product(Fe a, Fe b) {
    Op x = op_left(a);
    Op y;
    if (CANONICAL) {
        x = op_mul(x, op_left(b));
        y = op_right(fe_r2());
    } else {
        y = op_right(b);
    }
    return op_product(x, y);
}
#endif

#if defined(KERNEL_SQUARE)
// The square of an element in the form the vectors are in.
Fe square(Fe a) {
    Op x;
    if (CANONICAL) { x = op_left(a); } else { x = op_root(a); }
    x = op_square(x);
    if (CANONICAL) { x = op_mul(x, op_right(fe_r2())); }
    return op_result(x);
}
#endif

#if defined(KERNEL_POW) || defined(KERNEL_SQRT)
#include "power.glsl"
#elif defined(KERNEL_INVERSE)
#include "divsteps.glsl"
#endif

#if defined(KERNEL_ADD) || defined(KERNEL_SUB) || defined(KERNEL_MUL) || defined(KERNEL_MUL_ADD) || defined(KERNEL_EQUAL)
#define TAKES_B
#endif

void main() {
    if (is_surplus()) { return; }
    // Everything is fetched before anything is waited for.
    Quads quads_a, quads_b, quads_c;
    FETCH(SLOT_A, quads_a)
#if defined(TAKES_B)
    if (!SCALAR) { FETCH(SLOT_B, quads_b) }
#endif
#if defined(KERNEL_MUL_ADD)
    FETCH(SLOT_C, quads_c)
#endif
    uint index = workgroup_start() + gl_LocalInvocationID.x;
    Fe a = gathered(quads_a);
#if defined(TAKES_B)
    Fe b;
    if (SCALAR) { b = params_element(); } else { b = gathered(quads_b); }
#endif
    Fe r;

#if defined(KERNEL_ADD)
    r = fe_add(a, b);
#elif defined(KERNEL_SUB)
    r = fe_sub(a, b);
#elif defined(KERNEL_NEG)
    r = fe_neg(a);
#elif defined(KERNEL_DOUBLE)
    r = fe_add(a, a);
#elif defined(KERNEL_MUL)
    r = product(a, b);
#elif defined(KERNEL_SQUARE)
    r = square(a);
#elif defined(KERNEL_MUL_ADD)
    r = fe_add(product(a, b), gathered(quads_c));
#elif defined(KERNEL_POW)
    r = fe_pow(a, false).value;
#elif defined(KERNEL_INVERSE)
    if (CANONICAL) { r = fe_divided(fe_unit(), a); } else { r = fe_divided(fe_r2(), a); }
#elif defined(KERNEL_SQRT)
    // For p = 3 mod 4 and e = (p + 1) / 4, r^2 is a or -a: a where a has a root.
    Power power = fe_pow(a, true);
    r = power.value;
    STORE_FLAG(SLOT_C, index, fe_equal(power.square, a))
#endif

#if defined(KERNEL_EQUAL)
    STORE_FLAG(SLOT_R, index, fe_equal(a, b))
#else
    Quads quads_r = scattered(r);
    PUT(SLOT_R, quads_r)
#endif
}
