// The functions that fused expressions are made of. Not a kernel: src/expression.rs replaces `main`, which here names every function
// once so that none is left out, by the calls that an expression is. Compiled without optimization, so that the functions stay
// functions; drivers inline them.
//
// Parameters are `const in`: they are passed by value.
#version 460
#extension GL_EXT_control_flow_attributes : require
#if INT64
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#endif
#if ADDRESSES
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#endif
#extension GL_GOOGLE_include_directive : require

#include "words.glsl"
#include "field.glsl"
#define EXPRESSION
#include "io.glsl"
#include "tiles.glsl"
#include "formulation.glsl"

// The quad at a position of a slot.
#if ADDRESSES
uvec4 quad_of(uint slot, uint at) { return Source(push.place[slot]).quad[at]; }
uint word_of(uint slot, uint at) { return Words(push.place[slot]).word[at]; }
#else
uvec4 quad_of(uint slot, uint at) {
    at += push.base[2u * slot] / 4u;
    if (slot == 0u) { return slot_a.quad[at]; }
    if (slot == 1u) { return slot_b.quad[at]; }
    return slot_c.quad[at];
}
uint word_of(uint slot, uint at) {
    at += push.base[2u * slot];
    uvec4 quad;
    if (slot == 0u) { quad = slot_a.quad[at / 4u]; } else if (slot == 1u) { quad = slot_b.quad[at / 4u]; } else { quad = slot_c.quad[at / 4u]; }
    return quad[at % 4u];
}
#endif

bool x_surplus() { return is_surplus(); }

// The workgroup's elements of a slot.
Quads x_fetch(const in uint slot) {
    Quads fetched;
    [[unroll]] for (uint q = 0u; q < QUADS; ++q) { fetched.quad[q] = quad_of(slot, readable_index(q)); }
    return fetched;
}

// The same of a slot of params[0] elements that is read from its element params[shift] on, around its end.
Quads x_fetch_rotated(const in uint slot, const in uint shift) {
    uint end = uint(QUADS) * push.params[0], from = uint(QUADS) * push.params[shift];
    Quads fetched;
    [[unroll]] for (uint q = 0u; q < QUADS; ++q) {
        uint at = readable_index(q);
        // Without at + from, which may not fit a word.
        at = at >= end - from ? at - (end - from) : at + from;
        fetched.quad[q] = quad_of(slot, at);
    }
    return fetched;
}

Fe x_gather(const in Quads quads) { return gathered(quads); }

// One element of a slot, for all invocations.
Fe x_broadcast(const in uint slot, const in uint at) {
    Fe element;
    [[unroll]] for (int q = 0; q < QUADS; ++q) {
        uvec4 quad = quad_of(slot, uint(QUADS) * at + uint(q));
        element.w[4 * q] = quad.x;
        element.w[4 * q + 1] = quad.y;
        element.w[4 * q + 2] = quad.z;
        element.w[4 * q + 3] = quad.w;
    }
    return element;
}

// Flag number i of a slot, for invocation i.
bool x_flag(const in uint slot) {
    uint index = workgroup_start() + gl_LocalInvocationID.x;
    return index < push.count && word_of(slot, index) != 0u;
}

Fe x_add(const in Fe a, const in Fe b) { return fe_add(a, b); }
Fe x_sub(const in Fe a, const in Fe b) { return fe_sub(a, b); }
Fe x_neg(const in Fe a) { return fe_neg(a); }
Fe x_select(const in bool condition, const in Fe yes, const in Fe no) { return fe_select(condition, yes, no); }
bool x_equal(const in Fe a, const in Fe b) { return fe_equal(a, b); }
Op x_left(const in Fe a) { return op_left(a); }
Op x_right(const in Fe a) { return op_right(a); }
Op x_root(const in Fe a) { return op_root(a); }
Op x_mul(const in Op a, const in Op b) { return op_mul(a, b); }
Op x_mul2(const in Op a, const in Op b, const in Op c, const in Op d) { return op_mul2(a, b, c, d); }
Op x_square(const in Op a) { return op_square(a); }
Fe x_result(const in Op a) { return op_result(a); }
Fe x_product(const in Op a, const in Op b) { return op_product(a, b); }

#if defined(LONG_SUMS)
Sum x_sum_zero() { return sum_zero(); }
Sum x_sum_add(const in Sum s, const in Op a, const in Op b) { return sum_add(s, a, b); }
Op x_sum_result(const in Sum s) { return sum_result(s); }
#endif

// The result, into the last slot.
void x_put(const in Fe value) {
    Quads quads = scattered(value);
    [[unroll]] for (uint q = 0u; q < QUADS; ++q) {
        uint at = quad_index(TILED, q);
        if (at < uint(QUADS) * push.count) {
#if ADDRESSES
            Sink(push.place[11]).quad[at] = quads.quad[q];
#else
            [[unroll]] for (uint i = 0u; i < 4u; ++i) { slot_r.flag[push.base[6] + 4u * at + i] = quads.quad[q][i]; }
#endif
        }
    }
}

// The same of a flag.
void x_put_flag(const in bool value) {
    uint index = workgroup_start() + gl_LocalInvocationID.x;
    if (index < push.count) {
#if ADDRESSES
        Flags(push.place[11]).flag[index] = value ? 1u : 0u;
#else
        slot_r.flag[push.base[6] + index] = value ? 1u : 0u;
#endif
    }
}

void main() {
    if (x_surplus()) { return; }
    Fe a = x_gather(x_fetch(0u)), b = x_gather(x_fetch_rotated(1u, 1u)), c = x_broadcast(2u, 0u);
    a = x_select(x_equal(a, b) && x_flag(2u), x_add(a, b), x_neg(x_sub(b, c)));
    Op x = x_mul2(x_left(a), x_right(b), x_left(c), x_right(c));
    a = x_add(x_result(x_square(x_root(c))), x_product(x_mul(x_left(b), x), x));
#if defined(LONG_SUMS)
    a = x_add(a, x_result(x_sum_result(x_sum_add(x_sum_zero(), x_left(a), x_right(b)))));
#endif
    x_put(a);
    x_put_flag(x_equal(a, b));
}
