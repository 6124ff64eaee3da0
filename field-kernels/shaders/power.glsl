// a^e for the exponent e in push constants, of a in the form the vectors are in.
//
// Left to right in sliding windows that begin and end with a one (A. Menezes, P. van Oorschot, S. Vanstone, "Handbook of
// Applied Cryptography", algorithm 14.85): a table of odd powers, then, for each window, a squaring for each of its bits and of
// the zeros before it, and one multiplication. 381 bits take about 381 squarings and 84 multiplications. The exponent is the same
// for all invocations, so its windows cost no divergence; it is public to anyone who can time the launch.
//
// All of it is steps of some squarings and one multiplication: into Montgomery form, the table, the windows, out of it again,
// and the square that shows whether a root is one. So the loop over steps has one op_square and one op_mul in it, and no other
// place has any: each is hundreds of instructions, and a place more costs a driver tens of milliseconds.

const int WINDOW = 4;

// Whatever is multiplied by lies in one array: a, a^3, a^5, .. first, and behind them
const int TWICE = 1 << (WINDOW - 1); // a^2,
const int UNIT = TWICE + 1;          // 1,
const int LEAVE = TWICE + 2;         // what takes a power to the form the vectors are in,
const int ENTER = TWICE + 3;         // and what takes canonical elements to Montgomery form.
const int FACTORS = TWICE + 4;

bool exponent_bit(int bit) { return ((push.params[bit >> 5] >> uint(bit & 31)) & 1u) != 0u; }

// Takes the next window off the exponent, of which the bits from `bit` on are taken: its value, and the squarings down to its
// end. If only zeros are left, 0 and their number.
uint next_window(int width, inout int bit, out int squarings) {
    int from = bit;
    [[dont_unroll]] while (bit > 0 && !exponent_bit(bit - 1)) { --bit; }
    uint value = 0u;
    if (bit > 0) {
        int low = max(bit - width, 0);
        [[dont_unroll]] while (!exponent_bit(low)) { ++low; }
        [[dont_unroll]] while (bit > low) {
            --bit;
            value = 2u * value + (exponent_bit(bit) ? 1u : 0u);
        }
    }
    squarings = from - bit;
    return value;
}

struct Power {
    Fe value;
    Fe square; // its square, if asked for
};

Power fe_pow(Fe a, bool squared) {
    // Short exponents are not worth a table: the widths are those of OpenSSL's BN_mod_exp.
    int bit = 32 * WORDS;
    [[dont_unroll]] while (bit > 0 && !exponent_bit(bit - 1)) { --bit; }
    int width = bit > 79 ? WINDOW : bit > 23 ? 3 : 1;
    int entries = 1 << (width - 1);

    Op factors[FACTORS];
    factors[UNIT] = op_left(fe_one());
    if (CANONICAL) {
        factors[ENTER] = op_left(fe_r2());
        factors[LEAVE] = op_right(fe_unit());
    } else {
        factors[LEAVE] = op_right(fe_one());
    }
    Op x = op_left(a);

    Power power;
    bool left = false;
    [[dont_unroll]] for (int entry = CANONICAL ? -1 : 0;; ++entry) {
        int squarings = 0;
        int factor = LEAVE;
        bool leaves = false;
        if (entry < 0) {
            factor = ENTER;
        } else if (entry < entries - 1) {
            factors[entry] = x;
            if (entry == 0) {
                squarings = 1;
                factor = 0;
            } else {
                factor = TWICE;
            }
        } else if (left) {
            squarings = 1;
        } else {
            if (entry == entries - 1) {
                factors[entry] = x;
                uint first = next_window(width, bit, squarings);
                x = factors[first == 0u ? UNIT : int(first >> 1)];
            }
            uint value = next_window(width, bit, squarings);
            if (value == 0u) { leaves = true; } else { factor = int(value >> 1); }
        }
        [[dont_unroll]] for (int s = 0; s < squarings; ++s) { x = op_square(x); }
        if (entry == 0) { factors[TWICE] = x; }
        Op product = op_mul(x, factors[factor]);
        if (leaves || left) {
            Fe r = op_result(product);
            if (left) {
                power.square = r;
                break;
            }
            power.value = r;
            if (!squared) { break; }
            left = true;
        } else {
            x = product;
        }
    }
    return power;
}
