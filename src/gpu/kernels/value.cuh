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

// Rounds to nearest, ties to even.
__device__ inline void put_at(void* values, size_t at, int type, float value) {
    switch (type) {
    case F16: static_cast<__half*>(values)[at] = __float2half_rn(value); break;
    case BF16: static_cast<__nv_bfloat16*>(values)[at] = __float2bfloat16_rn(value); break;
    case F64: static_cast<double*>(values)[at] = value; break;
    default: static_cast<float*>(values)[at] = value;
    }
}
