// Carries, in two spellings of the same three functions. Each is named by what it returns: the low word of the result,
// with the high word (or the borrow bit) left in its last argument, ready for the next word up.
//
// INT64 = 1: one 64-bit multiply-accumulate a word. Compilers turn it into a wide multiply-add.
// INT64 = 0: for devices without shaderInt64. Nothing here, nor anywhere else in this variant, is wider than 32 bits.

#if INT64

// a * b + t + carry is at most (2^32-1)^2 + 2 (2^32-1) = 2^64 - 1: it cannot overflow.
uint carrying_mul_add(uint a, uint b, uint t, inout uint carry) {
    uint64_t sum = uint64_t(a) * uint64_t(b) + (uint64_t(t) + uint64_t(carry));
    carry = uint(sum >> 32);
    return uint(sum);
}

// a + b + carry, carry in {0, 1}.
uint carrying_add(uint a, uint b, inout uint carry) {
    uint64_t sum = uint64_t(a) + (uint64_t(b) + uint64_t(carry));
    carry = uint(sum >> 32);
    return uint(sum);
}

// a - b - borrow, borrow in {0, 1}.
uint borrowing_sub(uint a, uint b, inout uint borrow) {
    uint64_t difference = uint64_t(a) - (uint64_t(b) + uint64_t(borrow));
    borrow = uint(difference >> 32) & 1u;
    return uint(difference);
}

#else

uint carrying_mul_add(uint a, uint b, uint t, inout uint carry) {
    uint high, low, c;
    umulExtended(a, b, high, low);
    low = uaddCarry(low, t, c);
    high += c;
    low = uaddCarry(low, carry, c);
    carry = high + c;
    return low;
}

uint carrying_add(uint a, uint b, inout uint carry) {
    uint c0, c1;
    uint sum = uaddCarry(uaddCarry(a, b, c0), carry, c1);
    carry = c0 | c1;
    return sum;
}

uint borrowing_sub(uint a, uint b, inout uint borrow) {
    uint b0, b1;
    uint difference = usubBorrow(usubBorrow(a, b, b0), borrow, b1);
    borrow = b0 | b1;
    return difference;
}

#endif
