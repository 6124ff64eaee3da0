// Inverses of many elements by Montgomery's trick (P. L. Montgomery, "Speeding the Pollard and Elliptic Curve Methods of
// Factorization", Math. Comp. 48(177), 1987, section 10.3.1): each invocation inverts the product of its elements, every STRIDE-th
// of the vector, so that neighbours read neighbours, and takes the elements out of it one by one. Three multiplications an element
// and about 40 an invocation; five passes over memory. The build defines the macros of field.glsl and io.glsl.
#version 460
#extension GL_EXT_control_flow_attributes : require
#if INT64
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#endif
#if ADDRESSES
#extension GL_EXT_buffer_reference : require
#endif
#extension GL_GOOGLE_include_directive : require

#define MASK_IN_C
// Results first hold products of the elements before them.
#define OUTPUTS_ARE_READ

#include "words.glsl"
#include "field.glsl"
#include "io.glsl"
#include "formulation.glsl"
#include "divsteps.glsl"

// The word in slot c becomes, if any a is zero, at least the complement of the lowest such position.
layout(constant_id = 1) const bool FINDS_ZEROS = false;

// The vector's elements.
#define LENGTH push.params[0]
// How many invocations are before the launch's, if it is a part. It has push.count.
#define START push.params[1]
// How many there are in all parts.
#define STRIDE push.params[2]

// Every factor is an `op_right`: with c = R / R', each multiplication leaves a factor c more than Montgomery's would. The product of
// j elements is x_j = P_j R c^j, so R^2 over that of all n is R c^-n / P_n. On the way down it is y_j = R c^-j / P_j that remains
// before element j - 1 is taken out: the inverse in Montgomery form is y_j x_(j - 1) / R', and y_(j - 1) is y_j a R / R'.
//
// What is read next is asked for before what has been read is computed with: compilers do not look ahead past a store.
void main() {
    uint number = WORKGROUP_INDEX * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    if (number >= push.count) { return; }
    uint first = START + number;
    uint mine = (LENGTH - 1u - first) / STRIDE + 1u;

    uint zero = 0u;
    Fe a, next;
    Op product = op_right(fe_one());
    LOAD(SLOT_A, first, next)
    [[dont_unroll]] for (uint j = 0u; j < mine; ++j) {
        uint index = first + j * STRIDE;
        a = next;
        uint ahead = first + min(j + 1u, mine - 1u) * STRIDE; // at the end nothing new
        LOAD(SLOT_A, ahead, next)
        Fe kept = op_kept(product);
        STORE(SLOT_R, index, kept)
        bool is_zero = fe_is_zero(a);
        zero = max(zero, is_zero ? ~index : 0u);
        product = op_mul(product, op_right(fe_select(is_zero, fe_one(), a)));
    }
    if (FINDS_ZEROS) { atomicMax(SLOT_C.flag[BASE_SLOT_C], zero); }
    Op inverse = op_right(fe_divided(fe_r2(), op_result(product)));
    Fe before, other;
    uint last = first + (mine - 1u) * STRIDE;
    LOAD(SLOT_A, last, next)
    LOAD(SLOT_R, last, other)
    [[dont_unroll]] for (uint j = mine; j-- > 0u;) {
        uint index = first + j * STRIDE;
        a = next;
        before = other;
        uint ahead = first + (max(j, 1u) - 1u) * STRIDE;
        LOAD(SLOT_A, ahead, next)
        LOAD(SLOT_R, ahead, other)
        bool is_zero = fe_is_zero(a);
        Fe r = fe_select(is_zero, fe_zero(), op_product(inverse, op_back(before)));
        STORE(SLOT_R, index, r)
        inverse = op_mul(inverse, op_right(fe_select(is_zero, fe_one(), a)));
    }
}
