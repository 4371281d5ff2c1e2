// Sums over the rows of a matrix (rows, channels). Each block adds a share of the rows, in double precision, and the shares are added
// in their order: the result is the same on every run.
#include "value.cuh"

constexpr int LANES = 32;
constexpr int LINES = 8;

// Adds the sums of a block's lines, and writes them to `share`.
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

// Grid (channels / 32, shares), block (32, 8). `what`: 0 x, 1 (x - center)^2.
extern "C" __global__ void column_shares(const void* x, int type, long long rows, int channels, const double* center, int what,
                                         double* shares) {
    int column = blockIdx.x * LANES + threadIdx.x;
    long long each = (rows + gridDim.y - 1) / gridDim.y;
    long long end = min(rows, (blockIdx.y + 1) * each);
    double sum = 0;
    if (column < channels) {
        double middle = what == 1 ? center[column] : 0;
        for (long long row = blockIdx.y * each + threadIdx.y; row < end; row += LINES) {
            double value = static_cast<double>(value_at(x, row * channels + column, type)) - middle;
            sum += what == 1 ? value * value : value;
        }
    }
    put_share(sum, shares + static_cast<size_t>(blockIdx.y) * channels, column, channels);
}

// `sums[column] = scale * sum of the shares`. Grid (channels / 256), block 256.
extern "C" __global__ void column_totals(const double* shares, int count, int channels, double scale, double* sums) {
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= channels) return;
    double total = 0;
    for (int share = 0; share < count; ++share) total += shares[static_cast<size_t>(share) * channels + column];
    sums[column] = total * scale;
}

// Of each column: the sum of the gradient, of the gradient times the first normalised input, and times the second. Where `out` is
// given, a gradient counts only where it is positive. Grid (channels / 32, shares), block (32, 8); shares are (count, 3, channels).
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
        for (long long row = blockIdx.y * each + threadIdx.y; row < end; row += LINES) {
            size_t at = row * channels + column;
            if (out && !(value_at(out, at, out_type) > 0.0f)) continue;
            double g = value_at(grad, at, grad_type);
            sums[0] += g;
            sums[1] += g * ((value_at(first, at, type) - mean[0]) * inverse[0]);
            if (second) sums[2] += g * ((value_at(second, at, type) - mean[1]) * inverse[1]);
        }
    }
    double* of = shares + static_cast<size_t>(blockIdx.y) * 3 * channels;
    for (int i = 0; i < 3; ++i) put_share(sums[i], of + static_cast<size_t>(i) * channels, column, channels);
}
