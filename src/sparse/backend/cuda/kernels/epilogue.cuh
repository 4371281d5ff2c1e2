// Finishes the sums of a convolution and stores them, two neighbouring channels at a time.
#pragma once
#include "kind.cuh"

// y = activation(sum + bias + residual): bias (channels) and residual (rows, channels) may be null.
struct Epilogue {
  const void *bias, *residual;
  int activation;  // 0 none, 1 ReLU, 2 SiLU
};
__device__ inline float activate(float v, int activation) { return activation == 1 ? (v < 0 ? 0 : v) : activation == 2 ? v / (1 + __expf(-v)) : v; }
template <Kind KIND> __device__ inline float2 load_pair(const void* p, size_t at) {
  if constexpr (KIND == F16) return __half22float2(*reinterpret_cast<const __half2*>(static_cast<const __half*>(p) + at));
  else if constexpr (KIND == BF16) return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(static_cast<const __nv_bfloat16*>(p) + at));
  else return *reinterpret_cast<const float2*>(static_cast<const float*>(p) + at);
}
template <Kind KIND> __device__ inline void store_pair(void* p, size_t at, float2 v) {
  if constexpr (KIND == F16) *reinterpret_cast<__half2*>(static_cast<__half*>(p) + at) = __float22half2_rn(v);
  else if constexpr (KIND == BF16) *reinterpret_cast<__nv_bfloat162*>(static_cast<__nv_bfloat16*>(p) + at) = __float22bfloat162_rn(v);
  else *reinterpret_cast<float2*>(static_cast<float*>(p) + at) = v;
}
// Finishes channels `channel` and `channel + 1` of row `row`. Rows of y have `columns` channels.
template <Kind KIND> __device__ inline void finish_pair(const Epilogue& epilogue, void* y, int row, int columns, int channel, float2 v) {
  size_t to = size_t(row) * columns + channel;
  if (epilogue.bias) {
    float2 b = load_pair<KIND>(epilogue.bias, channel);
    v = make_float2(v.x + b.x, v.y + b.y);
  }
  if (epilogue.residual) {
    float2 r = load_pair<KIND>(epilogue.residual, to);
    v = make_float2(v.x + r.x, v.y + r.y);
  }
  if (epilogue.activation) v = make_float2(activate(v.x, epilogue.activation), activate(v.y, epilogue.activation));
  store_pair<KIND>(y, to, v);
}
