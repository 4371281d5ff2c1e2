// Convolution over a table of neighbours, for all that the tiles of tiles.cuh do not serve: strided, transposed and inverse maps, larger
// kernels, and cards other than sm_90. With the reversed table and transposed weights it gives the gradient of the input.
//
// A block computes BM rows and N channels. For each offset that any of its rows has, and each pass of RB bytes of channels, it gathers the
// rows and copies the offset's weights (wm_pack) to one of two stages. Meanwhile tensor cores multiply what the other stage holds.
#include "copy.cuh"
#include "epilogue.cuh"
#include "mma.cuh"

constexpr int BM = 128;
constexpr int STAGES = 2;  // more leave room for fewer blocks, which is slower

// table[offset][n]: a row of x, or -1, for each of `offsets` offsets. order (n) or null: the row of y at each place. y (n, blocks * N).
// gridDim.x = ceil(n / 128), gridDim.y = blocks. Shared memory: 1024 + 2 * (128 + N) * RB + offsets * 516 bytes, and for F32
// 2 * N * RB more.
template <Kind KIND, int N, int RB>
__device__ void gather(const void* __restrict__ x, const void* __restrict__ img, void* __restrict__ y, const int* __restrict__ table, const int* __restrict__ order, int n, int passes, int offsets,
                       const Epilogue& epilogue) {
  constexpr int WN = N >= 64 ? 2 : 1, THREADS = 128 * WN, CH = RB / 16, A = BM * RB, B = N * RB, MI = 2, NI = N / WN / 8, TERMS = KIND == F32 ? 2 : 1;
  extern __shared__ unsigned char raw[];
  u32 base = (smem(raw) + 1023) & ~1023u;
  int t = threadIdx.x, lane = t & 31, warp = t >> 5, wm = warp % 4, wn = warp / 4, first = blockIdx.x * BM;
  int* near = reinterpret_cast<int*>(raw + (base - smem(raw)) + STAGES * (A + TERMS * B));  // near[offset][128], then has[offset]: the warps that have it, as bits
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
      copy16(a + r * RB + (swizzle<RB>(r, ch) << 4), static_cast<const char*>(x) + size_t(row < 0 ? 0 : row) * (passes * RB) + load_p * RB + ch * 16, row >= 0);
    }
    const char* w = static_cast<const char*>(img) + (size_t(blockIdx.y * passes + load_p) * offsets + load_o) * TERMS * B;
    for (int i = t; i < B / 16; i += THREADS) copy16(b + i * 16, w + i * 16);
    if (KIND == F32)  // the low parts of the weights follow the high parts
      for (int i = t; i < B / 16; i += THREADS) copy16(base + STAGES * (A + B) + stage * B + i * 16, w + B + i * 16);
    if (++load_p == passes) {
      load_p = 0;
      next(load_o);
    }
  };
  float acc[MI][NI][4] = {}, total[KIND == F32 ? MI : 1][KIND == F32 ? NI : 1][4] = {};
  if (load_o < offsets) load(0);
  copies_commit();
  for (int s = 0; use_o < offsets; s ^= 1) {
    copies_wait<0>();
    __syncthreads();
    if (load_o < offsets) load(s ^ 1);
    copies_commit();
    if (has[use_o] >> wm & 1) {
      u32 a = base + s * (A + B), b = a + A, low = base + STAGES * (A + B) + s * B;
#pragma unroll
      for (int k = 0; k < RB / 32; k++) {
        u32 fa[MI][4], fa_low[MI][4];
#pragma unroll
        for (int i = 0; i < MI; i++) {
          int r = wm * 32 + i * 16 + (lane & 15), ch = k * 2 + (lane >> 4);
          ldmatrix4(fa[i], a + r * RB + (swizzle<RB>(r, ch) << 4));
          round_to<KIND>(fa[i], fa_low[i]);
        }
#pragma unroll
        for (int j = 0; j < NI / 2; j++) {
          int c = wn * (N / WN) + j * 16 + (lane & 7) + (lane >> 4) * 8, ch = k * 2 + (lane >> 3 & 1);
          u32 fb[4], fb_low[4];
          ldmatrix4(fb, b + c * RB + (swizzle<RB>(c, ch) << 4));
          if (KIND == F32) ldmatrix4(fb_low, low + c * RB + (swizzle<RB>(c, ch) << 4));
#pragma unroll
          for (int i = 0; i < MI; i++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
              if (KIND == F32) {
                mma<KIND>(acc[i][j * 2 + h], fa_low[i], fb[h * 2], fb[h * 2 + 1]);
                mma<KIND>(acc[i][j * 2 + h], fa[i], fb_low[h * 2], fb_low[h * 2 + 1]);
              }
              mma<KIND>(acc[i][j * 2 + h], fa[i], fb[h * 2], fb[h * 2 + 1]);
            }
        }
      }
      if constexpr (KIND == F32)  // tensor cores round towards zero, so long sums in them would drift
        for (int i = 0; i < MI; i++)
          for (int j = 0; j < NI; j++)
            for (int q = 0; q < 4; q++) {
              total[i][j][q] += acc[i][j][q];
              acc[i][j][q] = 0;
            }
    }
    if (++use_p == passes) {
      use_p = 0;
      next(use_o);
    }
  }
#pragma unroll
  for (int i = 0; i < MI; i++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int p = first + wm * 32 + i * 16 + (lane >> 2) + h * 8;
      if (p >= n) continue;
      int row = order ? order[p] : p;
#pragma unroll
      for (int j = 0; j < NI; j++) {
        const float(&d)[4] = KIND == F32 ? total[i % (KIND == F32 ? MI : 1)][j % (KIND == F32 ? NI : 1)] : acc[i][j];
        finish_pair<KIND>(epilogue, y, row, gridDim.y * N, blockIdx.y * N + wn * (N / WN) + j * 8 + (lane & 3) * 2, make_float2(d[h * 2], d[h * 2 + 1]));
      }
    }
}

#define GATHER(NAME, KIND, N, RB)                                                                                                                                                          \
  extern "C" __global__ void __launch_bounds__(N >= 64 ? 256 : 128)                                                                                                                        \
      wm_gather_##NAME##_n##N##_r##RB(const void* __restrict__ x, const void* __restrict__ img, void* __restrict__ y, const int* __restrict__ table, const int* __restrict__ order, int n, \
                                      int passes, int offsets, const void* bias, const void* residual, int activation) {                                                                   \
    gather<KIND, N, RB>(x, img, y, table, order, n, passes, offsets, Epilogue{bias, residual, activation});                                                                                \
  }
#define GATHERS(NAME, KIND, N) GATHER(NAME, KIND, N, 64) GATHER(NAME, KIND, N, 128)
#define GATHERS2(NAME, KIND, N) GATHER(NAME, KIND, N, 32) GATHERS(NAME, KIND, N)
GATHERS2(f16, F16, 16) GATHERS2(f16, F16, 32) GATHERS2(f16, F16, 64) GATHERS2(f16, F16, 128)
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
GATHERS2(bf16, BF16, 16) GATHERS2(bf16, BF16, 32) GATHERS2(bf16, BF16, 64) GATHERS2(bf16, BF16, 128)
GATHERS(tf32, TF32, 16) GATHERS(tf32, TF32, 32) GATHERS(tf32, TF32, 64) GATHERS(tf32, TF32, 128)
GATHERS(f32, F32, 16) GATHERS(f32, F32, 32) GATHERS(f32, F32, 64)
#endif
