// Adds the sums of the blocks in their order: dW (out, volume, in) from sums (splits, out, offsets, in). Offset v of the weights is offset
// index[v] of the sums.
#include "index.cuh"
#include "largest.cuh"

__device__ inline float sum_of(const float* sums, int in, int out, int volume, int offsets, const Index& index, int splits, int i) {
  size_t from = (size_t(i / in / volume) * offsets + index.at[i / in % volume]) * in + i % in, step = size_t(out) * offsets * in;
  float sum = 0;
#pragma unroll 4
  for (int s = 0; s < splits; s++) sum += sums[s * step + from];
  return sum;
}
extern "C" __global__ void wm_wgrad_sum(const float* sums, float* dw, int in, int out, int volume, int offsets, Index index, int splits) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < out * volume * in) dw[i] = sum_of(sums, in, out, volume, offsets, index, splits, i);
}
// The same for sums over scaled values (wm_split_half). Undoes the scale.
extern "C" __global__ void wm_wgrad_sum_scaled(const float* sums, float* dw, int in, int out, int volume, int offsets, Index index, int splits, const u32* largest_x, const u32* largest_g) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < out * volume * in) dw[i] = scalbnf(sum_of(sums, in, out, volume, offsets, index, splits, i), exponent_of(largest_x) + exponent_of(largest_g) - 2 * TOP);
}
