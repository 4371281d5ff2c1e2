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

struct Adam {
    float keep1, take1, keep2, take2, rate, unbias, eps, keep;
    __device__ void step(float g, float& value, float& mean, float& square) const {
        mean = mean * keep1 + g * take1;
        square = square * keep2 + g * g * take2;
        value = value * keep - mean * rate / (sqrtf(square * unbias) + eps);
    }
};

// Updates the running means of the gradient and of its square, then
// value = value * keep - mean * rate / (sqrt(square * unbias) + eps)
extern "C" __global__ void adam(Many many, float keep1, float take1, float keep2, float take2, float rate, float unbias, float eps) {
    Part part = part_of(many);
    float *value = many.at[0][part.tensor], *mean = many.at[1][part.tensor], *square = many.at[2][part.tensor];
    const float* grad = many.at[3][part.tensor];
    Adam adam = {keep1, take1, keep2, take2, rate, unbias, eps, many.keep[part.tensor]};
    long long i = part.begin + threadIdx.x * 4;
    if (!((reinterpret_cast<size_t>(value) | reinterpret_cast<size_t>(mean) | reinterpret_cast<size_t>(square) | reinterpret_cast<size_t>(grad)) & 15))
#pragma unroll 4
        for (; i + 4 <= part.end; i += BLOCK * 4) {
            float4 g = *reinterpret_cast<const float4*>(grad + i), v = *reinterpret_cast<float4*>(value + i), m = *reinterpret_cast<float4*>(mean + i),
                   s = *reinterpret_cast<float4*>(square + i);
            adam.step(g.x, v.x, m.x, s.x), adam.step(g.y, v.y, m.y, s.y), adam.step(g.z, v.z, m.z, s.z), adam.step(g.w, v.w, m.w, s.w);
            *reinterpret_cast<float4*>(value + i) = v;
            *reinterpret_cast<float4*>(mean + i) = m;
            *reinterpret_cast<float4*>(square + i) = s;
        }
    for (; i < part.end; i += BLOCK * 4)
        for (long long j = i; j < min(i + 4, part.end); ++j) adam.step(grad[j], value[j], mean[j], square[j]);
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
