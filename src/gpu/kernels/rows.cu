// Joins rows of features with the row of their batch element, and stacks rows of parameters.

// Writes (rows, channels + width): each row's features, then the row of `table` for its batch element. Sites are (batch, z, y, x).
extern "C" __global__ void join_lines(const float* x, const float* table, const int* sites, long long rows, int channels, int width,
                                      float* joined) {
    long long at = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
    if (at >= rows * (channels + width)) return;
    long long row = at / (channels + width);
    int column = at % (channels + width);
    joined[at] = column < channels ? x[row * channels + column]
                                   : table[static_cast<long long>(sites[4 * row]) * width + column - channels];
}

// For each batch element and each of the `width` columns from `first` on, adds the rows of `grad` in a fixed order. Grid (width, batch),
// block 256.
extern "C" __global__ void sum_lines(const float* grad, const int* sites, long long rows, int columns, int first, float* sums) {
    __shared__ double parts[256];
    double part = 0;
    for (long long row = threadIdx.x; row < rows; row += 256)
        if (sites[4 * row] == static_cast<int>(blockIdx.y)) part += grad[row * columns + first + blockIdx.x];
    parts[threadIdx.x] = part;
    __syncthreads();
    for (int step = 128; step > 0; step /= 2) {
        if (threadIdx.x < step) parts[threadIdx.x] += parts[threadIdx.x + step];
        __syncthreads();
    }
    if (threadIdx.x == 0) sums[blockIdx.y * gridDim.x + blockIdx.x] = static_cast<float>(parts[0]);
}

// Concatenates a, b and c. One thread per number.
extern "C" __global__ void join_three(const float* a, int a_count, const float* b, int b_count, const float* c, int c_count, float* joined) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= a_count + b_count + c_count) return;
    joined[at] = at < a_count ? a[at] : at < a_count + b_count ? b[at - a_count] : c[at - a_count - b_count];
}
