// Batch normalisation together with the operations after it, y = relu(norm(x) + shortcut), and its gradients. One thread per element.
#include "value.cuh"

// A scaling is (2, channels) f64: what to subtract from a value, and the factor for the difference. It is applied in f32.
__device__ inline float scaled(const void* x, size_t at, int type, const double* scaling, int column, int channels) {
    return (value_at(x, at, type) - static_cast<float>(scaling[column])) * static_cast<float>(scaling[channels + column]);
}

// Parameters are (2, channels) or (4, channels) f32: weight and bias, then those of the shortcut if it is normalised. Such a shortcut has
// a scaling.
extern "C" __global__ void normalize(const void* x, int type, const double* scaling, const float* parameters, const void* shortcut,
                                     const double* shortcut_scaling, int relu, long long count, int channels, void* y, int y_type) {
    long long at = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
    if (at >= count) return;
    int column = at % channels;
    float sum = scaled(x, at, type, scaling, column, channels) * parameters[column] + parameters[channels + column];
    if (shortcut && shortcut_scaling) {
        const float* second = parameters + 2 * channels;
        sum += scaled(shortcut, at, type, shortcut_scaling, column, channels) * second[column] + second[channels + column];
    } else if (shortcut) {
        sum += value_at(shortcut, at, type);
    }
    // `sum < 0` is false for NaN, so NaN stays NaN.
    put_at(y, at, y_type, relu && sum < 0.0f ? 0.0f : sum);
}

// Writes the number of this type next above (or below) `rounded`.
__device__ inline void put_beside(void* values, size_t at, int type, float rounded, bool above) {
    unsigned step = (rounded > 0.0f) == above ? 1u : ~0u;
    if (type == F16 || type == BF16) {
        unsigned short* bits = static_cast<unsigned short*>(values) + at;
        *bits = rounded == 0.0f ? (above ? 1 : 0x8001) : *bits + step;
    } else if (type == F32) {
        unsigned* bits = static_cast<unsigned*>(values) + at;
        *bits = rounded == 0.0f ? (above ? 1u : 0x80000001u) : *bits + step;
    }
}

// Writes the normalised values, rounded to nearest. Where that would move `value * weight + bias` of a knee to the other side of zero, the
// value is rounded to the other neighbour. The backward pass then finds the ReLU open and closed where it was.
extern "C" __global__ void keep_normalized(const void* x, int type, const double* scaling, const float* knee, long long count,
                                           int channels, void* kept, int kept_type) {
    long long at = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
    if (at >= count) return;
    int column = at % channels;
    float exact = scaled(x, at, type, scaling, column, channels);
    put_at(kept, at, kept_type, exact);
    if (!knee) return;
    float rounded = value_at(kept, at, kept_type);
    float weight = knee[column], bias = knee[channels + column];
    if ((rounded * weight + bias > 0.0f) != (exact * weight + bias > 0.0f)) put_beside(kept, at, kept_type, rounded, exact > rounded);
}

// Writes `weight * inverse * (g - (sum(g) + normalised * sum(g * normalised)) * share)`. `share` is 1 / rows, or 0 to leave the sums out.
// If `out` is given, g is 0 where `out` is not positive. Without `x`, g itself is written. `reading` is the scaling that normalises x;
// `inverse` is the factor of the forward pass.
extern "C" __global__ void normalize_gradient(const void* grad, int grad_type, const void* out, int out_type, const void* x, int type,
                                              const double* reading, const double* inverse, const float* weight, const double* grad_sums,
                                              const double* normed_sums, double share, long long count, int channels, void* gradient,
                                              int gradient_type) {
    long long at = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
    if (at >= count) return;
    int column = at % channels;
    float g = value_at(grad, at, grad_type);
    if (out && !(value_at(out, at, out_type) > 0.0f)) g = 0.0f;
    if (x) {
        float scale = static_cast<float>(inverse[column]) * weight[column];
        float constant = static_cast<float>(grad_sums[column] * share);
        float slope = static_cast<float>(normed_sums[column] * share);
        g = scale * (g - constant - scaled(x, at, type, reading, column, channels) * slope);
    }
    put_at(gradient, at, gradient_type, g);
}

// Writes the gradients of the parameters in their shape (rows, channels). `sums` (3, channels) are the sums of the gradient and of its
// products with both normalised inputs. One thread per parameter.
extern "C" __global__ void parameter_gradient(const double* sums, int rows, int channels, float* gradient) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= rows * channels) return;
    int row = at / channels;
    int of = row == 0 ? 1 : row == 2 ? 2 : 0;
    gradient[at] = static_cast<float>(sums[of * channels + at % channels]);
}
