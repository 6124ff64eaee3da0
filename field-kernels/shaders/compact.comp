// Compaction: the elements whose flags are set, in their order. Workgroup g has the flags from g GROUP to (g + 1) GROUP, or to the
// end. The build defines one KERNEL_*, and the macros of field.glsl and io.glsl; src/kernel.rs lists every combination.
//
//   KERNEL_COUNT    r[g] = how many of the workgroup's flags b are set
//   KERNEL_OFFSETS  one workgroup: r[g] = the sum of b[0] to b[g - 1], for g from 0 to the count of b
//   KERNEL_COMPACT  moves the workgroup's elements a whose flags b are set to r from c[g] on, where c is what KERNEL_OFFSETS made and
//                   params[1] its last place; and as many zeros as there are other flags to where they go behind all elements
//
// Of KERNEL_COMPACT params[0] is g of the launch's first workgroup. Time and addresses depend on flags, not on elements.
#version 460
#extension GL_EXT_control_flow_attributes : require
#if INT64
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#endif
#if ADDRESSES
#extension GL_EXT_buffer_reference : require
#endif
#extension GL_GOOGLE_include_directive : require

#define INDICES_IN_B
#if defined(KERNEL_COMPACT)
#define INDICES_IN_C
#else
#define MASK_IN_R
#endif

#include "io.glsl"

// Flags per workgroup.
layout(constant_id = 3) const uint GROUP = 1u;

const uint LANES = gl_WorkGroupSize.x;
shared uint sums[LANES];

// How much the invocations up to this one bring, itself included (W. D. Hillis, G. L. Steele, "Data Parallel Algorithms", CACM 29(12),
// 1986).
uint inclusive(uint brought) {
    uint lane = gl_LocalInvocationID.x;
    barrier(); // whoever still reads the last call's
    sums[lane] = brought;
    [[dont_unroll]] for (uint distance = 1u; distance < LANES; distance *= 2u) {
        barrier();
        uint before = lane >= distance ? sums[lane - distance] : 0u;
        barrier();
        sums[lane] += before;
    }
    barrier();
    return sums[lane];
}

#if defined(KERNEL_COUNT)

void main() {
    if (WORKGROUP_INDEX * GROUP >= push.count) { return; }
    uint start = WORKGROUP_INDEX * GROUP, end = min(push.count, start + GROUP), mine = 0u;
    [[dont_unroll]] for (uint i = start + gl_LocalInvocationID.x; i < end; i += LANES) {
        mine += SLOT_B.index[BASE_SLOT_B + i] != 0u ? 1u : 0u;
    }
    uint all = inclusive(mine);
    if (gl_LocalInvocationID.x == LANES - 1u) { SLOT_R.flag[BASE_SLOT_R + WORKGROUP_INDEX] = all; }
}

#elif defined(KERNEL_OFFSETS)

void main() {
    if (WORKGROUP_INDEX > 0u) { return; }
    uint before = 0u;
    [[dont_unroll]] for (uint start = 0u; start < push.count; start += LANES) {
        uint i = start + gl_LocalInvocationID.x;
        uint sum = before + inclusive(i < push.count ? SLOT_B.index[BASE_SLOT_B + i] : 0u);
        if (i < push.count) { SLOT_R.flag[BASE_SLOT_R + i + 1u] = sum; }
        before += sums[LANES - 1u];
    }
    if (gl_LocalInvocationID.x == 0u) { SLOT_R.flag[BASE_SLOT_R] = 0u; }
}

#else

// Positions in the workgroup's part: of those that are kept from the front on.
shared uint kept[GROUP];

void main() {
    if (WORKGROUP_INDEX * GROUP >= push.count) { return; }
    uint start = WORKGROUP_INDEX * GROUP, length = min(push.count - start, GROUP), lane = gl_LocalInvocationID.x;
    uint group = push.params[0] + WORKGROUP_INDEX, found = 0u;
    [[dont_unroll]] for (uint first = 0u; first < length; first += LANES) {
        uint i = first + lane;
        bool set = i < length && SLOT_B.index[BASE_SLOT_B + start + i] != 0u;
        uint rank = found + inclusive(set ? 1u : 0u);
        if (set) { kept[rank - 1u] = i; }
        found += sums[LANES - 1u];
    }
    barrier();
    uint to = SLOT_C.index[BASE_SLOT_C + group], total = SLOT_C.index[BASE_SLOT_C + push.params[1]];
    [[dont_unroll]] for (uint s = lane; s < found * uint(QUADS); s += LANES) {
        uint from = (start + kept[s / uint(QUADS)]) * uint(QUADS) + s % uint(QUADS);
        SLOT_R.quad[BASE_SLOT_R / 4u + to * uint(QUADS) + s] = SLOT_A.quad[BASE_SLOT_A / 4u + from];
    }
    uint zeros = total + group * GROUP - to;
    [[dont_unroll]] for (uint s = lane; s < (length - found) * uint(QUADS); s += LANES) {
        SLOT_R.quad[BASE_SLOT_R / 4u + zeros * uint(QUADS) + s] = uvec4(0u);
    }
}

#endif
