// Splits f32 values into sums of two halves (22 bits), for weight gradients in f32 on the tensor cores' fast path. A power of two scales
// the values, so that the largest is near the top of f16's range.
#include "largest.cuh"

// Writes the bits of the largest finite magnitude of `count` values, a multiple of 4. largest[0] must be zero before.
extern "C" __global__ void __launch_bounds__(256) wm_largest(const float4* x, u32 count, u32* largest) {
  u32 found = 0;
  auto see = [&](float v) {
    u32 bits = __float_as_uint(v) & 0x7fffffff;
    if (bits < 0x7f800000) found = max(found, bits);
  };
#pragma unroll 4
  for (u32 i = blockIdx.x * 256 + threadIdx.x; i < count / 4; i += gridDim.x * 256) {
    float4 v = x[i];
    see(v.x);
    see(v.y);
    see(v.z);
    see(v.w);
  }
  for (int d = 16; d; d /= 2) found = max(found, __shfl_xor_sync(~0u, found, d));
  if (threadIdx.x % 32 == 0 && found) atomicMax(largest, found);
}

// Writes `many` (1 or 2) parts, parts[p][count]. One thread for four values; count is a multiple of 4.
extern "C" __global__ void __launch_bounds__(256) wm_split_half(const float4* x, uint2* parts, u32 count, int many, const u32* largest) {
  u32 i = blockIdx.x * 256 + threadIdx.x;
  if (i >= count / 4) return;
  int shift = TOP - exponent_of(largest);
  float4 v = x[i];
  v = make_float4(scalbnf(v.x, shift), scalbnf(v.y, shift), scalbnf(v.z, shift), scalbnf(v.w, shift));
  for (int p = 0; p < many; p++) {
    __half2 a = __floats2half2_rn(v.x, v.y), b = __floats2half2_rn(v.z, v.w);
    parts[size_t(p) * (count / 4) + i] = make_uint2(*reinterpret_cast<u32*>(&a), *reinterpret_cast<u32*>(&b));
    float2 fa = __half22float2(a), fb = __half22float2(b);
    v = make_float4(v.x - fa.x, v.y - fa.y, v.z - fb.x, v.w - fb.y);
  }
}

// The same with parts in bf16 and without a scale.
extern "C" __global__ void wm_split(const float4* x, uint2* parts, int count, int many) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count / 4) return;
  float4 v = x[i];
  for (int p = 0; p < many; p++) {
    __nv_bfloat162 a = __floats2bfloat162_rn(v.x, v.y), b = __floats2bfloat162_rn(v.z, v.w);
    parts[size_t(p) * (count / 4) + i] = make_uint2(*reinterpret_cast<u32*>(&a), *reinterpret_cast<u32*>(&b));
    float2 fa = __bfloat1622float2(a), fb = __bfloat1622float2(b);
    v = make_float4(v.x - fa.x, v.y - fa.y, v.z - fb.x, v.w - fb.y);
  }
}
