/*
 * Grisu2: Florian Loitsch, "Printing Floating-Point Numbers Quickly and Accurately with Integers",
 * PLDI 2010. Its digits always read back as the same number; where they are more than 15, a shorter
 * form is looked for, so that a short decimal is never missed.
 */
#include "base/number.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIGNIFICAND_BITS 52
#define HIDDEN           (UINT64_C(1) << SIGNIFICAND_BITS)
#define BIAS             (1023 + SIGNIFICAND_BITS)

struct scaled { /* f * 2^e */
    uint64_t f;
    int e;
};

/* 10^k for k = -348, -340 ... 340 */
static const struct scaled powers[] = {
    {0xfa8fd5a0081c0288, -1220}, {0xbaaee17fa23ebf76, -1193}, {0x8b16fb203055ac76, -1166},
    {0xcf42894a5dce35ea, -1140}, {0x9a6bb0aa55653b2d, -1113}, {0xe61acf033d1a45df, -1087},
    {0xab70fe17c79ac6ca, -1060}, {0xff77b1fcbebcdc4f, -1034}, {0xbe5691ef416bd60c, -1007},
    {0x8dd01fad907ffc3c, -980},  {0xd3515c2831559a83, -954},  {0x9d71ac8fada6c9b5, -927},
    {0xea9c227723ee8bcb, -901},  {0xaecc49914078536d, -874},  {0x823c12795db6ce57, -847},
    {0xc21094364dfb5637, -821},  {0x9096ea6f3848984f, -794},  {0xd77485cb25823ac7, -768},
    {0xa086cfcd97bf97f4, -741},  {0xef340a98172aace5, -715},  {0xb23867fb2a35b28e, -688},
    {0x84c8d4dfd2c63f3b, -661},  {0xc5dd44271ad3cdba, -635},  {0x936b9fcebb25c996, -608},
    {0xdbac6c247d62a584, -582},  {0xa3ab66580d5fdaf6, -555},  {0xf3e2f893dec3f126, -529},
    {0xb5b5ada8aaff80b8, -502},  {0x87625f056c7c4a8b, -475},  {0xc9bcff6034c13053, -449},
    {0x964e858c91ba2655, -422},  {0xdff9772470297ebd, -396},  {0xa6dfbd9fb8e5b88f, -369},
    {0xf8a95fcf88747d94, -343},  {0xb94470938fa89bcf, -316},  {0x8a08f0f8bf0f156b, -289},
    {0xcdb02555653131b6, -263},  {0x993fe2c6d07b7fac, -236},  {0xe45c10c42a2b3b06, -210},
    {0xaa242499697392d3, -183},  {0xfd87b5f28300ca0e, -157},  {0xbce5086492111aeb, -130},
    {0x8cbccc096f5088cc, -103},  {0xd1b71758e219652c, -77},   {0x9c40000000000000, -50},
    {0xe8d4a51000000000, -24},   {0xad78ebc5ac620000, 3},     {0x813f3978f8940984, 30},
    {0xc097ce7bc90715b3, 56},    {0x8f7e32ce7bea5c70, 83},    {0xd5d238a4abe98068, 109},
    {0x9f4f2726179a2245, 136},   {0xed63a231d4c4fb27, 162},   {0xb0de65388cc8ada8, 189},
    {0x83c7088e1aab65db, 216},   {0xc45d1df942711d9a, 242},   {0x924d692ca61be758, 269},
    {0xda01ee641a708dea, 295},   {0xa26da3999aef774a, 322},   {0xf209787bb47d6b85, 348},
    {0xb454e4a179dd1877, 375},   {0x865b86925b9bc5c2, 402},   {0xc83553c5c8965d3d, 428},
    {0x952ab45cfa97a0b3, 455},   {0xde469fbd99a05fe3, 481},   {0xa59bc234db398c25, 508},
    {0xf6c69a72a3989f5c, 534},   {0xb7dcbf5354e9bece, 561},   {0x88fcf317f22241e2, 588},
    {0xcc20ce9bd35c78a5, 614},   {0x98165af37b2153df, 641},   {0xe2a0b5dc971f303a, 667},
    {0xa8d9d1535ce3b396, 694},   {0xfb9b7cd9a4a7443c, 720},   {0xbb764c4ca7a44410, 747},
    {0x8bab8eefb6409c1a, 774},   {0xd01fef10a657842c, 800},   {0x9b10a4e5e9913129, 827},
    {0xe7109bfba19c0c9d, 853},   {0xac2820d9623bf429, 880},   {0x80444b5e7aa7cf85, 907},
    {0xbf21e44003acdd2d, 933},   {0x8e679c2f5e44ff8f, 960},   {0xd433179d9c8cb841, 986},
    {0x9e19db92b4e31ba9, 1013},  {0xeb96bf6ebadf77d9, 1039},  {0xaf87023b9bf0ee6b, 1066}};

static const uint64_t tens[] = {UINT64_C(1),
                                UINT64_C(10),
                                UINT64_C(100),
                                UINT64_C(1000),
                                UINT64_C(10000),
                                UINT64_C(100000),
                                UINT64_C(1000000),
                                UINT64_C(10000000),
                                UINT64_C(100000000),
                                UINT64_C(1000000000),
                                UINT64_C(10000000000),
                                UINT64_C(100000000000),
                                UINT64_C(1000000000000),
                                UINT64_C(10000000000000),
                                UINT64_C(100000000000000),
                                UINT64_C(1000000000000000),
                                UINT64_C(10000000000000000),
                                UINT64_C(100000000000000000),
                                UINT64_C(1000000000000000000)};
static const double real_tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                   1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                   1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static struct scaled times(struct scaled a, struct scaled b)
{
    unsigned __int128 product = (unsigned __int128)a.f * b.f;

    return (struct scaled){(uint64_t)(product >> 64) + ((uint64_t)product >> 63), a.e + b.e + 64};
}

static struct scaled normal(struct scaled x)
{
    int shift = __builtin_clzll(x.f);

    return (struct scaled){x.f << shift, x.e - shift};
}

/* The power of ten that brings a number with exponent e near 1; *k is its own exponent, negated. */
static struct scaled power_for(int e, int *k)
{
    double wanted = (-61 - e) * 0.30102999566398114 + 347;
    int whole = (int)wanted;
    int index = ((whole + (wanted > whole)) >> 3) + 1;

    *k = 348 - index * 8;
    return powers[index];
}

/* Brings the last digit nearer to the number itself. */
static void round_last(char *last, uint64_t delta, uint64_t rest, uint64_t unit, uint64_t distance)
{
    while (rest < distance && delta - rest >= unit &&
           (rest + unit < distance || distance - rest > rest + unit - distance)) {
        (*last)--;
        rest += unit;
    }
}

/* Digits of a number within delta below `high`, near w; the number is digits * 10^*k. Returns how
 * many. */
static int make_digits(struct scaled w, struct scaled high, uint64_t delta, char *digits, int *k)
{
    int shift = -high.e, len = 0, kappa = 1;
    uint64_t one = UINT64_C(1) << shift;
    uint64_t distance = high.f - w.f;
    uint64_t whole = high.f >> shift;
    uint64_t part = high.f & (one - 1);

    while (kappa < 10 && whole >= tens[kappa])
        kappa++;
    while (kappa > 0) {
        uint64_t unit = tens[--kappa];
        uint64_t digit = whole / unit;
        whole %= unit;
        if (digit || len)
            digits[len++] = (char)('0' + digit);
        uint64_t rest = (whole << shift) + part;
        if (len && rest <= delta) {
            *k += kappa;
            round_last(&digits[len - 1], delta, rest, unit << shift, distance);
            return len;
        }
    }
    for (;;) {
        part *= 10;
        delta *= 10;
        kappa--;
        uint64_t digit = part >> shift;
        if (digit || len)
            digits[len++] = (char)('0' + digit);
        part &= one - 1;
        if (len && part < delta) {
            *k += kappa;
            round_last(&digits[len - 1], delta, part, one,
                       -kappa < 19 ? distance * tens[-kappa] : 0);
            return len;
        }
    }
}

/* d > 0: its digits, and k with d = digits * 10^k. */
static int make(double d, char *digits, int *k)
{
    uint64_t bits;

    memcpy(&bits, &d, sizeof bits);
    int biased = (int)(bits >> SIGNIFICAND_BITS);
    uint64_t fraction = bits & (HIDDEN - 1);
    struct scaled v = biased ? (struct scaled){fraction + HIDDEN, biased - BIAS}
                             : (struct scaled){fraction, 1 - BIAS};
    struct scaled high = normal((struct scaled){(v.f << 1) + 1, v.e - 1});
    struct scaled low = v.f == HIDDEN ? (struct scaled){(v.f << 2) - 1, v.e - 2}
                                      : (struct scaled){(v.f << 1) - 1, v.e - 1};
    low.f <<= low.e - high.e;
    low.e = high.e;
    struct scaled power = power_for(high.e, k);
    struct scaled w = times(normal(v), power);
    high = times(high, power);
    low = times(low, power);
    low.f++;
    high.f--;
    return make_digits(w, high, high.f - low.f, digits, k);
}

/* More than 15 digits become 15, when those read back as the same number. */
static int shorten(double d, char *digits, int len, int *k)
{
    uint64_t kept = 0;
    int exponent = *k + len - 15;
    double back;

    for (int i = 0; i < 15; i++)
        kept = kept * 10 + (uint64_t)(digits[i] - '0');
    kept += digits[15] >= '5';
    if (exponent >= -22 && exponent <= 22) { /* both are exact: one operation rounds as strtod */
        back =
            exponent < 0 ? (double)kept / real_tens[-exponent] : (double)kept * real_tens[exponent];
    } else {
        char text[NUMBER_ROOM];
        snprintf(text, sizeof text, "%llue%d", (unsigned long long)kept, exponent);
        back = strtod(text, NULL);
    }
    if (memcmp(&back, &d, sizeof d) != 0)
        return len;
    for (; kept % 10 == 0; exponent++)
        kept /= 10;
    *k = exponent;
    return (int)int_print((int64_t)kept, digits);
}

size_t int_print(int64_t i, char out[NUMBER_ROOM])
{
    char text[NUMBER_ROOM], *at = text + sizeof text;
    uint64_t rest = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;

    do {
        *--at = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (i < 0)
        *--at = '-';
    size_t len = (size_t)(text + sizeof text - at);
    memcpy(out, at, len);
    out[len] = '\0';
    return len;
}

static size_t zeros(char *out, int count)
{
    memset(out, '0', (size_t)count);
    return (size_t)count;
}

size_t real_print(double d, char out[NUMBER_ROOM])
{
    char digits[NUMBER_ROOM], *to = out;
    int k;

    if (__builtin_signbit(d)) {
        *to++ = '-';
        d = -d;
    }
    if (d == 0) {
        *to++ = '0';
        *to = '\0';
        return (size_t)(to - out);
    }
    int len = make(d, digits, &k);
    if (len > 15)
        len = shorten(d, digits, len, &k);
    int exponent = len + k - 1; /* of the first digit */
    if (exponent < -4 || exponent >= (len > 15 ? len : 15)) {
        *to++ = digits[0];
        if (len > 1) {
            *to++ = '.';
            memcpy(to, digits + 1, (size_t)len - 1);
            to += len - 1;
        }
        *to++ = 'e';
        *to++ = exponent < 0 ? '-' : '+';
        int size = exponent < 0 ? -exponent : exponent;
        if (size < 10)
            *to++ = '0';
        if (size >= 100)
            *to++ = (char)('0' + size / 100);
        if (size >= 10)
            *to++ = (char)('0' + size / 10 % 10);
        *to++ = (char)('0' + size % 10);
    } else if (exponent < 0) {
        *to++ = '0';
        *to++ = '.';
        to += zeros(to, -exponent - 1);
        memcpy(to, digits, (size_t)len);
        to += len;
    } else if (k >= 0) {
        memcpy(to, digits, (size_t)len);
        to += len;
        to += zeros(to, k);
    } else {
        memcpy(to, digits, (size_t)exponent + 1);
        to += exponent + 1;
        *to++ = '.';
        memcpy(to, digits + exponent + 1, (size_t)(len - exponent - 1));
        to += len - exponent - 1;
    }
    *to = '\0';
    return (size_t)(to - out);
}
