// Gradient of the weights over a table of neighbours: dW[offset] = sum over targets of x[neighbour]^T g[target].
//
// Each warp works alone. It takes a range of targets and one offset, lists the pairs that exist, and copies 16 pairs of rows at a time to one
// stage of its ring; CI x CO sums stay in registers. wm_wgrad_sum (sum.cu) adds the warps' sums in their order. The f32 kinds multiply eight
// rows in a step: the even rows are k = 0..3 of the fragments, the odd rows are k = 4..7.
#include "mma.cuh"

constexpr int WARPS = 4, STAGES = 4, ROWS = 16;

__device__ inline void read_tf32(u32 at, u32& high, u32& low) {
  float v;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(at) : "memory");
  float h = to_tf32(v);
  high = __float_as_uint(h);
  low = __float_as_uint(v - h);
}

// x (rows, in), gy (n, out), table[offset][n]; sums (4 * gridDim.x, out, gridDim.y, in). gridDim.y = offsets,
// gridDim.z = (in / CI) * (out / CO). Shared memory: 4 * (64 * (CI + CO) * size + 512) bytes, where a number has `size` bytes.
template <Kind KIND, int CI, int CO> __device__ void gather_wgrad(const char* __restrict__ x, const char* __restrict__ gy, float* __restrict__ sums, const int* __restrict__ table, int n, int in, int out) {
  constexpr int EB = KIND >= TF32 ? 4 : 2, XB = CI * EB, GB = CO * EB, STAGE = ROWS * (XB + GB), M = CI / 16, N = CO / 8;
  extern __shared__ __align__(128) unsigned char raw[];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, o = blockIdx.y, ci = blockIdx.z / (out / CO) * CI, co = blockIdx.z % (out / CO) * CO;
  u32 base = smem(raw) + warp * STAGES * STAGE;
  int2* list = reinterpret_cast<int2*>(raw + WARPS * STAGES * STAGE) + warp * 64;
  int splits = gridDim.x * WARPS, split = blockIdx.x * WARPS + warp, each = ((n + splits - 1) / splits + 31) / 32 * 32;
  int at = min(n, split * each), to = min(n, at + each), have = 0;
  table += size_t(o) * n;
  int ahead = at + lane < to ? table[at + lane] : -1;
  auto load = [&](int stage) {  // returns whether any pairs were left
    while (have < ROWS && at < to) {
      int source = ahead, target = at + lane;
      at += 32;
      ahead = at + lane < to ? table[at + lane] : -1;
      u32 some = __ballot_sync(~0u, source >= 0);
      if (source >= 0) list[have + __popc(some & ((1u << lane) - 1))] = make_int2(source, target);
      have += __popc(some);
    }
    __syncwarp();
    if (have) {
      u32 a = base + stage * STAGE, b = a + ROWS * XB;
      for (int i = lane; i < ROWS * (XB / 16); i += 32) {
        int r = i / (XB / 16), ch = i % (XB / 16);
        copy16(a + r * XB + (swizzle<XB>(r, ch) << 4), x + (size_t(r < have ? list[r].x : 0) * in + ci) * EB + ch * 16, r < have);
      }
      for (int i = lane; i < ROWS * (GB / 16); i += 32) {
        int r = i / (GB / 16), ch = i % (GB / 16);
        copy16(b + r * GB + (swizzle<GB>(r, ch) << 4), gy + (size_t(r < have ? list[r].y : 0) * out + co) * EB + ch * 16, r < have);
      }
    }
    copies_commit();
    bool some = have > 0;
    int2 rest = list[ROWS + lane];
    __syncwarp();
    list[lane] = rest;
    have = max(0, have - ROWS);
    __syncwarp();
    return some;
  };
  float acc[M][N][4] = {}, total[KIND == F32 ? M : 1][KIND == F32 ? N : 1][4] = {};
  int loaded = 0;
  for (int s = 0; s < STAGES - 1; s++) loaded += load(s);
  for (int used = 0; used < loaded; used++) {
    copies_wait<STAGES - 2>();
    __syncwarp();
    loaded += load((used + STAGES - 1) % STAGES);
    u32 a = base + used % STAGES * STAGE, b = a + ROWS * XB;
    if constexpr (KIND >= TF32) {
#pragma unroll
      for (int k = 0; k < ROWS; k += 8) {
        int even = k + (lane & 3) * 2;
        u32 fa[M][4], fa_low[M][4], word = (lane >> 2 & 3) * 4;
#pragma unroll
        for (int i = 0; i < M; i++)
#pragma unroll
          for (int q = 0; q < 4; q++) read_tf32(a + (even + q / 2) * XB + (swizzle<XB>(even + q / 2, i * 4 + q % 2 * 2 + (lane >> 4)) << 4) + word, fa[i][q], fa_low[i][q]);
#pragma unroll
        for (int j = 0; j < N; j++) {
          u32 fb[2], fb_low[2];
#pragma unroll
          for (int q = 0; q < 2; q++) read_tf32(b + (even + q) * GB + (swizzle<GB>(even + q, j * 2 + (lane >> 4)) << 4) + word, fb[q], fb_low[q]);
#pragma unroll
          for (int i = 0; i < M; i++) {
            if (KIND == F32) {
              mma<KIND>(acc[i][j], fa_low[i], fb[0], fb[1]);
              mma<KIND>(acc[i][j], fa[i], fb_low[0], fb_low[1]);
            }
            mma<KIND>(acc[i][j], fa[i], fb[0], fb[1]);
          }
        }
      }
      if constexpr (KIND == F32)
        if (used % 4 == 3 || used + 1 == loaded)  // tensor cores round towards zero, so long sums in them would drift
          for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++)
              for (int q = 0; q < 4; q++) {
                total[i][j][q] += acc[i][j][q];
                acc[i][j][q] = 0;
              }
    } else {
      u32 fa[M][4];
#pragma unroll
      for (int i = 0; i < M; i++) {
        int r = (lane & 7) + (lane >> 4) * 8;
        ldmatrix4_transposed(fa[i], a + r * XB + (swizzle<XB>(r, i * 2 + (lane >> 3 & 1)) << 4));
      }
#pragma unroll
      for (int j = 0; j < N / 2; j++) {
        u32 fb[4];
        int r = (lane & 7) + (lane >> 3 & 1) * 8;
        ldmatrix4_transposed(fb, b + r * GB + (swizzle<GB>(r, j * 2 + (lane >> 4)) << 4));
#pragma unroll
        for (int i = 0; i < M; i++)
#pragma unroll
          for (int h = 0; h < 2; h++) mma<KIND>(acc[i][j * 2 + h], fa[i], fb[h * 2], fb[h * 2 + 1]);
      }
    }
    __syncwarp();
  }
  copies_wait<0>();
#pragma unroll
  for (int i = 0; i < M; i++)
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
      for (int q = 0; q < 4; q++) {
        float v;
        if constexpr (KIND == F32) v = total[i][j][q];
        else v = acc[i][j][q];
        sums[((size_t(split) * out + co + j * 8 + (lane & 3) * 2 + (q & 1)) * gridDim.y + o) * in + ci + i * 16 + (lane >> 2) + (q >> 1) * 8] = v;
      }
}

#define GATHER(NAME, KIND, CI, CO)                                                                                                                                               \
  extern "C" __global__ void __launch_bounds__(WARPS * 32) wm_gather_wgrad_##NAME##_i##CI##_o##CO(const char* __restrict__ x, const char* __restrict__ gy, float* __restrict__ sums, \
                                                                                                 const int* __restrict__ table, int n, int in, int out) {                        \
    gather_wgrad<KIND, CI, CO>(x, gy, sums, table, n, in, out);                                                                                                                  \
  }
#define GATHERS(NAME, KIND) GATHER(NAME, KIND, 16, 16) GATHER(NAME, KIND, 16, 32) GATHER(NAME, KIND, 32, 16) GATHER(NAME, KIND, 32, 32)
#define GATHERS_HALF(NAME, KIND) GATHERS(NAME, KIND) GATHER(NAME, KIND, 16, 64) GATHER(NAME, KIND, 64, 16) GATHER(NAME, KIND, 32, 64) GATHER(NAME, KIND, 64, 32) GATHER(NAME, KIND, 64, 64)
GATHERS_HALF(f16, F16)
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
GATHERS_HALF(bf16, BF16)
GATHERS(tf32, TF32)
GATHERS(f32, F32)
#endif
