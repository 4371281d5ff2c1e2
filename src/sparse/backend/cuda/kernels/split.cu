// f32 values as sums of bf16 values, for weight gradients in f32 on the tensor cores' fast path: two parts keep 16 bits, three all 24.
#include "common.cuh"

// parts[p][count]; one thread for four values, count a multiple of 4.
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
