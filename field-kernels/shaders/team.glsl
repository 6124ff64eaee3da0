// What the invocations of a team leave for each other, word by word, so that neighbours are in different banks. To be included after
// field.glsl, where TEAM is a constant.

shared uint left_words[WORDS * TEAM];

void leave(uint member, Fe x) {
    [[unroll]] for (uint i = 0u; i < WORDS; ++i) { left_words[i * TEAM + member] = x.w[i]; }
}

Fe left_by(uint member) {
    Fe x;
    [[unroll]] for (uint i = 0u; i < WORDS; ++i) { x.w[i] = left_words[i * TEAM + member]; }
    return x;
}
