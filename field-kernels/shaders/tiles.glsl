// How a workgroup moves elements, one per invocation.
//
// Invocation i works on element i, but if each moved the quads of its own element, one load or store of a subgroup would touch every
// QUADSth quad only. With TILED, a workgroup moves the quads that it writes in their order, neighbours by neighbours, and
// exchanges them through shared memory; with TILED_INPUTS, which implies TILED, those that it reads, too. On the H200 the former is 30 instead of
// 26 G additions a second in device memory, the latter twice as many in host memory. A driver that computes on the CPU has
// to pay for the barriers and gains nothing.
//
// In place, a quad may be written by another invocation than the one that read it. It has been read by then: what is written has come through
// the tile, behind a barrier that each invocation reaches with an element computed from all that it read.
layout(constant_id = 3) const bool TILED = false;
layout(constant_id = 5) const bool TILED_INPUTS = false;
layout(constant_id = 4) const uint TILE = 1u;   // quads in the tile: QUADS times the workgroup's size, if TILED
shared uvec4 tile[TILE];

// Quads of the workgroup's elements, as moved: quad q of this invocation is quad q * size + (number in the workgroup) of them
// all, if they are exchanged; else quad q of this invocation's own element.
struct Quads { uvec4 quad[QUADS]; };

// Position of the workgroup's first element.
uint workgroup_start() { return WORKGROUP_INDEX * gl_WorkGroupSize.x; }

// Where quad q of this invocation lies in a vector.
uint quad_index(bool tiled, uint q) {
    uint local = gl_LocalInvocationID.x;
    return uint(QUADS) * workgroup_start() + (tiled ? q * gl_WorkGroupSize.x + local : uint(QUADS) * local + q);
}

// Whether there is nothing to do for this invocation, and none that waits for it at a barrier. Kernels that may write in place begin
// with asking, so that without tiles nothing is read while another invocation writes it. With tiles nobody stops: asking would make products of
// Fr a fifteenth slower on the H200.
bool is_surplus() {
    bool past = workgroup_start() + gl_LocalInvocationID.x >= push.count;
    return past && !TILED;
}

// Where it is read. Past the end that is the last quad: to choose between two addresses takes fewer instructions than between a quad and
// none. What such invocations compute is not written; so nothing comes of it if, with tiles and in place, a workgroup that has
// no elements at all reads a quad while it is being written.
uint readable_index(uint q) { return min(quad_index(TILED_INPUTS, q), uint(QUADS) * push.count - 1u); }

#define FETCH(slot, fetched)                                                                                          \
    [[unroll]] for (uint q = 0u; q < QUADS; ++q) { fetched.quad[q] = slot.quad[BASE_##slot / 4u + readable_index(q)]; }

#define PUT(slot, fetched)                                                                                            \
    [[unroll]] for (uint q = 0u; q < QUADS; ++q) {                                                                    \
        uint at = quad_index(TILED, q);                                                                               \
        if (at < uint(QUADS) * push.count) { slot.quad[BASE_##slot / 4u + at] = fetched.quad[q]; }                    \
    }

// This invocation's element, from what the workgroup fetched. All invocations of the workgroup must come here.
Fe gathered(Quads quads) {
    uint local = gl_LocalInvocationID.x;
    if (TILED_INPUTS) {
        barrier();
        [[unroll]] for (uint q = 0u; q < QUADS; ++q) { tile[q * gl_WorkGroupSize.x + local] = quads.quad[q]; }
        barrier();
        [[unroll]] for (uint q = 0u; q < QUADS; ++q) { quads.quad[q] = tile[uint(QUADS) * local + q]; }
    }
    Fe element;
    [[unroll]] for (int q = 0; q < QUADS; ++q) {
        element.w[4 * q] = quads.quad[q].x;
        element.w[4 * q + 1] = quads.quad[q].y;
        element.w[4 * q + 2] = quads.quad[q].z;
        element.w[4 * q + 3] = quads.quad[q].w;
    }
    return element;
}

// The inverse of `gathered`.
Quads scattered(Fe element) {
    uint local = gl_LocalInvocationID.x;
    Quads quads;
    [[unroll]] for (int q = 0; q < QUADS; ++q) {
        quads.quad[q] = uvec4(element.w[4 * q], element.w[4 * q + 1], element.w[4 * q + 2], element.w[4 * q + 3]);
    }
    if (TILED) {
        if (TILED_INPUTS) { barrier(); } // else nobody has used the tile
        [[unroll]] for (uint q = 0u; q < QUADS; ++q) { tile[uint(QUADS) * local + q] = quads.quad[q]; }
        barrier();
        [[unroll]] for (uint q = 0u; q < QUADS; ++q) { quads.quad[q] = tile[q * gl_WorkGroupSize.x + local]; }
    }
    return quads;
}
