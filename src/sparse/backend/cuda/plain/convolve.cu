// Convolution over a table of neighbours, and the gradient of its weights, for any map, any channels and any card. Sums are f32; one
// thread computes each of them in a fixed order.
#include "value.cuh"

constexpr int TILE = 64;   // rows and columns of a block's result
constexpr int DEPTH = 16;  // channels multiplied between two barriers

// `y[t][n] = bias[n] + sum over offsets r and channels k of x[table[r][t]][k] * w[n * step_n + r' * step_r + k * step_k]`, where r' is
// r, or offsets - 1 - r if mirrored. Grid (targets / 64, columns / 64), block 256.
extern "C" __global__ void __launch_bounds__(256)
    convolve_table(const int* table, int targets, int offsets, int mirrored, const void* x, int x_type, int depth, const void* w, int w_type,
                   int columns, long long step_n, long long step_r, long long step_k, const void* bias, int bias_type, void* y, int y_type) {
    __shared__ float rows[DEPTH][TILE + 4];
    __shared__ float weights[DEPTH][TILE + 4];
    __shared__ int sources[TILE];
    int first = blockIdx.x * TILE, column = blockIdx.y * TILE;
    int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    float sums[4][4] = {};
    for (int r = 0; r < offsets; ++r) {
        int source = -1;
        if (threadIdx.x < TILE && first + threadIdx.x < targets) source = table[static_cast<long long>(r) * targets + first + threadIdx.x];
        if (threadIdx.x < TILE) sources[threadIdx.x] = source;
        if (!__syncthreads_or(source >= 0)) continue;
        long long at_r = static_cast<long long>(mirrored ? offsets - 1 - r : r) * step_r;
        for (int k0 = 0; k0 < depth; k0 += DEPTH) {
            for (int i = threadIdx.x; i < TILE * DEPTH; i += 256) {
                int row = i / DEPTH, k = i % DEPTH, from = sources[row];
                rows[k][row] = from >= 0 && k0 + k < depth ? value_at(x, static_cast<long long>(from) * depth + k0 + k, x_type) : 0.0f;
                // Neighbouring threads read neighbouring weights, in whichever order the weights are stored.
                int n = step_k == 1 ? row : i % TILE, kw = step_k == 1 ? k : i / TILE;
                weights[kw][n] = column + n < columns && k0 + kw < depth
                                     ? value_at(w, (column + n) * step_n + at_r + (k0 + kw) * step_k, w_type)
                                     : 0.0f;
            }
            __syncthreads();
            for (int k = 0; k < DEPTH; ++k) {
                float a[4], b[4];
                for (int i = 0; i < 4; ++i) a[i] = rows[k][ty * 4 + i], b[i] = weights[k][tx * 4 + i];
                for (int i = 0; i < 4; ++i)
                    for (int j = 0; j < 4; ++j) sums[i][j] += a[i] * b[j];
            }
            __syncthreads();
        }
    }
    for (int i = 0; i < 4; ++i) {
        int row = first + ty * 4 + i;
        if (row >= targets) continue;
        for (int j = 0; j < 4; ++j) {
            int n = column + tx * 4 + j;
            if (n >= columns) continue;
            float sum = sums[i][j] + (bias ? value_at(bias, n, bias_type) : 0.0f);
            put_at(y, static_cast<long long>(row) * columns + n, y_type, sum);
        }
    }
}

// Writes the shares of the weights' gradient, with r' as above: `shares[split][o][r'][i] = sum over targets t of the split of
// grad[t][o] * x[table[r][t]][i]`. Grid (inputs / 64 * outputs / 64, offsets, splits), block 256.
extern "C" __global__ void __launch_bounds__(256)
    weight_shares(const int* table, int targets, int offsets, int mirrored, const void* x, int x_type, int inputs, const void* grad,
                  int grad_type, int outputs, int each, float* shares) {
    __shared__ float rows[DEPTH][TILE + 4];
    __shared__ float grads[DEPTH][TILE + 4];
    __shared__ int sources[DEPTH];
    int across = (inputs + TILE - 1) / TILE;
    int input = blockIdx.x % across * TILE, output = blockIdx.x / across * TILE, r = blockIdx.y;
    int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    int end = min(static_cast<long long>(targets), (blockIdx.z + 1ll) * each);
    float sums[4][4] = {};
    for (int first = blockIdx.z * each; first < end; first += DEPTH) {
        int source = -1;
        if (threadIdx.x < DEPTH && first + threadIdx.x < end) source = table[static_cast<long long>(r) * targets + first + threadIdx.x];
        if (threadIdx.x < DEPTH) sources[threadIdx.x] = source;
        if (!__syncthreads_or(source >= 0)) continue;
        for (int i = threadIdx.x; i < TILE * DEPTH; i += 256) {
            int t = i / TILE, c = i % TILE, from = sources[t];
            rows[t][c] = from >= 0 && input + c < inputs ? value_at(x, static_cast<long long>(from) * inputs + input + c, x_type) : 0.0f;
            grads[t][c] = from >= 0 && output + c < outputs
                              ? value_at(grad, static_cast<long long>(first + t) * outputs + output + c, grad_type)
                              : 0.0f;
        }
        __syncthreads();
        for (int t = 0; t < DEPTH; ++t) {
            float a[4], b[4];
            for (int i = 0; i < 4; ++i) a[i] = grads[t][ty * 4 + i], b[i] = rows[t][tx * 4 + i];
            for (int i = 0; i < 4; ++i)
                for (int j = 0; j < 4; ++j) sums[i][j] += a[i] * b[j];
        }
        __syncthreads();
    }
    int at_r = mirrored ? offsets - 1 - r : r;
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) {
            long long o = output + ty * 4 + i, c = input + tx * 4 + j;
            if (o < outputs && c < inputs) shares[((blockIdx.z * static_cast<long long>(outputs) + o) * offsets + at_r) * inputs + c] = sums[i][j];
        }
}

// Adds `count` shares of `length` numbers in their order. Grid (length / 256), block 256.
extern "C" __global__ void add_shares(const float* shares, int count, long long length, float* sums) {
    long long at = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
    if (at >= length) return;
    float sum = 0.0f;
    for (int share = 0; share < count; ++share) sum += shares[share * length + at];
    sums[at] = sum;
}
