// Folds and scans in which the order of the elements matters, or that multiply: sums, products, and linear recurrences
// x = m x + a ("Horner"), of segments of equal length, each on its own. The build defines KERNEL_SCAN, and the macros of field.glsl and
// io.glsl; src/kernel.rs lists every combination.
//
// A segment is cut into chunks of STEPS elements. One launch folds each chunk, one invocation each; the same, again, folds those
// until there is one chunk; and back: each invocation walks through its chunk once more, from what precedes it, and writes
// what it passes. No invocation waits for one of another workgroup. Whole folds are quicker by teams: a workgroup folds STEPS elements
// for each of its invocations, neighbours next to each other, and then what these have, in a tree through shared memory.
//
// There is one loop for all of it, around one multiplication: kernels are large because of their multiplications.
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
#include "formulation.glsl"

// What x becomes in a step with element e.
const uint SUM = 0u;        // x + e
const uint PRODUCT = 1u;    // x e
const uint HORNER = 2u;     // x m + e
const uint GEOMETRIC = 3u;  // x m, whatever the elements
const uint SQUARES = 4u;    // x x, likewise
const uint POWER = 5u;      // x e, where e is 1 or the element at c + step, as the bits of the invocation's position say
layout(constant_id = 3) const uint OPERATION = SUM;

// Whether x is written at every step, or after the last.
layout(constant_id = 4) const bool SCANS = false;

// Invocations that fold together: 1, or all of a workgroup, a power of two.
layout(constant_id = 5) const uint TEAM = 1u;
shared Fe partial[TEAM];

// The launch's parameters: position of its first invocation, elements in a segment, chunks in a segment, steps of an
// invocation; which element of c is m, or the first of those that powers are made of; and
const uint CARRIED = 1u;    // x starts from b[position]
const uint STARTED = 2u;    // x starts from b[0]
const uint EXCLUSIVE = 4u;  // x is written before its step, not after
const uint REVERSED = 8u;   // from the last element of a segment to its first
#define FIRST push.params[0]
#define SEGMENT push.params[1]
#define CHUNKS push.params[2]
#define STEPS push.params[3]
#define MULTIPLIER push.params[4]
#define IS(flag) ((push.params[5] & flag) != 0u)

const bool HAS_ELEMENTS = OPERATION <= HORNER;
const bool SAME_FACTOR = OPERATION == HORNER || OPERATION == GEOMETRIC;
// Steps that need x in words.
const bool IN_WORDS = OPERATION == HORNER || OPERATION == SQUARES || SCANS;

Fe identity() { return fe_select(OPERATION == SUM || OPERATION == HORNER, fe_zero(), fe_one()); }

void main() {
    uint index = WORKGROUP_INDEX * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    uint lane = TEAM > 1u ? gl_LocalInvocationID.x : 0u;
    bool alive = index < push.count; // the others wait with their team
    uint position = FIRST + index;
    uint chunk = position / TEAM;
    uint start = chunk / CHUNKS * SEGMENT;
    uint walked = chunk % CHUNKS * STEPS * TEAM + lane; // elements of the segment that precede the next

#define IN_RANGE(offset) (alive && (offset) < SEGMENT)
#define PLACE(offset) (start + (IS(REVERSED) ? SEGMENT - 1u - (offset) : (offset)))

    Fe x = identity(), e = identity(), next = identity();
    uint step = 0u;
    if (HAS_ELEMENTS && IN_RANGE(walked)) { LOAD(SLOT_A, PLACE(walked), next) }
    if (alive && (IS(CARRIED) || IS(STARTED))) {
        uint carry = IS(CARRIED) ? position : 0u;
        LOAD(SLOT_B, carry, x)
    } else if (HAS_ELEMENTS && !SCANS) {
        // A fold begins with its first element.
        x = next;
        step = 1u;
        if (IN_RANGE(walked + TEAM)) { LOAD(SLOT_A, PLACE(walked + TEAM), next) } else { next = identity(); }
        walked += TEAM;
    }
    if (SAME_FACTOR) { LOAD(SLOT_C, MULTIPLIER, e) }

    Op factor, y;
    bool fresh = true; // x has not become y yet
    uint steps = STEPS + uint(findMSB(TEAM));
    [[dont_unroll]] for (; step < steps; ++step) {
        bool works = true;
        Fe a = next;
        if (TEAM > 1u && step >= STEPS) {
            // Each round folds the upper half of what is left into the lower.
            uint half_ = TEAM >> (step - STEPS + 1u);
            barrier();
            partial[lane] = x;
            barrier();
            works = lane < half_;
            a = partial[lane + (works ? half_ : 0u)];
        } else if (HAS_ELEMENTS) {
            // The next is on its way while this one is worked on.
            next = identity();
            if (IN_RANGE(walked + TEAM)) { LOAD(SLOT_A, PLACE(walked + TEAM), next) }
        }
        if (OPERATION == POWER) {
            a = fe_one();
            if (((position >> step) & 1u) != 0u) { LOAD(SLOT_C, MULTIPLIER + step, a) }
        }
        if (SCANS && IS(EXCLUSIVE) && IN_RANGE(walked)) { STORE(SLOT_R, PLACE(walked), x) }
        if (works) {
            if (OPERATION == SUM) {
                x = fe_add(x, a);
            } else {
                if (!SAME_FACTOR) { e = OPERATION == SQUARES ? x : a; }
                if (!SAME_FACTOR || fresh) { factor = op_left(e); }
                if (fresh || OPERATION == HORNER || OPERATION == SQUARES) { y = op_right(x); }
                fresh = false;
                y = op_mul(factor, y);
                if (IN_WORDS || step + 1u >= STEPS) { x = op_result(y); }
                if (OPERATION == HORNER) { x = fe_add(x, a); }
            }
        }
        if (SCANS && !IS(EXCLUSIVE) && IN_RANGE(walked)) { STORE(SLOT_R, PLACE(walked), x) }
        walked += TEAM;
    }
    if (!SCANS && alive && lane == 0u) { STORE(SLOT_R, chunk, x) }
}
