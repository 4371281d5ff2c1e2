// Joins rows of features with the row of their batch element, scales or adds the rows of each element, and stacks rows of parameters.

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

// The first of `rows` sites (batch, z, y, x) in the order of their batch elements that does not belong to an element before `element`.
__device__ inline long long first_of(const int* sites, long long rows, int element) {
    long long low = 0, high = rows;
    while (low < high) {
        long long middle = (low + high) / 2;
        if (sites[4 * middle] < element) low = middle + 1;
        else high = middle;
    }
    return low;
}

// Adds the rows of each batch element, in the `width` columns from `first` on. If the sites are in the order of their elements, a block
// reads a share of its element's rows, otherwise it looks for them in a share of all rows. Grid (width / 32, batch, shares), block (32, 8);
// the shares of the sums are (shares, batch, width), and are to be added in their order.
extern "C" __global__ void sum_shares(const float* x, const int* sites, int by_element, long long rows, int columns, int first, int width,
                                      double* shares) {
    __shared__ double lines[8][32];
    int element = blockIdx.y, column = blockIdx.x * 32 + threadIdx.x;
    long long begin = by_element ? first_of(sites, rows, element) : 0, end = by_element ? first_of(sites, rows, element + 1) : rows;
    long long each = (end - begin + gridDim.z - 1) / gridDim.z;
    begin += blockIdx.z * each;
    end = min(end, begin + each);
    double sum = 0;
    if (column < width)
        for (long long row = begin + threadIdx.y; row < end; row += 8)
            if (by_element || sites[4 * row] == element) sum += x[row * columns + first + column];
    lines[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || column >= width) return;
    double total = 0;
    for (int line = 0; line < 8; ++line) total += lines[line][threadIdx.x];
    shares[(static_cast<size_t>(blockIdx.z) * gridDim.y + element) * width + column] = total;
}

// Scales each row (channels) by 1 + s and, if `shifted`, adds b; `factors` (batch, 2 channels) are s and b of its batch element. One thread
// per number.
extern "C" __global__ void modulate(const float* x, const float* factors, const int* sites, long long rows, int channels, int shifted,
                                    float* y) {
    long long at = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
    if (at >= rows * channels) return;
    const float* own = factors + 2LL * sites[4 * (at / channels)] * channels + at % channels;
    float scaled = x[at] * (1.0f + own[0]);
    y[at] = shifted ? scaled + own[channels] : scaled;
}

// Concatenates a, b and c. One thread per number.
extern "C" __global__ void join_three(const float* a, int a_count, const float* b, int b_count, const float* c, int c_count, float* joined) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= a_count + b_count + c_count) return;
    joined[at] = at < a_count ? a[at] : at < a_count + b_count ? b[at - a_count] : c[at - a_count - b_count];
}
