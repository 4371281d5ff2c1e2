// Sums over the rows of a matrix (rows, channels). Each block adds one share of the rows in double precision. The shares are then added
// in their order, so the result is the same on every run.
#include "value.cuh"

constexpr int LANES = 32;
constexpr int LINES = 8;         // of a block that adds a share
constexpr int TOTAL_LINES = 32;  // of a block that adds up shares

// Adds up the sums of a block's lines and writes the totals to `share`.
template <int COUNT>
__device__ inline void put_share(double sum, double* share, int column, int channels) {
    __shared__ double lines[COUNT][LANES];
    lines[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < channels) {
        double total = 0;
        for (int line = 0; line < COUNT; ++line) total += lines[line][threadIdx.x];
        share[column] = total;
    }
    __syncthreads();
}

// The sum of a thread's rows, `LINES` apart.
template <bool PLAIN>
__device__ inline double sum_of(const void* x, int type, long long begin, long long end, int channels, int column) {
    double sum = 0;
#pragma unroll 8
    for (long long row = begin; row < end; row += LINES) sum += read<PLAIN>(x, row * channels + column, type);
    return sum;
}

// Grid (channels / 32, shares), block (32, 8).
extern "C" __global__ void column_shares(const void* x, int type, long long rows, int channels, double* shares) {
    int column = blockIdx.x * LANES + threadIdx.x;
    long long each = (rows + gridDim.y - 1) / gridDim.y;
    long long begin = blockIdx.y * each + threadIdx.y, end = column < channels ? min(rows, (blockIdx.y + 1) * each) : 0;
    double sum = type == F32 ? sum_of<true>(x, type, begin, end, channels, column) : sum_of<false>(x, type, begin, end, channels, column);
    put_share<LINES>(sum, shares + static_cast<size_t>(blockIdx.y) * channels, column, channels);
}

// Adds up the shares. Each line adds every 32nd share; then the lines are added in their order.
// Grid (channels / 32), block (32, 32).
extern "C" __global__ void column_totals(const double* shares, int count, int channels, double* sums) {
    int column = blockIdx.x * LANES + threadIdx.x;
    double total = 0;
    if (column < channels)
        for (int share = threadIdx.y; share < count; share += TOTAL_LINES) total += shares[static_cast<size_t>(share) * channels + column];
    put_share<TOTAL_LINES>(total, sums, column, channels);
}

// The mean of a set of rows, and the sum of their squared distances from it.
struct Moments {
    double rows, mean, squares;
};

// The moments of the union of two sets of rows (Chan, Golub & LeVeque 1983).
__device__ inline Moments together(Moments a, Moments b) {
    if (b.rows == 0) return a;
    double rows = a.rows + b.rows, distance = b.mean - a.mean;
    return {rows, a.mean + distance * b.rows / rows, a.squares + b.squares + distance * distance * a.rows * b.rows / rows};
}

// Combines the moments of a block's lines pair by pair. Only the threads of the first line use the result.
template <int COUNT>
__device__ inline Moments of_lines(Moments own) {
    __shared__ Moments lines[COUNT][LANES];
    for (int step = COUNT / 2; step > 0; step /= 2) {
        lines[threadIdx.y][threadIdx.x] = own;
        __syncthreads();
        if (threadIdx.y < step) own = together(own, lines[threadIdx.y + step][threadIdx.x]);
        __syncthreads();
    }
    return own;
}

// The moments of the rows of a thread, `LINES` apart. It reads them twice; the second time, they come from a cache.
template <bool PLAIN>
__device__ inline Moments moments_of(const void* x, int type, long long begin, long long end, int channels, int column) {
    if (begin >= end) return {0, 0, 0};
    double squares = 0, rows = static_cast<double>((end - begin + LINES - 1) / LINES);
    double mean = sum_of<PLAIN>(x, type, begin, end, channels, column) / rows;
#pragma unroll 8
    for (long long row = begin; row < end; row += LINES) {
        double distance = read<PLAIN>(x, row * channels + column, type) - mean;
        squares += distance * distance;
    }
    return {rows, mean, squares};
}

// Computes the moments of each share of the rows. Grid (channels / 32, shares), block (32, 8); shares are (count, 2, channels): means, and
// sums of squared distances.
extern "C" __global__ void moment_shares(const void* x, int type, long long rows, int channels, double* shares) {
    int column = blockIdx.x * LANES + threadIdx.x;
    long long each = (rows + gridDim.y - 1) / gridDim.y;
    long long begin = blockIdx.y * each + threadIdx.y, end = column < channels ? min(rows, (blockIdx.y + 1) * each) : 0;
    Moments own = type == F32 ? moments_of<true>(x, type, begin, end, channels, column) : moments_of<false>(x, type, begin, end, channels, column);
    Moments all = of_lines<LINES>(own);
    if (threadIdx.y != 0 || column >= channels) return;
    double* share = shares + static_cast<size_t>(blockIdx.y) * 2 * channels;
    share[column] = all.mean;
    share[channels + column] = all.squares;
}

// The mean and the biased variance (in `squares`) of all rows, from the shares of `moment_shares`.
__device__ inline Moments of_shares(const double* shares, int count, long long rows, int column, int channels) {
    long long each = (rows + count - 1) / count;
    Moments own = {0, 0, 0};
    if (column < channels)
        for (int share = threadIdx.y; share < count; share += TOTAL_LINES) {
            const double* of = shares + static_cast<size_t>(share) * 2 * channels;
            long long here = min(rows, (share + 1) * each) - share * each;
            own = together(own, {here > 0 ? static_cast<double>(here) : 0.0, of[column], of[channels + column]});
        }
    Moments all = of_lines<TOTAL_LINES>(own);
    all.squares /= all.rows;
    return all;
}

// Grid (channels / 32), block (32, 32).
extern "C" __global__ void moment_totals(const double* shares, int count, long long rows, int channels, double* mean, double* variance) {
    int column = blockIdx.x * LANES + threadIdx.x;
    Moments all = of_shares(shares, count, rows, column, channels);
    if (threadIdx.y != 0 || column >= channels) return;
    mean[column] = all.mean;
    variance[column] = all.squares;
}

// Writes what normalises a batch to `scaling` (2, channels): mean and 1 / sqrt(variance + eps). If the layer's running mean and running
// unbiased variance are given, they move by `momentum` towards those of the batch. Grid (channels / 32), block (32, 32).
extern "C" __global__ void batch_scaling(const double* shares, int count, long long rows, int channels, double eps, double* scaling,
                                         float* running_mean, float* running_variance, double momentum) {
    int column = blockIdx.x * LANES + threadIdx.x;
    Moments all = of_shares(shares, count, rows, column, channels);
    if (threadIdx.y != 0 || column >= channels) return;
    scaling[column] = all.mean;
    scaling[channels + column] = 1 / sqrt(all.squares + eps);
    if (!running_mean) return;
    double unbiased = all.squares * (static_cast<double>(rows) / static_cast<double>(rows - 1));
    running_mean[column] = static_cast<float>(running_mean[column] * (1 - momentum) + all.mean * momentum);
    running_variance[column] = static_cast<float>(running_variance[column] * (1 - momentum) + unbiased * momentum);
}

// Writes the scaling from the running statistics. One thread per channel.
extern "C" __global__ void running_scaling(const float* mean, const float* variance, int channels, double eps, double* scaling) {
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= channels) return;
    scaling[column] = mean[column];
    scaling[channels + column] = 1 / sqrt(variance[column] + eps);
}

// What `gradient_shares` adds up.
struct GradientTerms {
    const void *grad, *out, *first, *second;
    int grad_type, out_type, type;
};

// The sums of a thread's rows, `LINES` apart: of the gradient, and of its products with both normalised inputs.
template <bool PLAIN>
__device__ inline void add_gradients(const GradientTerms& of, const double (&mean)[2], const double (&inverse)[2], long long begin, long long end,
                                     int channels, int column, double (&sums)[3]) {
    // Several rows are read before the first of them is added, because memory answers late.
    constexpr int AHEAD = 8;
    for (long long start = begin; start < end; start += AHEAD * LINES) {
        float g[AHEAD], y[AHEAD], a[AHEAD], b[AHEAD];
        auto rows = [&](const void* values, int type, float (&to)[AHEAD]) {
#pragma unroll
            for (int i = 0; i < AHEAD; ++i) {
                long long row = start + i * LINES;
                to[i] = row < end ? read<PLAIN>(values, row * channels + column, type) : 0.0f;
            }
        };
        rows(of.grad, of.grad_type, g);
        if (of.out) rows(of.out, of.out_type, y);
        rows(of.first, of.type, a);
        if (of.second) rows(of.second, of.type, b);
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            if (start + i * LINES >= end || (of.out && !(y[i] > 0.0f))) continue;
            double each = g[i];
            sums[0] += each;
            sums[1] += each * ((a[i] - mean[0]) * inverse[0]);
            if (of.second) sums[2] += each * ((b[i] - mean[1]) * inverse[1]);
        }
    }
}

// For each column: the sums of the gradient, of the gradient times the first normalised input, and of the gradient times the second. If
// `out` is given, a gradient counts only where `out` is positive. Grid (channels / 32, shares), block (32, 8); shares are (count, 3,
// channels).
extern "C" __global__ void gradient_shares(const void* grad, int grad_type, const void* out, int out_type, const void* first,
                                           const void* second, int type, const double* first_scaling, const double* second_scaling,
                                           long long rows, int channels, double* shares) {
    int column = blockIdx.x * LANES + threadIdx.x;
    long long each = (rows + gridDim.y - 1) / gridDim.y;
    long long begin = blockIdx.y * each + threadIdx.y, end = min(rows, (blockIdx.y + 1) * each);
    double sums[3] = {0, 0, 0};
    if (column < channels) {
        double mean[2] = {first_scaling[column], second ? second_scaling[column] : 0};
        double inverse[2] = {first_scaling[channels + column], second ? second_scaling[channels + column] : 0};
        GradientTerms of = {grad, out, first, second, grad_type, out_type, type};
        if (grad_type == F32 && out_type == F32 && type == F32) add_gradients<true>(of, mean, inverse, begin, end, channels, column, sums);
        else add_gradients<false>(of, mean, inverse, begin, end, channels, column, sums);
    }
    double* of = shares + static_cast<size_t>(blockIdx.y) * 3 * channels;
    for (int i = 0; i < 3; ++i) put_share<LINES>(sums[i], of + static_cast<size_t>(i) * channels, column, channels);
}
