// Batch normalisation together with the operations after it, y = relu(norm(x) + shortcut), and its gradients.
#include "value.cuh"

// A scaling is (2, channels) f64: what to subtract from a value, and the factor for the difference. It is applied in f32.
__device__ inline float scaled(float x, const double* scaling, int column, int channels) {
    return (x - static_cast<float>(scaling[column])) * static_cast<float>(scaling[channels + column]);
}

// Calls `body(at, column)` for the four elements of a thread, which follow each other.
template <class Body>
__device__ inline void for_four(long long first, long long count, int channels, Body body) {
    int column = count >> 32 ? static_cast<int>(first % channels) : static_cast<int>(static_cast<unsigned>(first) % channels);
    for (int i = 0; i < 4 && first + i < count; ++i) {
        body(i, first + i, column);
        column = column + 1 == channels ? 0 : column + 1;
    }
}

struct Forward {
    const void *x, *shortcut;
    const double *scaling, *shortcut_scaling;
    const float* parameters;
    int type, relu, channels, y_type;
    long long count;
    void* y;
};

template <bool PLAIN>
__device__ inline void normalize_four(const Forward& of, long long first) {
    float x[4], shortcut[4], y[4];
    if (PLAIN) {
        read_four<PLAIN>(of.x, first, of.type, x);
        if (of.shortcut) read_four<PLAIN>(of.shortcut, first, of.type, shortcut);
    }
    int channels = of.channels;
    const float* second = of.parameters + 2 * channels;
    for_four(first, of.count, channels, [&](int i, long long at, int column) {
        float v = PLAIN ? x[i] : value_at(of.x, at, of.type);
        float sum = scaled(v, of.scaling, column, channels) * of.parameters[column] + of.parameters[channels + column];
        if (of.shortcut) {
            float other = PLAIN ? shortcut[i] : value_at(of.shortcut, at, of.type);
            if (of.shortcut_scaling) sum += scaled(other, of.shortcut_scaling, column, channels) * second[column] + second[channels + column];
            else sum += other;
        }
        // `sum < 0` is false for NaN, so NaN stays NaN.
        y[i] = of.relu && sum < 0.0f ? 0.0f : sum;
        if (!PLAIN) put_at(of.y, at, of.y_type, y[i]);
    });
    if (PLAIN) *reinterpret_cast<float4*>(static_cast<float*>(of.y) + first) = make_float4(y[0], y[1], y[2], y[3]);
}

// Parameters are (2, channels) or (4, channels) f32: weight and bias, then those of the shortcut if it is normalised. Such a shortcut has
// a scaling. One thread for each four elements.
extern "C" __global__ void normalize(const void* x, int type, const double* scaling, const float* parameters, const void* shortcut,
                                     const double* shortcut_scaling, int relu, long long count, int channels, void* y, int y_type) {
    long long first = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) * 4;
    if (first >= count) return;
    Forward of = {x, shortcut, scaling, shortcut_scaling, parameters, type, relu, channels, y_type, count, y};
    if (channels % 4 == 0 && in_fours(x, type) && in_fours(shortcut, type) && in_fours(y, y_type)) normalize_four<true>(of, first);
    else normalize_four<false>(of, first);
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
    float exact = scaled(value_at(x, at, type), scaling, column, channels);
    put_at(kept, at, kept_type, exact);
    if (!knee) return;
    float rounded = value_at(kept, at, kept_type);
    float weight = knee[column], bias = knee[channels + column];
    if ((rounded * weight + bias > 0.0f) != (exact * weight + bias > 0.0f)) put_beside(kept, at, kept_type, rounded, exact > rounded);
}

struct Backward {
    const void *grad, *out, *x;
    int grad_type, out_type, type, channels, gradient_type;
    const double *reading, *inverse, *grad_sums, *normed_sums;
    const float* weight;
    double share;
    long long count;
    void* gradient;
};

template <bool PLAIN>
__device__ inline void gradient_of_four(const Backward& of, long long first) {
    float grad[4], out[4], x[4], found[4];
    if (PLAIN) {
        read_four<PLAIN>(of.grad, first, of.grad_type, grad);
        if (of.out) read_four<PLAIN>(of.out, first, of.out_type, out);
        if (of.x) read_four<PLAIN>(of.x, first, of.type, x);
    }
    for_four(first, of.count, of.channels, [&](int i, long long at, int column) {
        float g = PLAIN ? grad[i] : value_at(of.grad, at, of.grad_type);
        if (of.out && !((PLAIN ? out[i] : value_at(of.out, at, of.out_type)) > 0.0f)) g = 0.0f;
        if (of.x) {
            float scale = static_cast<float>(of.inverse[column]) * of.weight[column];
            float constant = static_cast<float>(of.grad_sums[column] * of.share);
            float slope = static_cast<float>(of.normed_sums[column] * of.share);
            g = scale * (g - constant - scaled(PLAIN ? x[i] : value_at(of.x, at, of.type), of.reading, column, of.channels) * slope);
        }
        found[i] = g;
        if (!PLAIN) put_at(of.gradient, at, of.gradient_type, g);
    });
    if (PLAIN) *reinterpret_cast<float4*>(static_cast<float*>(of.gradient) + first) = make_float4(found[0], found[1], found[2], found[3]);
}

// Writes `weight * inverse * (g - (sum(g) + normalised * sum(g * normalised)) * share)`. `share` is 1 / rows, or 0 to leave the sums out.
// If `out` is given, g is 0 where `out` is not positive. Without `x`, g itself is written. `reading` is the scaling that normalises x;
// `inverse` is the factor of the forward pass. One thread for each four elements.
extern "C" __global__ void normalize_gradient(const void* grad, int grad_type, const void* out, int out_type, const void* x, int type,
                                              const double* reading, const double* inverse, const float* weight, const double* grad_sums,
                                              const double* normed_sums, double share, long long count, int channels, void* gradient,
                                              int gradient_type) {
    long long first = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) * 4;
    if (first >= count) return;
    Backward of = {grad, out, x, grad_type, out_type, type, channels, gradient_type, reading, inverse, grad_sums, normed_sums, weight, share, count, gradient};
    bool plain = in_fours(grad, grad_type) && in_fours(out, out_type) && in_fours(x, type) && in_fours(gradient, gradient_type);
    if (channels % 4 == 0 && plain) gradient_of_four<true>(of, first);
    else gradient_of_four<false>(of, first);
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
