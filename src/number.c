/* number: doubles from decimal text and back.

   Promises: exact in both directions, the nearest double and the fewest digits, in any locale and
   without libc's help. May call base. */
#include "internal.h"

#include <float.h>

/* ---- bits and natural numbers ---- */

/* Doubles are put together from their bits. */
typedef char sbxi_number_double_is_ieee754
    [sizeof(double) == 8 && DBL_MANT_DIG == 53 && DBL_MAX_EXP == 1024 ? 1 : -1];

#define SBXI_NUMBER_HIDDEN (UINT64_C(1) << 52) /* what a normal double's mantissa has besides */
#define SBXI_NUMBER_INFINITY (UINT64_C(0x7ff) << 52) /* the bits of infinity */
#define SBXI_NUMBER_SIGN (UINT64_C(1) << 63)

static double sbxi_number_from_bits(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint64_t sbxi_number_to_bits(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* A natural number, lowest limb first. The largest that occur are below 2^1450: a number's 256
   digits, or half of the smallest double, brought to a common denominator. */
#define SBXI_BIG_LIMBS 48
typedef struct sbxi_big {
    int len;
    uint32_t limb[SBXI_BIG_LIMBS];
} sbxi_big;

static void sbxi_big_set(sbxi_big *b, uint64_t value)
{
    b->limb[0] = (uint32_t)(value & 0xffffffff);
    b->limb[1] = (uint32_t)(value >> 32);
    b->len = b->limb[1] ? 2 : b->limb[0] ? 1 : 0;
}

static void sbxi_big_multiply(sbxi_big *b, uint32_t by, uint32_t add)
{
    uint64_t carry = add;
    int i;
    for (i = 0; i < b->len; i++) {
        carry += (uint64_t)b->limb[i] * by;
        b->limb[i] = (uint32_t)(carry & 0xffffffff);
        carry >>= 32;
    }
    if (carry)
        b->limb[b->len++] = (uint32_t)carry;
}

static void sbxi_big_multiply_pow5(sbxi_big *b, int n)
{
    for (; n >= 13; n -= 13)
        sbxi_big_multiply(b, 1220703125, 0); /* 5^13 */
    for (; n > 0; n--)
        sbxi_big_multiply(b, 5, 0);
}

static void sbxi_big_shift(sbxi_big *b, int bits)
{
    int limbs = bits / 32, i;
    sbxi_big_multiply(b, (uint32_t)1 << (bits % 32), 0);
    if (b->len == 0)
        return;
    for (i = b->len - 1; i >= 0; i--)
        b->limb[i + limbs] = b->limb[i];
    for (i = 0; i < limbs; i++)
        b->limb[i] = 0;
    b->len += limbs;
}

static void sbxi_big_multiply_pow10(sbxi_big *b, int n)
{
    sbxi_big_multiply_pow5(b, n);
    sbxi_big_shift(b, n);
}

/* Below, at or above 0 as a is less than, equal to or greater than b. */
static int sbxi_big_compare(const sbxi_big *a, const sbxi_big *b)
{
    int i;
    if (a->len != b->len)
        return a->len - b->len;
    for (i = a->len - 1; i >= 0; i--) {
        if (a->limb[i] != b->limb[i])
            return a->limb[i] < b->limb[i] ? -1 : 1;
    }
    return 0;
}

static void sbxi_big_add(sbxi_big *a, const sbxi_big *b)
{
    uint64_t carry = 0;
    int i;
    for (i = 0; i < a->len || i < b->len || carry; i++) {
        carry += (i < a->len ? a->limb[i] : 0);
        carry += (i < b->len ? b->limb[i] : 0);
        a->limb[i] = (uint32_t)(carry & 0xffffffff);
        carry >>= 32;
    }
    if (a->len < i)
        a->len = i;
}

/* b must not be greater than a. */
static void sbxi_big_subtract(sbxi_big *a, const sbxi_big *b)
{
    uint64_t borrow = 0;
    int i;
    for (i = 0; i < a->len; i++) {
        uint64_t rest = (uint64_t)a->limb[i] - (i < b->len ? b->limb[i] : 0) - borrow;
        a->limb[i] = (uint32_t)(rest & 0xffffffff);
        borrow = rest >> 63;
    }
    while (a->len > 0 && a->limb[a->len - 1] == 0)
        a->len--;
}

/* ---- from text ---- */

/* digits * 10^exponent, without zeros at either end of the digits. */
typedef struct sbxi_number_decimal {
    int count, exponent;
    unsigned char digit[SBX_JSON_NUMBER_MAX];
} sbxi_number_decimal;

/* Takes a valid number without its sign apart. */
static void sbxi_number_parse_decimal(sbxi_number_decimal *d, const char *text, size_t len)
{
    int point = 0, minus = 0, exponent = 0;
    size_t i;
    d->count = d->exponent = 0;
    for (i = 0; i < len && text[i] != 'e' && text[i] != 'E'; i++) {
        if (text[i] == '.') {
            point = 1;
            continue;
        }
        d->exponent -= point;
        if (d->count > 0 || text[i] != '0')
            d->digit[d->count++] = (unsigned char)(text[i] - '0');
    }
    while (d->count > 0 && d->digit[d->count - 1] == 0) {
        d->count--;
        d->exponent++;
    }
    for (i++; i < len; i++) {
        if (text[i] == '-')
            minus = 1;
        else if (text[i] != '+' && exponent < 100000)
            exponent = exponent * 10 + (text[i] - '0');
    }
    d->exponent += minus ? -exponent : exponent;
}

/* The upper half of a * b. */
static uint64_t sbxi_number_multiply_high(uint64_t a, uint64_t b)
{
    uint64_t a0 = a & 0xffffffff, a1 = a >> 32, b0 = b & 0xffffffff, b1 = b >> 32;
    uint64_t low = a0 * b0, middle = a1 * b0 + (low >> 32), other = a0 * b1 + (middle & 0xffffffff);
    return a1 * b1 + (middle >> 32) + (other >> 32);
}

/* Returns m >= 2^63 so that m * 2^*binary is value * 10^decimal, |decimal| < 512, with an error of
   less than SBXI_NUMBER_ERROR in m. Each factor adds at most 5 (its own rounding, the lost lower
   half, both doubled by the shift); there are at most 8 up to 10^345; and value may be the first
   19 digits of a longer number, which adds 19. */
#define SBXI_NUMBER_ERROR 64
static uint64_t sbxi_number_scale(uint64_t value, int decimal, int *binary)
{
    /* 10^(2^i) and 10^-(2^i), the highest bit of which stands for 2^top and 2^-(top + 1). */
    static const uint64_t up[] = {
        UINT64_C(0xa000000000000000), UINT64_C(0xc800000000000000), UINT64_C(0x9c40000000000000),
        UINT64_C(0xbebc200000000000), UINT64_C(0x8e1bc9bf04000000), UINT64_C(0x9dc5ada82b70b59e),
        UINT64_C(0xc2781f49ffcfa6d5), UINT64_C(0x93ba47c980e98ce0), UINT64_C(0xaa7eebfb9df9de8e)};
    static const uint64_t down[] = {
        UINT64_C(0xcccccccccccccccd), UINT64_C(0xa3d70a3d70a3d70a), UINT64_C(0xd1b71758e219652c),
        UINT64_C(0xabcc77118461cefd), UINT64_C(0xe69594bec44de15b), UINT64_C(0xcfb11ead453994ba),
        UINT64_C(0xa87fea27a539e9a5), UINT64_C(0xddd0467c64bce4a1), UINT64_C(0xc0314325637a193a)};
    static const short top[] = {3, 6, 13, 26, 53, 106, 212, 425, 850};
    int left = decimal < 0 ? -decimal : decimal, i;
    *binary = 0;
    for (i = -1; i < SBXI_COUNT(top); i++) {
        if (i >= 0) {
            if (!(left >> i & 1))
                continue;
            value = sbxi_number_multiply_high(value, decimal < 0 ? down[i] : up[i]);
            *binary += (decimal < 0 ? -top[i] - 1 : top[i]) + 1;
        }
        for (; !(value >> 63); value <<= 1)
            --*binary;
    }
    return value;
}

/* Compares the decimal with (2 * mantissa + 1) * 2^(unit - 1), exactly. */
static int sbxi_number_compare_half(const sbxi_number_decimal *d, uint64_t mantissa, int unit)
{
    sbxi_big exact, half;
    int i, shift = d->exponent - (unit - 1);
    sbxi_big_set(&exact, 0);
    for (i = 0; i < d->count; i++)
        sbxi_big_multiply(&exact, 10, d->digit[i]);
    sbxi_big_set(&half, 2 * mantissa + 1);
    sbxi_big_multiply_pow5(d->exponent < 0 ? &half : &exact,
                           d->exponent < 0 ? -d->exponent : d->exponent);
    sbxi_big_shift(shift < 0 ? &half : &exact, shift < 0 ? -shift : shift);
    return sbxi_big_compare(&exact, &half);
}

/* The double that is nearest to a valid number without its sign, the even one of two. An estimate
   of 64 bits nearly always tells which one that is. */
static uint64_t sbxi_number_nearest(const char *text, size_t len)
{
    sbxi_number_decimal d;
    uint64_t value = 0, mantissa, bits;
    int64_t rest; /* beyond the half of a unit */
    int i, used, unit, shift, compared;
    sbxi_number_parse_decimal(&d, text, len);
    if (d.count == 0 || d.count + d.exponent < -330)
        return 0;
    if (d.count + d.exponent > 310)
        return SBXI_NUMBER_INFINITY;
    used = d.count < 19 ? d.count : 19;
    for (i = 0; i < used; i++)
        value = value * 10 + d.digit[i];
    value = sbxi_number_scale(value, d.exponent + d.count - used, &unit);
    /* The highest bit of value stands for 2^(unit + 63). A double keeps 53 bits from there on, but
       none below 2^-1074. */
    shift = unit + 11 < -1074 ? -1074 - unit : 11;
    if (shift > 65)
        return 0;
    mantissa = shift < 64 ? value >> shift : 0;
    rest = shift < 64 ? (int64_t)(value - (mantissa << shift)) - (INT64_C(1) << (shift - 1)) : 0;
    unit += shift;
    if (rest > SBXI_NUMBER_ERROR || rest < -SBXI_NUMBER_ERROR)
        compared = rest > 0 ? 1 : -1;
    else
        compared = sbxi_number_compare_half(&d, mantissa, unit);
    if (compared > 0 || (compared == 0 && (mantissa & 1)))
        mantissa++;
    /* A normal number's highest bit adds one to the exponent, and so does a carry into it. */
    bits = ((uint64_t)(unit + 1074) << 52) + mantissa;
    return bits < SBXI_NUMBER_INFINITY ? bits : SBXI_NUMBER_INFINITY;
}

/* ---- to text ---- */

/* How the digits of a double are found (Steele and White; Burger and Dybvig): value / scale is what
   is left to be written, and any text between value - below and value + above reads back as it. */
typedef struct sbxi_number_shortest {
    sbxi_big value, scale, above, below;
    int even; /* a text right at the limits reads back too */
} sbxi_number_shortest;

static int sbxi_number_reaches_top(const sbxi_number_shortest *s)
{
    sbxi_big sum = s->value;
    int compared;
    sbxi_big_add(&sum, &s->above);
    compared = sbxi_big_compare(&sum, &s->scale);
    return compared > 0 || (compared == 0 && s->even);
}

static int sbxi_number_reaches_bottom(const sbxi_number_shortest *s)
{
    int compared = sbxi_big_compare(&s->value, &s->below);
    return compared < 0 || (compared == 0 && s->even);
}

/* Sets up a positive double and returns the power of ten behind which its digits start: it is
   0.DIGITS * 10^that. */
static int sbxi_number_shortest_init(sbxi_number_shortest *s, uint64_t bits)
{
    uint64_t mantissa = bits & (SBXI_NUMBER_HIDDEN - 1);
    int unit = (int)(bits >> 52), top, power, twice;
    twice = mantissa == 0 && unit > 1; /* the gap below is half of that above */
    if (unit > 0) {
        mantissa |= SBXI_NUMBER_HIDDEN;
        unit--;
    }
    unit -= 1074;
    s->even = !(mantissa & 1);
    for (top = unit; mantissa >> (top - unit) > 1;)
        top++;
    /* 2^top * log10(2), rounded down so that the value is at least a tenth and less than 100. */
    power = (top < 0 ? -(-top * 78914 / 262144) - 1 : top * 78913 / 262144) + 1;
    sbxi_big_set(&s->value, mantissa);
    sbxi_big_set(&s->scale, 1);
    sbxi_big_set(&s->above, 1);
    sbxi_big_set(&s->below, 1);
    /* All doubled, since the limits are half a gap away, and once more if the lower gap is
       smaller. */
    sbxi_big_shift(&s->value, (unit > 0 ? unit : 0) + 1 + twice);
    sbxi_big_shift(&s->scale, (unit < 0 ? -unit : 0) + 1 + twice);
    sbxi_big_shift(&s->above, (unit > 0 ? unit : 0) + twice);
    sbxi_big_shift(&s->below, unit > 0 ? unit : 0);
    if (power >= 0) {
        sbxi_big_multiply_pow10(&s->scale, power);
    } else {
        sbxi_big_multiply_pow10(&s->value, -power);
        sbxi_big_multiply_pow10(&s->above, -power);
        sbxi_big_multiply_pow10(&s->below, -power);
    }
    if (sbxi_number_reaches_top(s)) {
        sbxi_big_multiply(&s->scale, 10, 0);
        power++;
    }
    return power;
}

/* The fewest digits that read back as the double, the nearest ones of these; 17 at most. Returns
   how many, and sets *power as above. */
static int sbxi_number_shortest_digits(uint64_t bits, char digits[17], int *power)
{
    sbxi_number_shortest s;
    int count = 0, bottom, top;
    *power = sbxi_number_shortest_init(&s, bits);
    do {
        char digit = '0';
        sbxi_big_multiply(&s.value, 10, 0);
        sbxi_big_multiply(&s.above, 10, 0);
        sbxi_big_multiply(&s.below, 10, 0);
        for (; sbxi_big_compare(&s.value, &s.scale) >= 0; digit++)
            sbxi_big_subtract(&s.value, &s.scale);
        bottom = sbxi_number_reaches_bottom(&s);
        top = sbxi_number_reaches_top(&s);
        if (bottom && top) {
            int compared;
            sbxi_big_shift(&s.value, 1);
            compared = sbxi_big_compare(&s.value, &s.scale);
            top = compared > 0 || (compared == 0 && (digit & 1)); /* '0' is even */
        }
        digits[count++] = (char)(digit + (top ? 1 : 0));
    } while (!bottom && !top);
    return count;
}

#define SBXI_NUMBER_FORMAT_MAX 32

/* Writes a finite double, plain from 1e-4 to below 1e16, so that an integer reads back as just that
   integer, else like 1.5e300. Returns the length, at most 24. */
static size_t sbxi_number_format(char out[SBXI_NUMBER_FORMAT_MAX], double value)
{
    uint64_t bits = sbxi_number_to_bits(value);
    char digits[17];
    size_t len = 0;
    int count, power, i, whole;
    if (bits & SBXI_NUMBER_SIGN)
        out[len++] = '-';
    bits &= ~SBXI_NUMBER_SIGN;
    if (bits == 0) {
        out[len++] = '0';
        return len;
    }
    count = sbxi_number_shortest_digits(bits, digits, &power);
    whole = power > 16 || power < -3 ? 1 : power; /* digits before the point */
    if (whole <= 0) {
        out[len++] = '0';
        out[len++] = '.';
        for (i = whole; i < 0; i++)
            out[len++] = '0';
    }
    for (i = 0; i < count || i < whole; i++) {
        if (i == whole && i > 0)
            out[len++] = '.';
        out[len++] = i < count ? digits[i] : '0';
    }
    if (whole != power) {
        out[len++] = 'e';
        len += sbxi_decimal(out + len, power - 1);
    }
    return len;
}
