// Packs weights into images for the convolution kernels: [block of N columns][pass][offset][column][channels of the pass]. The 16-byte
// chunks of a row are swizzled as the tensor cores expect.
//
// Weights are [out][offset][in]. Offset o of the image is offset index[o] of the weights, or zeros if that is -1. If `transposed` is 0,
// columns are output channels and channels are input channels. If it is 1, they are swapped, for the gradient of the input.
#include "copy.cuh"
#include "index.cuh"
#include "kind.cuh"

// One thread for each chunk of 16 bytes; count is the number of chunks.
template <class T, int RB, int PARTS> __device__ void pack(const T* w, T* img, int in, int out, int volume, int offsets, const short* index, int columns, int transposed, int count) {
  constexpr int EACH = 16 / sizeof(T), CH = RB / 16;
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  int channels = transposed ? out : in, passes = channels * int(sizeof(T)) / RB;
  // Neighbouring threads read neighbouring weights: channels of a column, or, if transposed, columns of a channel.
  int chunk, column, rest = i;
  if (transposed) {
    column = rest % columns; rest /= columns;
    chunk = rest % CH; rest /= CH;
  } else {
    chunk = rest % CH; rest /= CH;
    column = rest % columns; rest /= columns;
  }
  int o = rest % offsets, pass = rest / offsets % passes, block = rest / offsets / passes;
  int from = index[o], c = block * columns + column, k = pass * (RB / int(sizeof(T))) + chunk * EACH;
  T v[EACH];
  for (int e = 0; e < EACH; e++) v[e] = from < 0 ? T(0.0f) : transposed ? w[(size_t(k + e) * volume + from) * in + c] : w[(size_t(c) * volume + from) * in + k + e];
  size_t to = (size_t(block * passes + pass) * offsets + o) * PARTS * columns * (RB / sizeof(T)) + (column * CH + swizzle<RB>(column, chunk)) * EACH;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  if constexpr (sizeof(T) == 4) {  // the nearest TF32 values, then, in a second image, what the rounding lost
    for (int p = 0; p < PARTS; p++) {
      float4 r = make_float4(to_tf32(v[0]), to_tf32(v[1]), to_tf32(v[2]), to_tf32(v[3]));
      *reinterpret_cast<float4*>(img + to + p * columns * (RB / 4)) = r;
      v[0] -= r.x; v[1] -= r.y; v[2] -= r.z; v[3] -= r.w;
    }
    return;
  }
#endif
  *reinterpret_cast<uint4*>(img + to) = *reinterpret_cast<uint4*>(v);
}

#define PACK(NAME, T, RB, PARTS)                                                                                                                                             \
  extern "C" __global__ void wm_pack_##NAME##_r##RB(const T* w, T* img, int in, int out, int volume, int offsets, Index index, int columns, int transposed, int count) {     \
    pack<T, RB, PARTS>(w, img, in, out, volume, offsets, index.at, columns, transposed, count);                                                                                         \
  }
PACK(f16, __half, 32, 1) PACK(f16, __half, 64, 1) PACK(f16, __half, 128, 1)
PACK(bf16, __nv_bfloat16, 32, 1) PACK(bf16, __nv_bfloat16, 64, 1) PACK(bf16, __nv_bfloat16, 128, 1)
PACK(tf32, float, 64, 1) PACK(tf32, float, 128, 1)
PACK(f32, float, 64, 2) PACK(f32, float, 128, 2)
