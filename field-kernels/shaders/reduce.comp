// Reductions: workgroup g folds the elements from g GROUP to (g + 1) GROUP, or to the end of the vectors, into r[g]. Launched again
// on its own results until there is one. The build defines one KERNEL_*, and the macros of field.glsl and io.glsl;
// src/kernel.rs lists every combination.
//
// An invocation folds every LANES-th element of its workgroup's, so that neighbours read neighbours; then the workgroup folds
// what its invocations have, in a tree through shared memory. The order is the same whatever the device does when.
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
#if defined(KERNEL_INNER_PRODUCT)
#include "formulation.glsl"
#endif

// Elements per workgroup, at least one.
layout(constant_id = 3) const uint GROUP = 1u;

// The invocations that work: all, in workgroups of any size up to 256, whose elements take 12 KiB of the 16 KiB of shared memory
// that every device has.
const uint LANES = gl_WorkGroupSize.x < 256u ? gl_WorkGroupSize.x : 256u;
shared Fe partial[LANES];

// What a fold starts from, what an element brings to it, and how two are folded into one: associative and commutative.
#if defined(KERNEL_SUM) || defined(KERNEL_INNER_PRODUCT)
Fe identity() { return fe_zero(); }
Fe fold(Fe x, Fe y) { return fe_add(x, y); }
#endif

Fe term(uint index) {
    Fe a;
    LOAD(SLOT_A, index, a)
#if defined(KERNEL_INNER_PRODUCT)
    Fe b;
    LOAD(SLOT_B, index, b)
    a = op_product(op_left(a), op_right(b));
#endif
    return a;
}

void main() {
    uint group = WORKGROUP_INDEX;
    // The whole workgroup, so that nobody waits for it below. A launch has at least one element.
    if (group > (push.count - 1u) / GROUP) { return; }
    uint end = min(push.count - group * GROUP, GROUP);
    uint lane = gl_LocalInvocationID.x;
    if (lane < LANES) {
        Fe folded = identity();
        [[dont_unroll]] for (uint offset = lane; offset < end; offset += LANES) {
            folded = fold(folded, term(group * GROUP + offset));
        }
        partial[lane] = folded;
    }
    // Each round folds the upper half of what is alive into the lower; of an odd number the middle one waits. Rounds write below
    // `kept` and read others' at or above it.
    [[dont_unroll]] for (uint alive = LANES; alive > 1u;) {
        uint kept = (alive + 1u) / 2u;
        barrier();
        if (lane + kept < alive) { partial[lane] = fold(partial[lane], partial[lane + kept]); }
        alive = kept;
    }
    if (lane == 0u) {
        Fe r = partial[0];
        STORE(SLOT_R, group, r)
    }
}
