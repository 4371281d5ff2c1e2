// Convolution over a table of neighbours in f32 without tensor cores, on every card. Products and sums have the precision of f32.
//
// A block computes BM rows and N channels. As in gather.cu, the rows and weights of one offset and one pass of RB bytes of channels come to one
// of two stages while the block multiplies those of the other. A warp has 32 rows. A thread has 8 of them, rows
// `lane / 8 + 4 i`, and an eighth of the channels, in runs of four, so that the threads of a warp read from different banks at once.
#include "copy.cuh"
#include "epilogue.cuh"
#include "index.cuh"

constexpr int BM = 128;
constexpr int STAGES = 2;  // more leave room for fewer blocks, which is slower

// Arguments as in gather.cu, but img is from wm_pack_exact. Shared memory: 1024 + 2 * (128 + N) * RB + offsets * 516 bytes.
template <int N, int RB>
__device__ void gather(const float* __restrict__ x, const float* __restrict__ img, float* __restrict__ y, const int* __restrict__ table, const int* __restrict__ order, int n, int passes, int offsets,
                       const Epilogue& epilogue) {
  constexpr int THREADS = BM, CH = RB / 16, A = BM * RB, B = N * RB, J = N / 8, V = J < 4 ? J : 4;
  extern __shared__ unsigned char raw[];
  u32 base = (smem(raw) + 1023) & ~1023u;
  unsigned char* ring = raw + (base - smem(raw));
  int t = threadIdx.x, lane = t & 31, wm = t >> 5, first = blockIdx.x * BM;
  int* near = reinterpret_cast<int*>(ring + STAGES * (A + B));  // near[offset][128], then has[offset]: the warps that have it, as bits
  u32* has = reinterpret_cast<u32*>(near + offsets * BM);
  for (int o = t; o < offsets; o += THREADS) has[o] = 0;
  __syncthreads();
  for (int i = t; i < offsets * BM; i += THREADS) {
    int o = i / BM, p = first + i % BM, row = p < n ? table[size_t(o) * n + (order ? order[p] : p)] : -1;
    near[i] = row;
    if (__any_sync(~0u, row >= 0) && lane == 0) atomicOr(&has[o], 1u << (i % BM / 32));
  }
  __syncthreads();
  auto next = [&](int& o) {  // moves on to the next offset that any row of the block has
    do o++;
    while (o < offsets && !has[o]);
  };
  int load_o = -1, load_p = 0, use_o, use_p = 0;
  next(load_o);
  use_o = load_o;
  auto load = [&](int stage) {
    u32 a = base + stage * (A + B), b = a + A;
    for (int i = t; i < BM * CH; i += THREADS) {
      int r = i / CH, ch = i % CH, row = near[load_o * BM + r];
      copy16(a + r * RB + (swizzle<RB>(r, ch) << 4), x + (size_t(row < 0 ? 0 : row) * passes + load_p) * (RB / 4) + ch * 4, row >= 0);
    }
    const float* w = img + (size_t(blockIdx.y * passes + load_p) * offsets + load_o) * (B / 4);
    for (int i = t; i < B / 16; i += THREADS) copy16(b + i * 16, w + i * 4);
    if (++load_p == passes) {
      load_p = 0;
      next(load_o);
    }
  };
  float sums[8][J] = {};
  if (load_o < offsets) load(0);
  copies_commit();
  int group = lane / 8, column = lane % 8 * V;
  for (int s = 0; use_o < offsets; s ^= 1) {
    copies_wait<0>();
    __syncthreads();
    if (load_o < offsets) load(s ^ 1);
    copies_commit();
    if (has[use_o] >> wm & 1) {
      const unsigned char* a = ring + s * (A + B);
      const float* b = reinterpret_cast<const float*>(a + A) + column;
#pragma unroll 2
      for (int ch = 0; ch < CH; ch++) {
        float4 rows[8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
          int r = wm * 32 + group + 4 * i;
          rows[i] = *reinterpret_cast<const float4*>(a + r * RB + (swizzle<RB>(r, ch) << 4));
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
          float w[J];
          const float* from = b + (ch * 4 + k) * N;
#pragma unroll
          for (int j = 0; j < J; j += V) {
            if constexpr (V == 4) {
              float4 v = *reinterpret_cast<const float4*>(from + j * 8);
              w[j] = v.x, w[j + 1] = v.y, w[j + 2] = v.z, w[j + 3] = v.w;
            } else {
              float2 v = *reinterpret_cast<const float2*>(from);
              w[0] = v.x, w[1] = v.y;
            }
          }
#pragma unroll
          for (int i = 0; i < 8; i++) {
            float v = k == 0 ? rows[i].x : k == 1 ? rows[i].y : k == 2 ? rows[i].z : rows[i].w;
#pragma unroll
            for (int j = 0; j < J; j++) sums[i][j] = fmaf(v, w[j], sums[i][j]);
          }
        }
      }
    }
    if (++use_p == passes) {
      use_p = 0;
      next(use_o);
    }
  }
#pragma unroll
  for (int i = 0; i < 8; i++) {
    int p = first + wm * 32 + group + 4 * i;
    if (p >= n) continue;
    int row = order ? order[p] : p;
#pragma unroll
    for (int j = 0; j < J; j += 2)
      finish_pair<F32>(epilogue, y, row, gridDim.y * N, blockIdx.y * N + column + j / V * 32 + j % V, make_float2(sums[i][j], sums[i][j + 1]));
  }
}

#define EXACT(N, RB)                                                                                                                                                                       \
  extern "C" __global__ void __launch_bounds__(128, 3)                                                                                                                                     \
      wm_gather_exact_n##N##_r##RB(const float* __restrict__ x, const float* __restrict__ img, float* __restrict__ y, const int* __restrict__ table, const int* __restrict__ order, int n, \
                                   int passes, int offsets, const void* bias, const void* residual, int activation) {                                                                      \
    gather<N, RB>(x, img, y, table, order, n, passes, offsets, Epilogue{bias, residual, activation});                                                                                      \
  }
EXACT(16, 64) EXACT(16, 128) EXACT(32, 64) EXACT(32, 128) EXACT(64, 64) EXACT(64, 128)

// Packs weights for these kernels: [block of N columns][pass][offset][channel of the pass][column]. The rest is as in pack.cu, except that
// there is one thread for each of `count` numbers, not for each chunk.
template <int RB> __device__ void pack(const float* w, float* img, int in, int out, int volume, int offsets, const short* index, int columns, int transposed, int count) {
  constexpr int DEEP = RB / 4;
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  int passes = (transposed ? out : in) / DEEP, rest = i;
  int column = rest % columns; rest /= columns;
  int k = rest % DEEP; rest /= DEEP;
  int o = rest % offsets, pass = rest / offsets % passes, c = rest / offsets / passes * columns + column;
  int from = index[o];
  k += pass * DEEP;
  img[i] = from < 0 ? 0.0f : transposed ? w[(size_t(k) * volume + from) * in + c] : w[(size_t(c) * volume + from) * in + k];
}
#define PACK(RB)                                                                                                                                                              \
  extern "C" __global__ void wm_pack_exact_r##RB(const float* w, float* img, int in, int out, int volume, int offsets, Index index, int columns, int transposed, int count) { \
    pack<RB>(w, img, in, out, volume, offsets, index.at, columns, transposed, count);                                                                                         \
  }
PACK(64) PACK(128)
