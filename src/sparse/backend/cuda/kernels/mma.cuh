// Products of 16 x 32 bytes and 32 bytes x 8 by one warp's tensor cores: halves from sm_75 on, other types from sm_80 on.
#pragma once
#include "copy.cuh"
#include "kind.cuh"

template <Kind KIND> __device__ inline void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#define MMA(SHAPE, TYPES)                                                                                                                          \
  asm volatile("mma.sync.aligned." SHAPE ".row.col.f32." TYPES ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                        \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
#if __CUDA_ARCH__ >= 800
  if constexpr (KIND == F16) MMA("m16n8k16", "f16.f16");
  else if constexpr (KIND == BF16) MMA("m16n8k16", "bf16.bf16");
  else MMA("m16n8k8", "tf32.tf32");
#else
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(b0));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
#undef MMA
}
// Rounds operands for the tensor cores: f32 becomes TF32, and `low` becomes what the rounding loses, in f32.
template <Kind KIND> __device__ inline void round_to(u32 (&a)[4], u32 (&low)[4]) {
#if __CUDA_ARCH__ >= 800
  if constexpr (KIND >= TF32)
    for (int q = 0; q < 4; q++) {
      float v = __uint_as_float(a[q]), high = to_tf32(v);
      a[q] = __float_as_uint(high);
      low[q] = __float_as_uint(v - high);
    }
#endif
}
