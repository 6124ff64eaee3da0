// Reductions in which the order does not matter: sums, sums of products, and where the last element is that is not zero; of
// segments of equal length (the last may be shorter), each on its own. Launched again on what it leaves, until there is one
// result for each segment. The build defines one KERNEL_*, and the macros of field.glsl and io.glsl; src/kernel.rs lists every
// combination.
//
// A segment is cut into chunks of STEPS elements for each invocation of a team. An invocation folds every TEAMth element of its
// chunk, so that neighbours read neighbours; then the team folds what its invocations have, in a tree through shared memory.
// The order is the same whatever the device does when.
//
// Sums are not reduced modulo p until all terms are there: STEPS of them, below p, or below p^2, have room in one word more.
#version 460
#extension GL_EXT_control_flow_attributes : require
#if INT64
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#endif
#if ADDRESSES
#extension GL_EXT_buffer_reference : require
#endif
#extension GL_GOOGLE_include_directive : require

#if defined(KERNEL_EXTENT)
#define MASK_IN_R
#endif
#include "words.glsl"
#include "field.glsl"
#include "io.glsl"

// Invocations that fold together: 1, or all of a workgroup, a power of two.
layout(constant_id = 3) const uint TEAM = 1u;
#if defined(KERNEL_INNER_PRODUCT)
// Whether caches have half of what is multiplied, or there is little of it, so that it is not memory that is waited for.
layout(constant_id = 4) const bool CACHED = false;
#define COLUMNS CACHED
#include "sums.glsl"
#endif

// The launch's parameters: position of its first invocation, elements in a segment, chunks in a segment, elements of an
// invocation, elements in all, and what else there is to know.
#define FIRST push.params[0]
#define SEGMENT push.params[1]
#define CHUNKS push.params[2]
#define STEPS push.params[3]
#define LENGTH push.params[4]
#define OPTION push.params[5]

#if defined(KERNEL_EXTENT)

// How many elements there are up to the last one that is not zero. OPTION: 1 if a holds such numbers of chunks already; 2 if
// only whether there are any is asked for.
#define Folded uint
uint fold(uint x, uint y) { return max(x, y); }
shared uint left_numbers[TEAM];
void leave(uint lane, uint x) { left_numbers[lane] = x; }
uint left_by(uint lane) { return left_numbers[lane]; }

uint folded(uint start, uint offset, uint end) {
    uint extent = 0u;
    [[dont_unroll]] for (uint at = offset; at < end; at += TEAM) {
        if ((OPTION & 1u) != 0u) {
            uint word = start + at;
            extent = max(extent, SLOT_A.quad[BASE_SLOT_A / 4u + word / 4u][word % 4u]);
        } else {
            Fe a;
            LOAD(SLOT_A, start + at, a)
            if (!fe_is_zero(a)) { extent = at + 1u; }
        }
    }
    return extent;
}

#else

#define Folded Fe
Fe fold(Fe x, Fe y) { return fe_add(x, y); }
#include "team.glsl"

#if defined(KERNEL_INNER_PRODUCT)

// OPTION: 1 if every segment of a is multiplied by the same elements of b.
Fe folded(uint start, uint offset, uint end) {
    Long sum = long_zero();
    uint other = OPTION != 0u ? 0u : start;
    [[dont_unroll]] for (uint at = offset; at < end; at += TEAM) {
        Fe a, b;
        LOAD(SLOT_A, start + at, a)
        LOAD(SLOT_B, other + at, b)
        sum = long_add(sum, a, b);
    }
    return long_result(sum);
}

#elif defined(KERNEL_SUM)

// t mod p for t below 2^24 p.
//
// RECIPROCAL is m = floor(2^(BITS + 31) / p) or one less, and h what lies above bit BITS - 8, which is below 2^32. The quotient h m / 2^39
// is no more than t / p, for h and m are rounded down; what it lacks is less than 2^(BITS - 8) / p < 2^-7 by rounding h, 2 h / 2^39 < 2^-6
// by m, and 1 by rounding it itself. So less than 2 p is left.
Fe reduced(uint t[WORDS + 1]) {
    const int SHIFT = BITS - 8 - 32 * (WORDS - 1);
    uint h = t[WORDS - 1] >> SHIFT | t[WORDS] << (32 - SHIFT), high, low;
    umulExtended(h, RECIPROCAL, high, low);
    uint q = high >> 7, carry = 0u, borrow = 0u;
    Fe r;
    [[unroll]] for (int i = 0; i < WORDS; ++i) { r.w[i] = borrowing_sub(t[i], carrying_mul_add(q, P[i], 0u, carry), borrow); }
    return fe_reduce_once(r);
}

Fe folded(uint start, uint offset, uint end) {
    uint sum[WORDS + 1];
#if INT64
    // Words are added up each in 64 bits, and carried once all are there; of two elements at a time, which are asked for together. On the
    // H200 that is 127 G elements a second; one at a time it was 123, four 114.
    uint64_t columns[WORDS];
    [[unroll]] for (int i = 0; i < WORDS; ++i) { columns[i] = 0ul; }
    [[dont_unroll]] for (uint at = offset; at < end; at += 2u * TEAM) {
        Fe a, b = fe_zero();
        LOAD(SLOT_A, start + at, a)
        if (end - at > TEAM) { LOAD(SLOT_A, start + at + TEAM, b) }
        [[unroll]] for (int i = 0; i < WORDS; ++i) { columns[i] += uint64_t(a.w[i]) + uint64_t(b.w[i]); }
    }
    uint64_t carry = 0ul;
    [[unroll]] for (int i = 0; i < WORDS; ++i) {
        carry += columns[i];
        sum[i] = uint(carry);
        carry >>= 32;
    }
    sum[WORDS] = uint(carry);
#else
    [[unroll]] for (int i = 0; i <= WORDS; ++i) { sum[i] = 0u; }
    [[dont_unroll]] for (uint at = offset; at < end; at += TEAM) {
        Fe a;
        LOAD(SLOT_A, start + at, a)
        uint carry = 0u;
        [[unroll]] for (int i = 0; i < WORDS; ++i) { sum[i] = carrying_add(sum[i], a.w[i], carry); }
        sum[WORDS] += carry;
    }
#endif
    return reduced(sum);
}

#endif
#endif

void main() {
    uint index = WORKGROUP_INDEX * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    uint lane = TEAM > 1u ? gl_LocalInvocationID.x : 0u;
    // Whole teams, so that nobody waits for it below.
    if (index >= push.count) { return; }
    uint chunk = (FIRST + index) / TEAM;
    uint start = chunk / CHUNKS * SEGMENT;
    uint before = chunk % CHUNKS * STEPS * TEAM;
    uint end = min(min(SEGMENT, LENGTH - start), before + STEPS * TEAM);
    Folded r = folded(start, before + lane, end);
    [[dont_unroll]] for (uint half_ = TEAM / 2u; half_ > 0u; half_ /= 2u) {
        // The upper half of what is left is folded into the lower one, which nobody has looked at before.
        if (lane - half_ < half_) { leave(lane, r); }
        barrier();
        if (lane < half_) { r = fold(r, left_by(lane + half_)); }
    }
#if defined(KERNEL_EXTENT)
    if (lane == 0u) { SLOT_R.flag[BASE_SLOT_R + chunk] = (OPTION & 2u) != 0u ? min(r, 1u) : r; }
#else
    if (lane == 0u) { STORE(SLOT_R, chunk, r) }
#endif
}
