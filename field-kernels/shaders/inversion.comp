// Inverses of many elements by Montgomery's trick (P. L. Montgomery, "Speeding the Pollard and Elliptic Curve Methods of
// Factorization", Math. Comp. 48(177), 1987, section 10.3.1): each invocation inverts the product of its elements, every push.count-th
// of the vector, so that neighbours read neighbours, and takes the elements out of it one by one. Three multiplications an element
// and about 25 an invocation; five passes over memory. The build defines the macros of field.glsl and io.glsl.
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

// push.count is the number of invocations that have elements.
#define LENGTH push.params[0]
// Position of the launch's first element in its vector.
#define START push.params[1]

// Every factor is an `op_right`: with c = R / R', each multiplication leaves a factor c more than Montgomery's would. The product of
// j elements is x_j = P_j R c^j, so R^2 over that of all n is R c^-n / P_n. On the way down it is y_j = R c^-j / P_j that remains
// before element j - 1 is taken out: the inverse in Montgomery form is y_j x_(j - 1) / R', and y_(j - 1) is y_j a R / R'.
//
// All of it is multiplications of what is kept by one element: of n elements, n on the way up and two for each on the way down, the
// second of which is kept. So there is one loop over them with one op_mul in it: each is hundreds of instructions.
void main() {
    uint first = WORKGROUP_INDEX * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    if (first >= push.count) { return; }
    uint mine = (LENGTH - 1u - first) / push.count + 1u;

    uint zero = 0u;
    bool is_zero = false;
    Fe a, before = fe_one();
    Op kept;
    [[dont_unroll]] for (uint step = 0u; step < 3u * mine; ++step) {
        bool up = step < mine;
        bool inverts = !up && ((step - mine) & 1u) == 0u;
        uint index = first + (up ? step : (3u * mine - 1u - step) / 2u) * push.count;
        if (step == mine) { before = fe_divided(fe_r2(), before); }
        if (step == 0u || step == mine) { kept = op_right(before); }
        Fe factor;
        if (up || inverts) {
            LOAD(SLOT_A, index, a)
            is_zero = fe_is_zero(a);
            a = fe_select(is_zero, fe_one(), a);
        }
        if (up) {
            zero = max(zero, is_zero ? ~(START + index) : 0u);
            STORE(SLOT_R, index, before)
        }
        factor = a;
        if (inverts) { LOAD(SLOT_R, index, factor) }
        Op product = op_mul(kept, op_right(factor));
        if (up || inverts) { before = op_result(product); }
        if (inverts) {
            before = fe_select(is_zero, fe_zero(), before);
            STORE(SLOT_R, index, before)
        } else {
            kept = product;
        }
    }
    if (FINDS_ZEROS) { atomicMax(SLOT_C.flag[BASE_SLOT_C], zero); }
}
