/* Buckets as in Gil Tene's HdrHistogram: below 2 * SUB each value has its own, above that each
 * power of two is cut into SUB equal parts. */
#include "service/load_histogram.h"

static size_t bucket_of(uint64_t value)
{
    if (value < HISTOGRAM_SUB)
        return (size_t)value;
    int top = 63 - __builtin_clzll(value);
    if (top > HISTOGRAM_TOP_BIT)
        return HISTOGRAM_BUCKETS - 1;
    int shift = top - HISTOGRAM_SUB_BITS;
    return (size_t)(shift + 1) * HISTOGRAM_SUB + (size_t)((value >> shift) & (HISTOGRAM_SUB - 1));
}

/* The middle of a bucket. */
static int64_t value_of(size_t bucket)
{
    if (bucket < HISTOGRAM_SUB)
        return (int64_t)bucket;
    size_t shift = bucket / HISTOGRAM_SUB - 1;
    uint64_t low = (uint64_t)(HISTOGRAM_SUB + bucket % HISTOGRAM_SUB) << shift;
    return (int64_t)(low + (shift ? UINT64_C(1) << (shift - 1) : 0));
}

void histogram_add(struct histogram *histogram, int64_t value)
{
    if (value < 0)
        value = 0;
    if (histogram->count == 0 || value < histogram->min)
        histogram->min = value;
    if (value > histogram->max)
        histogram->max = value;
    histogram->count++;
    histogram->sum += (double)value;
    histogram->buckets[bucket_of((uint64_t)value)]++;
}

int64_t histogram_percentile(const struct histogram *histogram, double fraction)
{
    double wanted = fraction * (double)histogram->count;
    uint64_t seen = 0;

    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (histogram->buckets[i] && (double)seen >= wanted) {
            int64_t value = i == HISTOGRAM_BUCKETS - 1 ? histogram->max : value_of(i);
            if (value > histogram->max)
                return histogram->max;
            return value < histogram->min ? histogram->min : value;
        }
    }
    return 0;
}

double histogram_mean(const struct histogram *histogram)
{
    return histogram->count ? histogram->sum / (double)histogram->count : 0;
}
