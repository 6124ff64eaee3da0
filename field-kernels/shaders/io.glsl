// What a kernel is given, and how it reads and writes elements.
//
// A launch has four slots, a, b, c and r; each kernel uses those it needs. Two ways to reach them:
//   ADDRESSES = 1   64-bit buffer device addresses in push constants (no descriptors at all)
//   ADDRESSES = 0   storage buffers, descriptor set k for slot k, written once when a buffer is made; in push constants, where in
//                   its buffer a slot's vector begins
// The block of push constants is the same for both; gpu-executor writes it (`push_constants` in its job.rs).

layout(local_size_x_id = 0) in;

#if defined(OUTPUTS_ARE_READ)
#define OUTPUT
#else
#define OUTPUT writeonly
#endif

#if ADDRESSES
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Source { uvec4 quad[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) OUTPUT buffer Sink { uvec4 quad[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) OUTPUT buffer Flags { uint flag[]; };
#if defined(EXPRESSION)
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Words { uint word[]; };
#endif
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Indices { uint index[]; };
#define SLOT_A push.a
#define SLOT_B push.b
#define SLOT_C push.c
#define SLOT_R push.r
#define BASE_SLOT_A 0u
#define BASE_SLOT_B 0u
#define BASE_SLOT_C 0u
#define BASE_SLOT_R 0u
#else
#define SLOT_A slot_a
#define SLOT_B slot_b
#define SLOT_C slot_c
#define SLOT_R slot_r
#define BASE_SLOT_A push.base[0]
#define BASE_SLOT_B push.base[2]
#define BASE_SLOT_C push.base[4]
#define BASE_SLOT_R push.base[6]
layout(set = 0, binding = 0, std430) readonly buffer SourceA { uvec4 quad[]; } slot_a;
#if defined(INDICES_IN_B)
layout(set = 1, binding = 0, std430) readonly buffer IndicesB { uint index[]; } slot_b;
#else
layout(set = 1, binding = 0, std430) readonly buffer SourceB { uvec4 quad[]; } slot_b;
#endif
#if defined(MASK_IN_C)
layout(set = 2, binding = 0, std430) OUTPUT buffer FlagsC { uint flag[]; } slot_c;
#elif defined(INDICES_IN_C)
layout(set = 2, binding = 0, std430) readonly buffer IndicesC { uint index[]; } slot_c;
#else
layout(set = 2, binding = 0, std430) readonly buffer SourceC { uvec4 quad[]; } slot_c;
#endif
#if defined(MASK_IN_R) || defined(EXPRESSION)
layout(set = 3, binding = 0, std430) OUTPUT buffer FlagsR { uint flag[]; } slot_r;
#else
layout(set = 3, binding = 0, std430) OUTPUT buffer SinkR { uvec4 quad[]; } slot_r;
#endif
#endif

layout(push_constant, std430) uniform Push {
#if ADDRESSES && defined(EXPRESSION)
    uvec2 place[12];   // of twelve slots, whatever they hold; the last is written
#elif ADDRESSES
    Source a;
#if defined(INDICES_IN_B)
    Indices b;
#else
    Source b;
#endif
#if defined(MASK_IN_C)
    Flags c;
#elif defined(INDICES_IN_C)
    Indices c;
#else
    Source c;
#endif
#if defined(MASK_IN_R)
    Flags r;
#else
    Sink r;
#endif
#else
    uint base[8];      // base[2 k] is where slot k begins in its buffer, in words
#endif
    uint count;        // elements in this launch
#if ADDRESSES && defined(EXPRESSION)
    uint params[7];
#else
    uint params[23];   // first an element (the scalar operand) or an exponent, least significant word first
#endif
} push;

// Elements are WORDS / 4 quads, one after another: the bytes of little-endian 64-bit limbs.
#define QUADS (WORDS / 4)

#define LOAD(slot, index, element)                                                                                    \
    [[unroll]] for (int q = 0; q < QUADS; ++q) {                                                                      \
        uvec4 quad = slot.quad[BASE_##slot / 4u + uint(QUADS) * (index) + uint(q)];                                   \
        element.w[4 * q] = quad.x;                                                                                    \
        element.w[4 * q + 1] = quad.y;                                                                                \
        element.w[4 * q + 2] = quad.z;                                                                                \
        element.w[4 * q + 3] = quad.w;                                                                                \
    }

#define STORE(slot, index, element)                                                                                   \
    [[unroll]] for (int q = 0; q < QUADS; ++q) {                                                                      \
        slot.quad[BASE_##slot / 4u + uint(QUADS) * (index) + uint(q)] =                                               \
            uvec4(element.w[4 * q], element.w[4 * q + 1], element.w[4 * q + 2], element.w[4 * q + 3]);                \
    }

#define STORE_FLAG(slot, index, value) if (index < push.count) slot.flag[BASE_##slot + (index)] = (value) ? 1u : 0u;

// Position of this workgroup in a launch whose workgroups may be spread over two dimensions (a device may allow no more than
// 65535 in one).
#define WORKGROUP_INDEX (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x)

// Zero, which no compiler knows: a launch has no third dimension. Formulations add it where compilers would otherwise undo what they
// do on purpose.
#define OPAQUE_ZERO int(gl_WorkGroupID.z)
