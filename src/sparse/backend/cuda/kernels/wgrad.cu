// Gradient of the weights of a submanifold convolution with kernel 3^3 for sm_90a: dW[offset] = sum over rows of x[neighbour]^T g[row].
//
// A block keeps the sums of SPAN offsets, CI input by CO output channels each, in registers while it walks over its items of the map
// (tiles.cuh). Rows are the inner dimension: ldmatrix.trans gathers x through the local map (A), wgmma reads g as [row][channel] (B).
// With fewer than 64 input channels, 64 / CI offsets are side by side in one A. Items use two buffers in turn. After every `flush` items, the
// block adds the registers to memory and clears them: tensor cores round towards zero, so long sums in them would drift. wm_wgrad_sum
// then adds the blocks' sums in their order.
#include "hopper.cuh"
#include "operands.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
// Sizes of a kernel. UNITS: pieces of 64 x CO sums that a warpgroup keeps. OPW: offsets in each piece.
template <int CI, int CO> struct Shape {
  static constexpr int OPW = 64 / CI;
  static constexpr int WGS = CI == 64 && CO >= 32 || CI == 32 && CO == 64 ? 3 : 4;
  static constexpr int UNITS = CI == 64 ? (CO == 64 ? 3 : CO == 32 ? 5 : 7) : CI == 32 ? (CO == 64 ? 3 : 4) : 2;
  static constexpr int SPAN = WGS * UNITS * OPW < K ? WGS * UNITS * OPW : K, GROUPS = (K + SPAN - 1) / SPAN, THREADS = WGS * 128;
};

// x (rows, in), gy (rows, out); sums (gridDim.x, out, 27, in). If `onto`, the results are added to what sums hold.
// gridDim.y = GROUPS * (in / CI) * (out / CO). stride: bytes of a buffer, 256 * CO * 2 + (most + 1) * CI * 2 + SPAN * 512, rounded up to a
// multiple of 1024. Shared memory: 1024 + 2 * stride + 7200 bytes.
template <Kind KIND, int CI, int CO>
__device__ void wgrad(const u16* __restrict__ x, const u16* __restrict__ gy, float* __restrict__ sums, const Map& m, const Item* __restrict__ items, int in, int out, u32 offsets, int most, int stride, int flush, int onto) {
  using S = Shape<CI, CO>;
  constexpr int XB = CI * 2, GB = CO * 2, XCH = CI / 8, OPW = S::OPW, UNITS = S::UNITS, T = S::THREADS;
  extern __shared__ unsigned char raw[];
  u32 base = (smem(raw) + 1023) & ~1023u;
  int t = threadIdx.x, warp = __shfl_sync(~0u, t >> 5, 0), lane = t & 31, wg = warp >> 2;
  int pieces = out / CO, first = blockIdx.y / pieces / (in / CI) * S::SPAN, ci = blockIdx.y / pieces % (in / CI) * CI, co = blockIdx.y % pieces * CO;
  List* lists = reinterpret_cast<List*>(raw + (base - smem(raw)) + 2 * stride);
  auto load = [&](int buffer, const Item& item) {
    u32 g = base + buffer * stride, rows = g + TILE * GB, local = rows + (most + 1) * XB;
    load_places<T, GB>(g, lists[buffer], reinterpret_cast<const char*>(gy + co), out * 2);
    load_rows<T, XB>(rows, lists[buffer], item, reinterpret_cast<const char*>(x + ci), in * 2);
    for (int i = t; i < S::SPAN * 32; i += T)
      if (first + i / 32 < K) copy16(local + i * 16, m.local + (size_t(item.tile()) * K + first) * TILE + i * 8);
  };

  float acc[UNITS][CO / 2];
  auto zero = [&] {
#pragma unroll
    for (int u = 0; u < UNITS; u++)
#pragma unroll
      for (int j = 0; j < CO / 2; j++) acc[u][j] = 0;
  };
  auto store = [&] {
    float* to = sums + ((size_t(blockIdx.x) * out + co + (lane & 3) * 2) * K + first + wg * UNITS * OPW + (warp & 3) * OPW / 4) * in + ci + (warp & 3) % (4 / OPW) * 16 + (lane >> 2);
    u32 column = K * in, next_unit = OPW * in;
    asm volatile("" : "+l"(to), "+r"(column), "+r"(next_unit));  // computes the addresses here, so that the loop keeps none in registers
#pragma unroll
    for (int u = 0; u < UNITS; u++) {
      if (first + (wg * UNITS + u) * OPW + (warp & 3) * OPW / 4 < K)
#pragma unroll
        for (int j = 0; j < CO / 8; j++) {
          float* at = to + u * next_unit + j * 8 * column;
          float* value[4] = {at, at + column, at + 8, at + column + 8};
          if (onto)
            for (int h = 0; h < 4; h++) acc[u][j * 4 + h] += *value[h];
          for (int h = 0; h < 4; h++) *value[h] = acc[u][j * 4 + h];
        }
    }
    onto = 1;
  };
  zero();
  Walk walk(items);
  Item item = walk.next(), next = walk.next(), third = walk.next();
  u32 gm[4], gm_next[4] = {};
  if (item.at >= 0) load_list<T>(lists[0], m, item);
  copies_commit();
  copies_wait<0>();
  __syncthreads();
  for (int i = 0; i < 4; i++) gm[i] = __shfl_sync(~0u, item.at >= 0 ? lists[0].mask[i] : 0, 0);
  if (item.at >= 0) load(0, item);
  if (next.at >= 0) load_list<T>(lists[1], m, next);
  copies_commit();
  for (int buffer = 0, held = 0;; buffer ^= 1, held++) {
    if (held == flush || item.at < 0) {
      store();
      if (item.at < 0) break;
      zero();
      held = 0;
    }
    copies_wait<0>();
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    if (next.at >= 0) {
      for (int i = 0; i < 4; i++) gm_next[i] = __shfl_sync(~0u, lists[buffer ^ 1].mask[i], 0);
      load(buffer ^ 1, next);
      if (third.at >= 0) load_list<T>(lists[buffer], m, third);
    }
    copies_commit();
    int parts = gm[0] >> 28, part = __shfl_sync(~0u, item.part(), 0);
    u32 g = base + buffer * stride, rows = g + TILE * GB, local = rows + (most + 1) * XB;
#pragma unroll 1
    for (int k = 0; k < 4; k++) {
      if (k * parts / 4 != part) continue;
      u32 mask = (k == 0 ? gm[0] : k == 1 ? gm[1] : k == 2 ? gm[2] : gm[3]) & offsets;
      u64 b = describe<GB>(g + k * 64 * GB);
#pragma unroll
      for (int u = 0; u < UNITS; u++) {
        int unit = (wg * UNITS + u) * OPW;
        if (first + unit < K && mask >> (first + unit) & ((1 << OPW) - 1)) {
          int o = unit + (warp & 3) * OPW / 4, block = (warp & 3) % (4 / OPW);
          u32 a[4][4];
#pragma unroll
          for (int j = 0; j < 4; j++) {
            u32 e = first + o < K ? load16(local + (o * TILE + k * 64 + j * 16 + (lane & 7) + (lane >> 4) * 8) * 2) : 0;
            ldmatrix4_transposed(a[j], rows + (e >> 3) * XB + (((block * 2 + (lane >> 3 & 1)) ^ (e & (XCH - 1))) << 4));
          }
          hold(acc[u]);
          wgmma_fence();
#pragma unroll
          for (int j = 0; j < 4; j++) wgmma<KIND, CO, 1>(acc[u], a[j], b + j * GB);
          wgmma_finish();
          hold(acc[u]);
        }
      }
    }
    item = next;
    next = third;
    third = walk.next();
    for (int i = 0; i < 4; i++) gm[i] = gm_next[i];
  }
}

#define WGRAD(NAME, KIND, CI, CO)                                                                                                                                                         \
  extern "C" __global__ void __launch_bounds__(Shape<CI, CO>::THREADS, 1)                                                                                                                 \
      wm_wgrad_##NAME##_i##CI##_o##CO(const u16* __restrict__ x, const u16* __restrict__ gy, float* __restrict__ sums, const int* __restrict__ outrow, const u32* __restrict__ mask64,    \
                                      const u16* __restrict__ local, const u32* __restrict__ lists, const Item* __restrict__ items, int in, int out, u32 offsets, int most, int stride, int flush, int onto) { \
    wgrad<KIND, CI, CO>(x, gy, sums, Map{outrow, mask64, local, lists}, items, in, out, offsets, most, stride, flush, onto);                                                                           \
  }
#define WGRADS(NAME, KIND, CI) WGRAD(NAME, KIND, CI, 16) WGRAD(NAME, KIND, CI, 32) WGRAD(NAME, KIND, CI, 64)
WGRADS(f16, F16, 16) WGRADS(f16, F16, 32) WGRADS(f16, F16, 64)
WGRADS(bf16, BF16, 16) WGRADS(bf16, BF16, 32) WGRADS(bf16, BF16, 64)
#endif
