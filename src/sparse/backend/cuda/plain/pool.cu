// Pooling over a table of neighbours, and its gradients over the reversed table. One thread writes each number.
#include "value.cuh"

// The largest value of each target's sources. NaN wins, as in PyTorch. One thread per element.
extern "C" __global__ void max_pool(const int* table, int targets, int offsets, const void* x, int channels, void* y, int type) {
    long long at = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
    if (at >= static_cast<long long>(targets) * channels) return;
    long long target = at / channels, c = at % channels;
    float largest = -INFINITY;
    for (int r = 0; r < offsets; ++r) {
        int source = table[static_cast<long long>(r) * targets + target];
        if (source < 0) continue;
        float value = value_at(x, static_cast<long long>(source) * channels + c, type);
        if (value > largest || isnan(value)) largest = value;
    }
    put_at(y, at, type, largest);
}

// The gradient of each source: the sum of the gradients of those of its targets whose largest value it has.
extern "C" __global__ void max_pool_gradient(const int* back, int sources, int offsets, const void* x, const void* y, const void* grad,
                                             int channels, void* gradient, int type) {
    long long at = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
    if (at >= static_cast<long long>(sources) * channels) return;
    long long source = at / channels, c = at % channels;
    float value = value_at(x, at, type), sum = 0.0f;
    for (int r = 0; r < offsets; ++r) {
        int target = back[static_cast<long long>(r) * sources + source];
        if (target < 0) continue;
        long long there = static_cast<long long>(target) * channels + c;
        if (value_at(y, there, type) == value) sum += value_at(grad, there, type);
    }
    put_at(gradient, at, type, sum);
}

// Counts the sources of each target.
extern "C" __global__ void count_sources(const int* table, int targets, int offsets, float* counts) {
    int target = blockIdx.x * blockDim.x + threadIdx.x;
    if (target >= targets) return;
    int count = 0;
    for (int r = 0; r < offsets; ++r) count += table[static_cast<long long>(r) * targets + target] >= 0;
    counts[target] = count;
}

// The mean of each target's sources.
extern "C" __global__ void avg_pool(const int* table, int targets, int offsets, const float* counts, const void* x, int channels, void* y,
                                    int type) {
    long long at = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
    if (at >= static_cast<long long>(targets) * channels) return;
    long long target = at / channels, c = at % channels;
    float sum = 0.0f;
    for (int r = 0; r < offsets; ++r) {
        int source = table[static_cast<long long>(r) * targets + target];
        if (source >= 0) sum += value_at(x, static_cast<long long>(source) * channels + c, type);
    }
    put_at(y, at, type, sum / counts[target]);
}

// The gradient of each source. Each of its targets adds its gradient, divided by its number of sources.
extern "C" __global__ void avg_pool_gradient(const int* back, int sources, int offsets, const float* counts, const void* grad,
                                             int channels, void* gradient, int type) {
    long long at = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
    if (at >= static_cast<long long>(sources) * channels) return;
    long long source = at / channels, c = at % channels;
    float sum = 0.0f;
    for (int r = 0; r < offsets; ++r) {
        int target = back[static_cast<long long>(r) * sources + source];
        if (target >= 0) sum += value_at(grad, static_cast<long long>(target) * channels + c, type) / counts[target];
    }
    put_at(gradient, at, type, sum);
}
