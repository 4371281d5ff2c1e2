// Sums over the rows of a matrix (rows, channels). Each block adds one share of the rows in double precision. The shares are then added
// in their order, so the result is the same on every run.
#include "value.cuh"

constexpr int LANES = 32;
constexpr int LINES = 8;

// Adds up the sums of a block's lines and writes the totals to `share`.
__device__ inline void put_share(double sum, double* share, int column, int channels) {
    __shared__ double lines[LINES][LANES];
    lines[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < channels) {
        double total = 0;
        for (int line = 0; line < LINES; ++line) total += lines[line][threadIdx.x];
        share[column] = total;
    }
    __syncthreads();
}

// Grid (channels / 32, shares), block (32, 8).
extern "C" __global__ void column_shares(const void* x, int type, long long rows, int channels, double* shares) {
    int column = blockIdx.x * LANES + threadIdx.x;
    long long each = (rows + gridDim.y - 1) / gridDim.y;
    long long end = min(rows, (blockIdx.y + 1) * each);
    double sum = 0;
    if (column < channels)
        for (long long row = blockIdx.y * each + threadIdx.y; row < end; row += LINES) sum += value_at(x, row * channels + column, type);
    put_share(sum, shares + static_cast<size_t>(blockIdx.y) * channels, column, channels);
}

// Adds up the shares. Each line adds every eighth share; then the lines are added in their order.
// Grid (channels / 32), block (32, 8).
extern "C" __global__ void column_totals(const double* shares, int count, int channels, double* sums) {
    int column = blockIdx.x * LANES + threadIdx.x;
    double total = 0;
    if (column < channels)
        for (int share = threadIdx.y; share < count; share += LINES) total += shares[static_cast<size_t>(share) * channels + column];
    put_share(total, sums, column, channels);
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

// Combines the moments of a block's lines in their order. Only the threads of the first line use the result.
__device__ inline Moments of_lines(Moments own) {
    __shared__ Moments lines[LINES][LANES];
    lines[threadIdx.y][threadIdx.x] = own;
    __syncthreads();
    Moments all = lines[0][threadIdx.x];
    for (int line = 1; line < LINES; ++line) all = together(all, lines[line][threadIdx.x]);
    return all;
}

// Computes the moments of each share of the rows. Each thread reads its rows twice; the second time, they come from a cache.
// Grid (channels / 32, shares), block (32, 8); shares are (count, 2, channels): means, and sums of squared distances.
extern "C" __global__ void moment_shares(const void* x, int type, long long rows, int channels, double* shares) {
    int column = blockIdx.x * LANES + threadIdx.x;
    long long each = (rows + gridDim.y - 1) / gridDim.y;
    long long begin = blockIdx.y * each + threadIdx.y, end = min(rows, (blockIdx.y + 1) * each);
    Moments own = {0, 0, 0};
    if (column < channels && begin < end) {
        for (long long row = begin; row < end; row += LINES) own.mean += value_at(x, row * channels + column, type);
        own.rows = static_cast<double>((end - begin + LINES - 1) / LINES);
        own.mean /= own.rows;
        for (long long row = begin; row < end; row += LINES) {
            double distance = value_at(x, row * channels + column, type) - own.mean;
            own.squares += distance * distance;
        }
    }
    Moments all = of_lines(own);
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
        for (int share = threadIdx.y; share < count; share += LINES) {
            const double* of = shares + static_cast<size_t>(share) * 2 * channels;
            long long here = min(rows, (share + 1) * each) - share * each;
            own = together(own, {here > 0 ? static_cast<double>(here) : 0.0, of[column], of[channels + column]});
        }
    Moments all = of_lines(own);
    all.squares /= all.rows;
    return all;
}

// Grid (channels / 32), block (32, 8).
extern "C" __global__ void moment_totals(const double* shares, int count, long long rows, int channels, double* mean, double* variance) {
    int column = blockIdx.x * LANES + threadIdx.x;
    Moments all = of_shares(shares, count, rows, column, channels);
    if (threadIdx.y != 0 || column >= channels) return;
    mean[column] = all.mean;
    variance[column] = all.squares;
}

// Writes what normalises a batch to `scaling` (2, channels): mean and 1 / sqrt(variance + eps). If the layer's running mean and running
// unbiased variance are given, they move by `momentum` towards those of the batch. Grid (channels / 32), block (32, 8).
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

// For each column: the sums of the gradient, of the gradient times the first normalised input, and of the gradient times the second. If
// `out` is given, a gradient counts only where `out` is positive. Grid (channels / 32, shares), block (32, 8); shares are (count, 3,
// channels).
extern "C" __global__ void gradient_shares(const void* grad, int grad_type, const void* out, int out_type, const void* first,
                                           const void* second, int type, const double* first_scaling, const double* second_scaling,
                                           long long rows, int channels, double* shares) {
    int column = blockIdx.x * LANES + threadIdx.x;
    long long each = (rows + gridDim.y - 1) / gridDim.y;
    long long end = min(rows, (blockIdx.y + 1) * each);
    double sums[3] = {0, 0, 0};
    if (column < channels) {
        double mean[2] = {first_scaling[column], second ? second_scaling[column] : 0};
        double inverse[2] = {first_scaling[channels + column], second ? second_scaling[channels + column] : 0};
        // Several rows are read before the first of them is added, because memory answers late.
        constexpr int AHEAD = 8;
        for (long long start = blockIdx.y * each + threadIdx.y; start < end; start += AHEAD * LINES) {
            float g[AHEAD], a[AHEAD], b[AHEAD];
            for (int i = 0; i < AHEAD; ++i) {
                long long row = start + i * LINES;
                size_t at = row * channels + column;
                bool counts = row < end && (!out || value_at(out, at, out_type) > 0.0f);
                float read[3] = {row < end ? value_at(grad, at, grad_type) : 0.0f, row < end ? value_at(first, at, type) : 0.0f,
                                 row < end && second ? value_at(second, at, type) : 0.0f};
                g[i] = counts ? read[0] : 0.0f;
                a[i] = counts ? read[1] : 0.0f;
                b[i] = counts ? read[2] : 0.0f;
            }
            for (int i = 0; i < AHEAD; ++i) {
                double each_grad = g[i];
                sums[0] += each_grad;
                sums[1] += each_grad * ((a[i] - mean[0]) * inverse[0]);
                sums[2] += each_grad * ((b[i] - mean[1]) * inverse[1]);
            }
        }
    }
    double* of = shares + static_cast<size_t>(blockIdx.y) * 3 * channels;
    for (int i = 0; i < 3; ++i) put_share(sums[i], of + static_cast<size_t>(i) * channels, column, channels);
}
