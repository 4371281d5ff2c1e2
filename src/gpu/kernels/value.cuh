// Reads and writes numbers of any float type as f32. The type is known at run time and is the same for a whole launch.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

enum Type { F32 = 0, F16 = 1, BF16 = 2, F64 = 3 };

__device__ inline float value_at(const void* values, size_t at, int type) {
    switch (type) {
    case F16: return __half2float(static_cast<const __half*>(values)[at]);
    case BF16: return __bfloat162float(static_cast<const __nv_bfloat16*>(values)[at]);
    case F64: return static_cast<float>(static_cast<const double*>(values)[at]);
    default: return static_cast<const float*>(values)[at];
    }
}

// The same; PLAIN says at compile time that the type is F32, so that many reads can be under way together.
template <bool PLAIN>
__device__ inline float read(const void* values, size_t at, int type) {
    if constexpr (PLAIN) return static_cast<const float*>(values)[at];
    else return value_at(values, at, type);
}

// Rounds to nearest, ties to even.
__device__ inline void put_at(void* values, size_t at, int type, float value) {
    switch (type) {
    case F16: static_cast<__half*>(values)[at] = __float2half_rn(value); break;
    case BF16: static_cast<__nv_bfloat16*>(values)[at] = __float2bfloat16_rn(value); break;
    case F64: static_cast<double*>(values)[at] = value; break;
    default: static_cast<float*>(values)[at] = value;
    }
}

// Four numbers that follow each other.
template <bool PLAIN>
__device__ inline void read_four(const void* values, size_t at, int type, float (&to)[4]) {
    if constexpr (PLAIN) {
        float4 four = *reinterpret_cast<const float4*>(static_cast<const float*>(values) + at);
        to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
    } else {
        for (int i = 0; i < 4; ++i) to[i] = value_at(values, at + i, type);
    }
}

// Whether `read_four` may read these as plain: F32 at a multiple of 16 bytes, or nothing.
__device__ inline bool in_fours(const void* values, int type) { return !values || (type == F32 && !(reinterpret_cast<size_t>(values) & 15)); }
