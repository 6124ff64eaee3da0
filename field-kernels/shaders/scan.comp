// Folds and scans in which the order of the elements matters, or that multiply: sums, products, and linear recurrences x = m x
// + a ("Horner"), of segments of equal length, each on its own. The build defines one KERNEL_*, and the macros of field.glsl
// and io.glsl; src/kernel.rs lists every combination.
//
// A segment is cut into chunks of STEPS elements. One launch folds each chunk, one invocation each; the same, again, folds
// those until there is one chunk; and back: each invocation walks through its chunk once more, from what precedes it, and
// writes what it passes. No invocation waits for one of another workgroup.
//
// Invocations that walk through chunks next to each other touch, in one step, elements far apart. So each leaves what it writes in
// shared memory, and every few steps the workgroup puts that where it belongs, neighbours next to each other. Sums, which are bound by
// memory, are fetched that way, too; where there is something to multiply meanwhile, an invocation fetches its own next element.
//
// Whole products are quicker by teams: a workgroup folds STEPS elements for each of its invocations, neighbours next to each other, and
// then what these have, in a tree through shared memory.
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
#if defined(KERNEL_SCAN)
#include "formulation.glsl"
#endif

// What x becomes in a step with element e.
const uint SUM = 0u;        // x + e
const uint PRODUCT = 1u;    // x e
const uint HORNER = 2u;     // x m + e
const uint GEOMETRIC = 3u;  // x m, whatever the elements
const uint SQUARES = 4u;    // x x, likewise
const uint POWER = 5u;      // x e, where e is a power of an element, by the step's digit of the invocation's position: see DIGIT
#if defined(KERNEL_SUM_SCAN)
const uint OPERATION = SUM;
const uint TEAM = 1u;
const bool FETCHES = true;
#else
layout(constant_id = 3) const uint OPERATION = PRODUCT;
// Invocations that fold together: 1, or all of a workgroup, a power of two.
layout(constant_id = 5) const uint TEAM = 1u;
const bool FETCHES = false;
#endif

// Whether x is written at every step, or after the last.
layout(constant_id = 4) const bool SCANS = false;

// Where x starts anew besides: nowhere; where flags in c are set, each of which begins a segment, so that from the end it is behind them;
// or where the highest bit of an element is set, which is no part of it. What a chunk in which x does is folded to has that bit. Not of
// teams.
const uint NOWHERE = 0u, FLAGS = 1u, BITS_OF_ELEMENTS = 2u;
layout(constant_id = 7) const uint HEADS = NOWHERE;
const uint HIGHEST_BIT = 0x80000000u;

// Invocations that put away, and fetch, for each other: 1, or all of a workgroup. Then TEAM is 1.
layout(constant_id = 6) const uint TILE = 1u;

const bool TILED = TILE > 1u;
const bool HAS_ELEMENTS = OPERATION <= HORNER;
const bool SAME_FACTOR = OPERATION == HORNER || OPERATION == GEOMETRIC;
// Operations whose steps need x in words.
const bool IN_WORDS = OPERATION == HORNER || OPERATION == SQUARES || SCANS;

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
// Of POWER, the bits of a digit. c has, from element MULTIPLIER on, for each digit from the lowest, the powers for 1, 2 and so on up to
// 2^DIGIT - 1.
#define DIGIT (push.params[5] >> 4)

// Steps between which there is nothing to be put away.
const uint AHEAD = 4u;
const uint ROW_QUADS = AHEAD * uint(QUADS);
const uint PITCH = ROW_QUADS + 1u; // odd, so that neighbours are in different banks
shared uvec4 tile[TILE * PITCH];
shared uvec2 rows[TILE]; // where an invocation's first element is, and how many it has

// Of an invocation's elements, the first of which is element `first`, the one of this step.
uint place(uint first, uint step) { return TEAM == 1u && IS(REVERSED) ? first - step : first + step; }

// Puts away what was made in the steps before this one, and fetches what is needed from this step on.
void turn(uint step) {
    uint done = (step + AHEAD - 1u) / AHEAD * AHEAD - AHEAD; // the first of the steps that are put away
    uvec4 fetched[ROW_QUADS];
    barrier();
    [[unroll]] for (uint n = 0u; n < ROW_QUADS; ++n) {
        uint number = n * TILE + gl_LocalInvocationID.x;
        uint owner = number / ROW_QUADS, quad = number % ROW_QUADS;
        uint at = quad / uint(QUADS), within = quad % uint(QUADS);
        uvec2 row = rows[owner];
        if (SCANS && step != 0u && done + at < row.y) {
            SLOT_R.quad[BASE_SLOT_R / 4u + uint(QUADS) * place(row.x, done + at) + within] = tile[owner * PITCH + quad];
        }
        if (FETCHES && step + at < row.y) {
            fetched[n] = SLOT_A.quad[BASE_SLOT_A / 4u + uint(QUADS) * place(row.x, step + at) + within];
        }
    }
    if (FETCHES) {
        [[unroll]] for (uint n = 0u; n < ROW_QUADS; ++n) {
            uint number = n * TILE + gl_LocalInvocationID.x;
            tile[number / ROW_QUADS * PITCH + number % ROW_QUADS] = fetched[n];
        }
    }
    barrier();
}

#include "team.glsl"

Fe identity() { return fe_select(OPERATION == SUM || OPERATION == HORNER, fe_zero(), fe_one()); }

void main() {
    uint lane = gl_LocalInvocationID.x;
    uint index = WORKGROUP_INDEX * gl_WorkGroupSize.x + lane;
    uint member = TEAM > 1u ? lane : 0u;
    bool alive = index < push.count; // the others wait with their team, or fetch for theirs
    uint position = FIRST + index;
    uint chunk = position / TEAM;
    uint start = chunk / CHUNKS * SEGMENT;
    uint offset = chunk % CHUNKS * STEPS * TEAM + member; // of the segment, the invocation's first element
    uint has = alive ? min((SEGMENT - min(offset, SEGMENT) + TEAM - 1u) / TEAM, STEPS) : 0u;
    uint first = start + (IS(REVERSED) ? SEGMENT - 1u - offset : offset);
    if (TILED) { rows[lane] = uvec2(first, has); }

    Fe x = identity(), e = identity(), next = identity();
    if (alive && (IS(CARRIED) || IS(STARTED))) {
        uint carry = IS(CARRIED) ? position : 0u;
        LOAD(SLOT_B, carry, x)
    }
    if (SAME_FACTOR) { LOAD(SLOT_C, MULTIPLIER, e) }
    if (HAS_ELEMENTS && !FETCHES && has > 0u) { LOAD(SLOT_A, first, next) }

#if defined(KERNEL_SCAN)
    Op factor, y;
#endif
    bool fresh = true; // x has not become y yet
    bool headed = false;
    uint begin = 0u, steps = TILED ? STEPS + 1u : STEPS;
    if (TEAM > 1u) {
        // A fold begins with its first element.
        x = next;
        begin = 1u;
        steps = has;
        if (begin < steps) { LOAD(SLOT_A, first + TEAM, next) }
    }
    // After the first round, in which each folds its elements, the upper half of a team's members is folded into the lower one, again and
    // again.
    [[dont_unroll]] for (uint half_ = TEAM / 2u;; half_ /= 2u) {
        [[dont_unroll]] for (uint step = begin; step < steps; ++step) {
            if (TILED) {
                if (step % AHEAD == 0u || step == STEPS) { turn(step); }
                if (step == STEPS) { break; }
            }
            uint slot = lane * PITCH + step % AHEAD * uint(QUADS);
            bool works = true;
            Fe a = next, before = x;
            if (FETCHES) {
                [[unroll]] for (int i = 0; i < WORDS; ++i) { a.w[i] = tile[slot + uint(i / 4)][i % 4]; }
                works = step < has;
            } else if (HAS_ELEMENTS) {
                // The next is on its way while this one is worked on.
                if (TEAM == 1u) { next = identity(); }
                if (step + 1u < (TEAM > 1u ? steps : has)) { LOAD(SLOT_A, place(first, (step + 1u) * TEAM), next) }
            } else if (OPERATION == POWER) {
                a = fe_one();
                uint most = (1u << DIGIT) - 1u, digit = (position >> DIGIT * step) & most;
                if (digit != 0u) { LOAD(SLOT_C, MULTIPLIER + most * step + digit - 1u, a) }
            }
            if (HAS_ELEMENTS && HEADS != NOWHERE && step < has) {
                bool head;
                if (HEADS == FLAGS) {
                    uint at = place(first, step) + (IS(REVERSED) ? 1u : 0u);
                    head = SLOT_C.quad[BASE_SLOT_C / 4u + at / 4u][at % 4u] != 0u;
                } else {
                    head = a.w[WORDS - 1] >= HIGHEST_BIT;
                    a.w[WORDS - 1] &= ~HIGHEST_BIT;
                }
                if (head) {
                    x = identity();
                    fresh = true;
                    headed = true;
                    // A chunk with a head in it is still preceded by what comes before the head.
                    if (HEADS == FLAGS) { before = x; }
                }
            }
            if (HAS_ELEMENTS && !SCANS && TEAM == 1u && step == 0u) {
                // As above.
                x = a;
                works = false;
            }
            if (works) {
#if defined(KERNEL_SUM_SCAN)
                x = fe_add(x, a);
#else
                if (!SAME_FACTOR) { e = OPERATION == SQUARES ? x : a; }
                if (!SAME_FACTOR || fresh) { factor = op_left(e); }
                if (fresh || OPERATION == HORNER || OPERATION == SQUARES) { y = op_right(x); }
                fresh = false;
                y = op_mul(factor, y);
                if (IN_WORDS || step + 1u >= steps) { x = op_result(y); }
                if (OPERATION == HORNER) { x = fe_add(x, a); }
#endif
            }
            if (SCANS) {
                Fe written = fe_select(IS(EXCLUSIVE), before, x);
                if (TILED) {
                    [[unroll]] for (uint q = 0u; q < QUADS; ++q) {
                        tile[slot + q] =
                            uvec4(written.w[4u * q], written.w[4u * q + 1u], written.w[4u * q + 2u], written.w[4u * q + 3u]);
                    }
                } else if (step < has) {
                    STORE(SLOT_R, place(first, step), written)
                }
            }
        }
        if (half_ == 0u) { break; }
        if (member - half_ < half_) { leave(member, x); }
        barrier();
        begin = 0u;
        steps = 0u;
        if (member < half_) {
            next = left_by(member + half_);
            steps = 1u;
        }
    }
    if (HEADS != NOWHERE && headed) { x.w[WORDS - 1] |= HIGHEST_BIT; }
    if (!SCANS && alive && member == 0u) { STORE(SLOT_R, chunk, x) }
}
