// Arithmetic on lists of parameters in place, and the sum of squares of gradients. One launch serves many tensors: each block works on at
// most PIECE elements of one tensor.

constexpr int MOST = 80;
constexpr int PIECE = 4096;
constexpr int BLOCK = 256;

// Has the layout of `Many` in src/gpu/update.rs.
struct Many {
    float* at[4][MOST];
    long long counts[MOST];
    int firsts[MOST];  // each tensor's first block
    float keep[MOST];
    int tensors;
};

// The part of a tensor that a block works on.
struct Part {
    int tensor;
    long long begin, end;
};

__device__ inline Part part_of(const Many& many) {
    int low = 0, high = many.tensors - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (many.firsts[middle] <= static_cast<int>(blockIdx.x)) low = middle;
        else high = middle - 1;
    }
    long long begin = (blockIdx.x - many.firsts[low]) * static_cast<long long>(PIECE);
    return {low, begin, min(many.counts[low], begin + PIECE)};
}

#define EACH(i, part) for (long long i = part.begin + threadIdx.x; i < part.end; i += BLOCK)

// to = to * keep + from * take
extern "C" __global__ void follow(Many many, float take) {
    Part part = part_of(many);
    float* to = many.at[0][part.tensor];
    const float* from = many.at[1][part.tensor];
    float keep = many.keep[part.tensor];
    EACH(i, part) to[i] = to[i] * keep + from[i] * take;
}

// Updates the running means of the gradient and of its square, then
// value = value * keep - mean * rate / (sqrt(square * unbias) + eps)
extern "C" __global__ void adam(Many many, float keep1, float take1, float keep2, float take2, float rate, float unbias, float eps) {
    Part part = part_of(many);
    float *value = many.at[0][part.tensor], *mean = many.at[1][part.tensor], *square = many.at[2][part.tensor];
    const float* grad = many.at[3][part.tensor];
    float keep = many.keep[part.tensor];
    EACH(i, part) {
        float g = grad[i];
        float m = mean[i] * keep1 + g * take1;
        float s = square[i] * keep2 + g * g * take2;
        mean[i] = m;
        square[i] = s;
        value[i] = value[i] * keep - m * rate / (sqrtf(s * unbias) + eps);
    }
}

// Adds up the values of a block's threads in a fixed order. The first thread gets the sum.
template <int THREADS>
__device__ inline double sum_of(double value) {
    __shared__ double parts[THREADS];
    parts[threadIdx.x] = value;
    __syncthreads();
    for (int step = THREADS / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) parts[threadIdx.x] += parts[threadIdx.x + step];
        __syncthreads();
    }
    return parts[0];
}

// Writes the sum of squares of each block's part.
extern "C" __global__ void square_shares(Many many, double* shares) {
    Part part = part_of(many);
    const float* values = many.at[0][part.tensor];
    double sum = 0;
    EACH(i, part) sum += static_cast<double>(values[i]) * values[i];
    sum = sum_of<BLOCK>(sum);
    if (threadIdx.x == 0) shares[blockIdx.x] = sum;
}

// Adds the shares to `sum`. One block of 1024.
extern "C" __global__ void add_shares(const double* shares, long long count, double* sum) {
    double part = 0;
    for (long long i = threadIdx.x; i < count; i += 1024) part += shares[i];
    part = sum_of<1024>(part);
    if (threadIdx.x == 0) *sum += part;
}
