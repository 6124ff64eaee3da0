// Movements of whole elements, as quads of 16 bytes: neighbouring invocations move neighbouring quads. The build defines one KERNEL_*,
// and the macros of field.glsl and io.glsl; src/kernel.rs lists every combination. Nothing here looks at an element.
//
//   KERNEL_MOVE       one invocation a quad of r, which begins at element params[0] of the whole result. MODE 0: element i is a[j],
//                     j = params[1] + i params[2] modulo 2^32, less params[3] if it is not below it. MODE 1: j is i with its lowest
//                     32 - params[1] bits in reverse order.
//   KERNEL_TRANSPOSE  one workgroup a square of SIDE x SIDE elements, through shared memory; the first has number params[0]. MODE 0:
//                     a has params[1] rows and params[2] columns. MODE 1: r is a with the bits of positions in reverse order, of which
//                     there are params[1], at least 2 LOG_SIDE: a square is what has the same bits between the lowest and the highest.
//   KERNEL_GATHER     one invocation a quad of r: r[i] = a[b[i]]
//   KERNEL_SCATTER    one invocation a quad of a: r[b[i]] = a[i]
#version 460
#extension GL_EXT_control_flow_attributes : require
#if INT64
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#endif
#if ADDRESSES
#extension GL_EXT_buffer_reference : require
#endif
#extension GL_GOOGLE_include_directive : require

#if defined(KERNEL_GATHER) || defined(KERNEL_SCATTER)
#define INDICES_IN_B
#endif

#include "io.glsl"

layout(constant_id = 3) const uint MODE = 0u;

#define QUAD(slot, quad_index) slot.quad[BASE_##slot / 4u + (quad_index)]

#if defined(KERNEL_TRANSPOSE)

#define LOG_SIDE 4
#define SIDE (1u << LOG_SIDE)
// Rows are an element further apart than they are long, so that a column lies in different banks. 13 KiB for Fq.
#define PITCH ((SIDE + 1u) * uint(QUADS))
shared uvec4 square[SIDE * PITCH];

void main() {
    if (WORKGROUP_INDEX >= push.count) { return; }
    uint number = push.params[0] + WORKGROUP_INDEX;
    uint rows = push.params[1], columns = push.params[2];
    uint top = 0u, left = 0u, bits = push.params[1];
    if (MODE == 0u) {
        uint across = (columns + SIDE - 1u) / SIDE;
        top = number / across * SIDE;
        left = number % across * SIDE;
    }
    // Of positions that have two parts in common beside these bits: the number's, as they are and reversed.
    uint between = number << LOG_SIDE;
    uint reversed = bitfieldReverse(number) >> (32u - bits + uint(LOG_SIDE)) & ~(SIDE - 1u);
    [[dont_unroll]] for (uint s = gl_LocalInvocationID.x; s < SIDE * SIDE * uint(QUADS); s += gl_WorkGroupSize.x) {
        uint y = s / (SIDE * uint(QUADS)), x = s / uint(QUADS) % SIDE, quad = s % uint(QUADS);
        if (MODE == 0u) {
            if (top + y < rows && left + x < columns) {
                square[y * PITCH + x * uint(QUADS) + quad] = QUAD(SLOT_A, ((top + y) * columns + left + x) * uint(QUADS) + quad);
            }
        } else {
            uint from = y << (bits - uint(LOG_SIDE)) | between | x;
            uint row = bitfieldReverse(y) >> (32 - LOG_SIDE);
            square[row * PITCH + x * uint(QUADS) + quad] = QUAD(SLOT_A, from * uint(QUADS) + quad);
        }
    }
    barrier();
    [[dont_unroll]] for (uint s = gl_LocalInvocationID.x; s < SIDE * SIDE * uint(QUADS); s += gl_WorkGroupSize.x) {
        uint x = s / (SIDE * uint(QUADS)), y = s / uint(QUADS) % SIDE, quad = s % uint(QUADS);
        if (MODE == 0u) {
            if (top + y < rows && left + x < columns) {
                QUAD(SLOT_R, ((left + x) * rows + top + y) * uint(QUADS) + quad) = square[y * PITCH + x * uint(QUADS) + quad];
            }
        } else {
            uint to = x << (bits - uint(LOG_SIDE)) | reversed | y;
            uint column = bitfieldReverse(x) >> (32 - LOG_SIDE);
            QUAD(SLOT_R, to * uint(QUADS) + quad) = square[y * PITCH + column * uint(QUADS) + quad];
        }
    }
}

#else

void main() {
    uint at = WORKGROUP_INDEX * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    if (at >= push.count) { return; }
    uint i = at / uint(QUADS), quad = at % uint(QUADS);
#if defined(KERNEL_SCATTER)
    QUAD(SLOT_R, SLOT_B.index[BASE_SLOT_B + i] * uint(QUADS) + quad) = QUAD(SLOT_A, at);
#else
#if defined(KERNEL_GATHER)
    uint from = SLOT_B.index[BASE_SLOT_B + i];
#else
    i += push.params[0];
    uint from = MODE == 0u ? push.params[1] + i * push.params[2] : bitfieldReverse(i) >> push.params[1];
    if (MODE == 0u && from >= push.params[3]) { from -= push.params[3]; }
#endif
    QUAD(SLOT_R, at) = QUAD(SLOT_A, from * uint(QUADS) + quad);
#endif
}

#endif
