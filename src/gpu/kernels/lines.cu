// Softmax and layer normalisation of each row of a matrix (rows, width), and their gradients. One warp per row: grid (rows / 8), block
// (32, 8). The order of every sum depends only on the width.

__device__ inline float of_warp(float value) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

__device__ inline float largest_of_warp(float value) {
    for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
    return value;
}

__device__ inline long long row_of_warp() { return blockIdx.x * 8LL + threadIdx.y; }

extern "C" __global__ void softmax(const float* x, long long rows, int width, float* y) {
    long long row = row_of_warp();
    if (row >= rows) return;
    x += row * width;
    y += row * width;
    float largest = -INFINITY, sum = 0.0f;
    for (int at = threadIdx.x; at < width; at += 32) largest = fmaxf(largest, x[at]);
    largest = largest_of_warp(largest);
    for (int at = threadIdx.x; at < width; at += 32) sum += expf(x[at] - largest);
    float inverse = 1.0f / of_warp(sum);
    for (int at = threadIdx.x; at < width; at += 32) y[at] = expf(x[at] - largest) * inverse;
}

// From the result `y` and its gradient.
extern "C" __global__ void softmax_gradient(const float* y, const float* grad, long long rows, int width, float* x_grad) {
    long long row = row_of_warp();
    if (row >= rows) return;
    y += row * width;
    grad += row * width;
    x_grad += row * width;
    float sum = 0.0f;
    for (int at = threadIdx.x; at < width; at += 32) sum += y[at] * grad[at];
    sum = of_warp(sum);
    for (int at = threadIdx.x; at < width; at += 32) x_grad[at] = y[at] * (grad[at] - sum);
}

// Also writes `scaling` (2, rows): mean and 1 / sqrt(variance + eps).
extern "C" __global__ void layer_norm(const float* x, const float* weight, const float* bias, long long rows, int width, float eps, float* y,
                                      float* scaling) {
    long long row = row_of_warp();
    if (row >= rows) return;
    x += row * width;
    y += row * width;
    float sum = 0.0f, squares = 0.0f;
    for (int at = threadIdx.x; at < width; at += 32) sum += x[at];
    float mean = of_warp(sum) / width;
    for (int at = threadIdx.x; at < width; at += 32) squares += (x[at] - mean) * (x[at] - mean);
    float inverse = 1.0f / sqrtf(of_warp(squares) / width + eps);
    for (int at = threadIdx.x; at < width; at += 32) y[at] = (x[at] - mean) * inverse * weight[at] + bias[at];
    if (threadIdx.x == 0) {
        scaling[row] = mean;
        scaling[rows + row] = inverse;
    }
}

// Also writes `product`: the gradient times the normalised input, whose columns add up to the weight's gradient.
extern "C" __global__ void layer_norm_gradient(const float* x, const float* weight, const float* scaling, const float* grad, long long rows,
                                               int width, float* x_grad, float* product) {
    long long row = row_of_warp();
    if (row >= rows) return;
    float mean = scaling[row], inverse = scaling[rows + row];
    x += row * width;
    grad += row * width;
    x_grad += row * width;
    product += row * width;
    float sum = 0.0f, along = 0.0f;
    for (int at = threadIdx.x; at < width; at += 32) {
        float weighted = grad[at] * weight[at];
        sum += weighted;
        along += weighted * ((x[at] - mean) * inverse);
    }
    sum = of_warp(sum) / width;
    along = of_warp(along) / width;
    for (int at = threadIdx.x; at < width; at += 32) {
        float normed = (x[at] - mean) * inverse;
        x_grad[at] = inverse * (grad[at] * weight[at] - sum - normed * along);
        product[at] = grad[at] * normed;
    }
}
