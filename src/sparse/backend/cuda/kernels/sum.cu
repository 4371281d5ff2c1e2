// The sums of blocks added in their order: dW (out, volume, in) from sums (splits, out, offsets, in). index[v]: which of the sums' offsets
// is offset v of the weights.
#include "common.cuh"
#include "index.cuh"

extern "C" __global__ void wm_wgrad_sum(const float* sums, float* dw, int in, int out, int volume, int offsets, Index index, int splits) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= out * volume * in) return;
  size_t from = (size_t(i / in / volume) * offsets + index.at[i / in % volume]) * in + i % in, step = size_t(out) * offsets * in;
  float sum = 0;
#pragma unroll 4
  for (int s = 0; s < splits; s++) sum += sums[s * step + from];
  dw[i] = sum;
}
