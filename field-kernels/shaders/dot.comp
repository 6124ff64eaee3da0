// Dot products: outputs that are each a sum of products, the entries of a product of matrices. The build defines KERNEL_DOT, and the
// macros of field.glsl and io.glsl; src/kernel.rs lists every combination.
//
// An output is shared by 2^params[0] invocations, its parts, of which each adds the products whose number leaves the part's own as
// the remainder. Of one part the outputs lie in r as they are numbered; of several, all parts of output 0, all of output 1 and so on.
// params[1] is the number of the launch's first invocation.
//
//   SPARSE = false   r = a c: params[2] rows, of params[3] products each, and params[4] columns. Invocations take outputs by tiles of
//                    2^params[5] rows and 2^params[6] columns, so that neighbours read the same rows and columns; caches do the rest.
//                    b is not read.
//   SPARSE = true    c is the vector. A value's column is in b from params[3] on; from params[4] on, unless it is 0, where in a it is,
//                    which otherwise is where its column is. If params[2] is not 0, outputs are rows taken SLICE at a time: the first
//                    values of all, the second of all and so on, so that neighbours read neighbours; b begins with where the values of
//                    each slice do and, at the end, where the last one's end, and has from params[2] on which row each is. If it is 0,
//                    outputs are rows each of which has its values together; b has from params[5] on where they begin, and end.
//
// Sums are not reduced before they are complete (see sums.glsl); so there is one formulation only, for others reduce each product. An invocation adds up fewer than 2^27 products: there are no more than 2^32
// elements, and outputs of many products have parts (src/matrix.rs).
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

#include "words.glsl"
#include "field.glsl"
#include "io.glsl"

layout(constant_id = 3) const bool SPARSE = false;
// Rows of a slice.
#define SLICE 32u

// Sparse products wait for memory.
#define COLUMNS !SPARSE
#include "sums.glsl"

void main() {
    uint at = WORKGROUP_INDEX * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    if (at >= push.count) { return; }
    at += push.params[1];
    uint parts = 1u << push.params[0], part = at & (parts - 1u), number = at >> push.params[0];
    uint row = 0u, column = 0u, first, end;
    uint columns = SPARSE ? push.params[3] : push.params[4], codes = push.params[4];
    if (SPARSE) {
        bool sliced = push.params[2] != 0u;
        uint begin = BASE_SLOT_B + (sliced ? number / SLICE : push.params[5] + number);
        first = SLOT_B.index[begin];
        end = SLOT_B.index[begin + 1u];
        if (sliced) {
            part = number % SLICE;
            parts = SLICE;
            number = SLOT_B.index[BASE_SLOT_B + push.params[2] + number];
        } else {
            number = at;
        }
    } else {
        uint across = (columns - 1u >> push.params[6]) + 1u;
        uint tile = number >> (push.params[5] + push.params[6]), inside = number & (1u << push.params[5] + push.params[6]) - 1u;
        row = (tile / across << push.params[5]) + (inside >> push.params[6]);
        column = (tile % across << push.params[6]) + (inside & (1u << push.params[6]) - 1u);
        if (row >= push.params[2] || column >= columns) { return; }
        first = 0u;
        end = push.params[3];
        number = (row * columns + column) * parts + part;
    }
    Long sum = long_zero();
    uint j = first + part, right = SPARSE && j < end ? SLOT_B.index[BASE_SLOT_B + columns + j] : j * columns + column;
    [[dont_unroll]] while (j < end) {
        uint left = SPARSE ? codes == 0u ? j : SLOT_B.index[BASE_SLOT_B + codes + j] : row * end + j;
        Fe a, c;
        LOAD(SLOT_A, left, a)
        LOAD(SLOT_C, right, c)
        j += parts;
        // The next column, while there are products to compute.
        right = SPARSE ? SLOT_B.index[BASE_SLOT_B + columns + min(j, end - 1u)] : j * columns + column;
        sum = long_add(sum, a, c);
    }
    Fe r = long_result(sum);
    STORE(SLOT_R, number, r)
}
