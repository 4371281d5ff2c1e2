// Statistics of all numbers of a tensor: smallest and largest, sums, counts, and a histogram. Each block writes the results of its share;
// the shares are added in their order.
#include "value.cuh"

constexpr int THREADS = 256;
constexpr int BINS = 48;

// Integer types, in addition to the float types of value.cuh.
enum Whole { U8 = 4, U32 = 5, I64 = 6 };

__device__ inline double wide_at(const void* values, long long at, int type) {
    switch (type) {
    case F64: return static_cast<const double*>(values)[at];
    case U8: return static_cast<const unsigned char*>(values)[at];
    case U32: return static_cast<const unsigned*>(values)[at];
    case I64: return static_cast<double>(static_cast<const long long*>(values)[at]);
    default: return value_at(values, at, type);
    }
}

#define EACH(i, count) \
    for (long long i = blockIdx.x * static_cast<long long>(THREADS) + threadIdx.x; i < count; \
         i += static_cast<long long>(gridDim.x) * THREADS)

// Writes six numbers for each block: the smallest, the largest and the sum of its finite numbers, then the counts of finite numbers, NaNs
// and zeros.
extern "C" __global__ void ranges(const void* x, int type, long long count, double* found) {
    double least = __longlong_as_double(0x7ff0000000000000), largest = -least, sum = 0, finite = 0, nans = 0, zeros = 0;
    EACH(i, count) {
        double value = wide_at(x, i, type);
        if (isfinite(value)) {
            least = fmin(least, value);
            largest = fmax(largest, value);
            sum += value;
            finite += 1;
            zeros += value == 0;
        } else {
            nans += isnan(value);
        }
    }
    __shared__ double parts[6][THREADS];
    double mine[6] = {least, largest, sum, finite, nans, zeros};
    for (int k = 0; k < 6; ++k) parts[k][threadIdx.x] = mine[k];
    __syncthreads();
    for (int step = THREADS / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) {
            parts[0][threadIdx.x] = fmin(parts[0][threadIdx.x], parts[0][threadIdx.x + step]);
            parts[1][threadIdx.x] = fmax(parts[1][threadIdx.x], parts[1][threadIdx.x + step]);
            for (int k = 2; k < 6; ++k) parts[k][threadIdx.x] += parts[k][threadIdx.x + step];
        }
        __syncthreads();
    }
    if (threadIdx.x < 6) found[6 * blockIdx.x + threadIdx.x] = parts[threadIdx.x][0];
}

// Writes the sum of squared distances from `mean` of each block's finite numbers, and counts the finite numbers of all blocks in each part
// of the range.
extern "C" __global__ void spread(const void* x, int type, long long count, double mean, double least, double scale, double* squares,
                                  unsigned long long* histogram) {
    __shared__ unsigned bins[BINS];
    __shared__ double parts[THREADS];
    if (threadIdx.x < BINS) bins[threadIdx.x] = 0;
    __syncthreads();
    double sum = 0;
    EACH(i, count) {
        double value = wide_at(x, i, type);
        if (!isfinite(value)) continue;
        sum += (value - mean) * (value - mean);
        double at = fmin(fmax((value - least) * scale, 0.0), BINS - 1.0);
        atomicAdd(&bins[static_cast<int>(at)], 1u);
    }
    parts[threadIdx.x] = sum;
    __syncthreads();
    for (int step = THREADS / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) parts[threadIdx.x] += parts[threadIdx.x + step];
        __syncthreads();
    }
    if (threadIdx.x == 0) squares[blockIdx.x] = parts[0];
    if (threadIdx.x < BINS) atomicAdd(&histogram[threadIdx.x], static_cast<unsigned long long>(bins[threadIdx.x]));
}
