// Arithmetic on parameters where they stand, and the sum of squares of a gradient.

// Grid-stride over `count` elements.
#define EACH(i, count) \
    for (long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; i < count; \
         i += static_cast<long long>(gridDim.x) * blockDim.x)

// to = to * keep + from * take
extern "C" __global__ void follow(float* to, const float* from, long long count, float keep, float take) {
    EACH(i, count) to[i] = to[i] * keep + from[i] * take;
}

// to = to * keep + from^2 * take
extern "C" __global__ void follow_square(float* to, const float* from, long long count, float keep, float take) {
    EACH(i, count) to[i] = to[i] * keep + from[i] * from[i] * take;
}

// value = value * keep - mean * rate / (sqrt(square * unbias) + eps)
extern "C" __global__ void adam(float* value, const float* mean, const float* square, long long count, float keep, float rate,
                                float unbias, float eps) {
    EACH(i, count) value[i] = value[i] * keep - mean[i] * rate / (sqrtf(square[i] * unbias) + eps);
}

// Adds the squares of a tensor to `sum`, in an order that its size alone decides. One block of 1024.
extern "C" __global__ void add_squares(const float* values, long long count, double* sum) {
    __shared__ double parts[1024];
    double part = 0;
    for (long long i = threadIdx.x; i < count; i += 1024) part += static_cast<double>(values[i]) * values[i];
    parts[threadIdx.x] = part;
    __syncthreads();
    for (int step = 512; step > 0; step /= 2) {
        if (threadIdx.x < step) parts[threadIdx.x] += parts[threadIdx.x + step];
        __syncthreads();
    }
    if (threadIdx.x == 0) *sum += parts[0];
}
