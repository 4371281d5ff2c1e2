// Submanifold convolution with kernel 3^3 for sm_90a: forward, and with mirrored weights (pack.cu) the gradient of the input.
//
// Blocks are persistent: they walk over pieces of work, each an item of the map (tiles.cuh) and a block of N output channels. A unit is one
// pass of RB bytes of channels over the rows of an item. One warpgroup fetches. Its first warp sends the weights of each offset, with the
// offset's slice of the local map, through a ring. Its other warps copy the rows of a unit to one of two planes while the unit before is
// multiplied. WGS warpgroups multiply. ldmatrix, whose lanes may each point at any row, reads the fragments of all offsets from the plane
// (A); wgmma reads the weights from shared memory (B). A tile that is computed in parts (few sites, or sites that read many rows) has fewer
// groups of 64 places in an item than there are warpgroups: several warpgroups then share the offsets of a group, and add up in the end.
#include "copy.cuh"
#include "epilogue.cuh"
#include "hopper.cuh"
#include "largest.cuh"
#include "tiles.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
constexpr int LIST = 640;  // the most rows of an item that a list has room for
struct __align__(16) List {
  u32 row[LIST];
};

// Sizes of a kernel. Two blocks share a multiprocessor if rows and sums are small.
template <Kind KIND, int N, int RB> struct Shape {
  static constexpr bool SMALL = N <= 32 && RB <= 64;
  static constexpr int WGS = SMALL ? 2 : 4, BLOCKS = SMALL ? 2 : 1, THREADS = WGS * 128 + 128;
  static constexpr int MULTIPLY = SMALL ? 96 : 112, FETCH = SMALL ? 40 : 32;  // registers per thread
};

// Every `many`-th set bit of `bits`, from the `first` on.
__device__ inline u32 every(u32 bits, int many, int first) {
  u32 chosen = 0;
  for (int i = 0; bits; bits &= bits - 1, i++)
    if (i % many == first) chosen |= bits & -bits;
  return chosen;
}

// For f32 operands that are scaled f16 (split.cu): the bits of the largest magnitude of x and of the weights. The result is f32.
struct Scales {
  const u32 *x, *weights;
  __device__ int exponent() const { return exponent_of(x) + exponent_of(weights) - 2 * TOP; }
};

// x (rows, passes * RB bytes), img from wm_pack, y (rows, blocks * N). offsets: a bit for each offset of the kernel. most: as in wm_tiles.
// stages: those of the ring. Shared memory: 1056 + stages * (N * RB + 528) + 2 * (most + 1) * RB + 5120 bytes; F32 has 2 * N * RB in place
// of N * RB.
template <Kind KIND, bool SCALED, int N, int RB>
__device__ void halo(const void* __restrict__ x, const void* __restrict__ img, void* __restrict__ y, const Map& m, const Item* __restrict__ items, int passes, int blocks, u32 offsets, int most, int stages,
                     const Epilogue& epilogue, const Scales& scales) {
  using S = Shape<KIND, N, RB>;
  constexpr int WGS = S::WGS, MPW = 4 / WGS, STEPS = RB / 32, CH = RB / 16, STAGE = N * RB * (KIND == F32 ? 2 : 1);
  extern __shared__ unsigned char raw[];
  unsigned char* base = raw + ((1024 - (smem(raw) & 1023)) & 1023);
  int plane = (most + 1) * RB;
  u32 ring = smem(base), maps = ring + stages * STAGE, rows = maps + stages * TILE * 2, lists = rows + 2 * plane, bars = lists + 2 * sizeof(List), planes = bars + stages * 16;
  int t = threadIdx.x, warp = __shfl_sync(~0u, t >> 5, 0), lane = t & 31, wg = warp >> 2, many = items[0].at * blocks;
  if (t == 0) {  // the first barrier of each pair signals "full", the second "empty"
    for (int s = 0; s < stages; s++) {
      bar_init(bars + s * 16, 1);
      bar_init(bars + s * 16 + 8, WGS * 4);
    }
    for (int s = 0; s < 2; s++) {
      bar_init(planes + s * 16, 96);
      bar_init(planes + s * 16 + 8, WGS * 4);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();

  if (wg == WGS) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(S::FETCH));
    if (warp == WGS * 4) {
      if (lane == 0) {
        int s = 0;
        u32 empty = 1;  // the parity of a barrier without arrivals, so that the first round does not wait
        for (int w = blockIdx.x; w < many; w += gridDim.x) {
          Item item = items[1 + w / blocks];
          u32 all = item.offsets & offsets;
          for (int p = 0; p < passes; p++)
            for (u32 rest = all; rest; rest &= rest - 1) {
              int o = __ffs(rest) - 1;
              bar_wait(bars + s * 16 + 8, empty);
              bar_expect(bars + s * 16, STAGE + TILE * 2);
              bulk_copy(ring + s * STAGE, static_cast<const char*>(img) + (size_t(w % blocks * passes + p) * K + o) * STAGE, STAGE, bars + s * 16);
              bulk_copy(maps + s * TILE * 2, m.local + (size_t(item.tile()) * K + o) * TILE, TILE * 2, bars + s * 16);
              if (++s == stages) {
                s = 0;
                empty ^= 1;
              }
            }
        }
      }
    } else {
      int q = t - WGS * 128 - 32, unit = 0, n = 0;
      const List* list = reinterpret_cast<const List*>(base + (lists - ring));
      auto fetch = [&](int w, int n) {
        if (w < many) {
          Item item = items[1 + w / blocks];
          for (int i = q; i < (item.rows + 3) / 4; i += 96) copy16(lists + (n & 1) * sizeof(List) + i * 16, m.lists + item.list + i * 4);
        }
        copies_commit();
      };
      fetch(blockIdx.x, 0);
      for (int w = blockIdx.x; w < many; w += gridDim.x, n++) {
        int chunks = (items[1 + w / blocks].rows + 1) * CH;
        copies_wait<0>();  // for the list, and for the rows of the item before
        asm volatile("bar.sync 1, 96;" ::: "memory");
        fetch(w + gridDim.x, n + 1);
        for (int p = 0; p < passes; p++, unit++) {
          u32 to = rows + (unit & 1) * plane;
          if (unit >= 2) bar_wait(planes + (unit & 1) * 16 + 8, ((unit >> 1) - 1) & 1);
          for (int i = q; i < chunks; i += 96) {  // slot 0 is zeros
            int slot = i / CH, ch = i % CH;
            u32 e = slot ? list[n & 1].row[slot - 1] : 0;
            copy16(to + slot * RB + ((ch ^ (e & (CH - 1))) << 4), static_cast<const char*>(x) + size_t(e >> 3) * (passes * RB) + p * RB + ch * 16, slot > 0);
          }
          asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(planes + (unit & 1) * 16) : "memory");
        }
        copies_commit();
      }
      copies_wait<0>();
    }
    return;
  }

  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(S::MULTIPLY));
  // F32 moves the tensor cores' sums to `total` after every offset: tensor cores round towards zero, so long sums in them would drift.
  constexpr bool EMPTY_SUMS = KIND == F32;
  float acc[MPW][N / 2], total[EMPTY_SUMS ? MPW : 1][EMPTY_SUMS ? N / 2 : 1];
  constexpr int HELD = N / 2, STEP = HELD < RB / 4 ? HELD : RB / 4;  // sums of a thread; how many of them are exchanged at once
  int s = 0, unit = 0, exponent = SCALED ? scales.exponent() : 0;
  u32 full = 0;
  for (int w = blockIdx.x; w < many; w += gridDim.x) {
    for (int i = 0; i < MPW; i++)
      for (int j = 0; j < N / 2; j++) {
        if constexpr (EMPTY_SUMS) total[i][j] = 0;
        else acc[i][j] = 0;
      }
    Item item = items[1 + w / blocks];
    int tile = item.tile(), part = item.part(), parts = __shfl_sync(~0u, m.mask64[tile * 4] >> 28, 0), out[MPW][2], place[MPW];
    int groups = 4 / parts, teams = groups < WGS ? groups : WGS, team = wg % teams, shares = WGS / teams, share = wg / teams;
    u32 all = __shfl_sync(~0u, item.offsets & offsets, 0), mine[MPW];
    for (int i = 0; i < MPW; i++) {
      bool works = team + i * teams < groups;
      int g = part * groups + (works ? team + i * teams : 0);
      mine[i] = __shfl_sync(~0u, works ? m.mask64[tile * 4 + g] & offsets : 0, 0);
      for (int h = 0; h < 2; h++) {
        out[i][h] = m.outrow[tile * TILE + g * 64 + (warp & 3) * 16 + (lane >> 2) + h * 8];
        if (!mine[i] || share > 0) out[i][h] = -1;
      }
      if (shares > 1) mine[i] = every(mine[i], shares, share);
      place[i] = g * 64 + (warp & 3) * 16 + (lane & 15);
    }
    for (int p = 0; p < passes; p++, unit++) {
      u32 at = rows + (unit & 1) * plane;
      bar_wait(planes + (unit & 1) * 16, (unit >> 1) & 1);
      for (u32 rest = all; rest; rest &= rest - 1) {
        int o = __ffs(rest) - 1;
        bar_wait(bars + s * 16, full);
        u64 b = describe<RB>(ring + s * STAGE);
#pragma unroll
        for (int i = 0; i < MPW; i++)
          if (mine[i] >> o & 1) {
            u32 e = load16(maps + (s * TILE + place[i]) * 2);
            u32 row = at + (e >> 3) * RB, chunk = (e & (CH - 1)) ^ (lane >> 4);
            constexpr int GROUP = KIND == F32 && STEPS > 1 ? 2 : STEPS;  // steps whose fragments are in registers at the same time
#pragma unroll
            for (int j0 = 0; j0 < STEPS; j0 += GROUP) {
              u32 a[GROUP][4], low[GROUP][4];
#pragma unroll
              for (int j = 0; j < GROUP; j++) {
                ldmatrix4(a[j], row + ((chunk ^ ((j0 + j) * 2)) << 4));
                if (KIND == TF32)
                  for (int q = 0; q < 4; q++) a[j][q] = __float_as_uint(to_tf32(__uint_as_float(a[j][q])));
                if (KIND == F32)
                  for (int q = 0; q < 4; q++) {  // rounds as to_tf32 does, in fewer cycles; a NaN stays one in `low`
                    u32 high = (a[j][q] + 0x1000) & ~0x1fffu;
                    low[j][q] = __float_as_uint(__uint_as_float(a[j][q]) - __uint_as_float(high));
                    a[j][q] = high;
                  }
              }
              hold(acc[i]);
              wgmma_fence();
#pragma unroll
              for (int j = 0; j < GROUP; j++) {
                u64 step = b + (j0 + j) * 2;
                if (KIND == F32) {  // the low parts of the weights follow the high parts
                  wgmma<KIND, N>(acc[i], low[j], step, j0 + j > 0);
                  wgmma<KIND, N>(acc[i], a[j], step + N * RB / 16);
                }
                wgmma<KIND, N>(acc[i], a[j], step);
              }
              wgmma_finish();
              hold(acc[i]);
            }
            if constexpr (EMPTY_SUMS)
              for (int j = 0; j < N / 2; j++) total[i][j] += acc[i][j];
          }
        __syncwarp();
        if (lane == 0) bar_arrive(bars + s * 16 + 8);
        if (++s == stages) {
          s = 0;
          full ^= 1;
        }
      }
      if (p == passes - 1 && shares > 1) {  // through the plane, which nobody reads any more
        auto& sums = [&]() -> float(&)[HELD] {
          if constexpr (EMPTY_SUMS) return total[0];
          else return acc[0];
        }();
        float* to = reinterpret_cast<float*>(base + (at - ring)) + (t & 127);
#pragma unroll
        for (int j0 = 0; j0 < HELD; j0 += STEP) {
          asm volatile("bar.sync 2, %0;" ::"n"(WGS * 128) : "memory");
          if (share > 0)
#pragma unroll
            for (int j = 0; j < STEP; j++)
              if (j0 + j < HELD) to[((wg - teams) * STEP + j) * 128] = sums[j0 + j];
          asm volatile("bar.sync 2, %0;" ::"n"(WGS * 128) : "memory");
          if (share == 0)
            for (int other = 1; other < shares; other++)
#pragma unroll
              for (int j = 0; j < STEP; j++)
                if (j0 + j < HELD) sums[j0 + j] += to[((other * teams + wg - teams) * STEP + j) * 128];
        }
      }
      __syncwarp();
      if (lane == 0) bar_arrive(planes + (unit & 1) * 16 + 8);
    }
    int columns = blocks * N, first = w % blocks * N + (lane & 3) * 2;
#pragma unroll
    for (int i = 0; i < MPW; i++)
#pragma unroll
      for (int h = 0; h < 2; h++)
        if (out[i][h] >= 0)
#pragma unroll
          for (int j = 0; j < N / 8; j++) {
            float2 v;
            if constexpr (EMPTY_SUMS) v = make_float2(total[i][j * 4 + h * 2], total[i][j * 4 + h * 2 + 1]);
            else v = make_float2(acc[i][j * 4 + h * 2], acc[i][j * 4 + h * 2 + 1]);
            if constexpr (SCALED) v = make_float2(scalbnf(v.x, exponent), scalbnf(v.y, exponent));
            finish_pair<SCALED ? F32 : KIND>(epilogue, y, out[i][h], columns, first + j * 8, v);
          }
  }
}

#define HALO(NAME, KIND, SCALED, N, RB)                                                                                                                                                                        \
  extern "C" __global__ void __launch_bounds__(Shape<KIND, N, RB>::THREADS, Shape<KIND, N, RB>::BLOCKS)                                                                                                        \
      wm_halo_##NAME##_n##N##_r##RB(const void* __restrict__ x, const void* __restrict__ img, void* __restrict__ y, const int* __restrict__ outrow, const u32* __restrict__ mask64,                            \
                                    const u16* __restrict__ local, const u32* __restrict__ lists, const Item* __restrict__ items, int passes, int blocks, u32 offsets, int most, int stages, const void* bias, \
                                    const void* residual, int activation, const u32* largest_x, const u32* largest_w) {                                                                                        \
    halo<KIND, SCALED, N, RB>(x, img, y, Map{outrow, mask64, local, lists}, items, passes, blocks, offsets, most, stages, Epilogue{bias, residual, activation}, Scales{largest_x, largest_w});                 \
  }
#define HALOS_OF(NAME, KIND, SCALED, N) HALO(NAME, KIND, SCALED, N, 32) HALO(NAME, KIND, SCALED, N, 64) HALO(NAME, KIND, SCALED, N, 128)
#define HALOS(NAME, KIND, N) HALOS_OF(NAME, KIND, false, N)
HALOS(f16, F16, 16) HALOS(f16, F16, 32) HALOS(f16, F16, 48) HALOS(f16, F16, 64) HALOS(f16, F16, 96) HALOS(f16, F16, 128)
HALOS(bf16, BF16, 16) HALOS(bf16, BF16, 32) HALOS(bf16, BF16, 48) HALOS(bf16, BF16, 64) HALOS(bf16, BF16, 96) HALOS(bf16, BF16, 128)
#define HALVES(N) HALOS_OF(halves, F16, true, N)
HALVES(16) HALVES(32) HALVES(48) HALVES(64) HALVES(96) HALVES(128)
#define HALOS4(NAME, KIND, N) HALO(NAME, KIND, false, N, 64) HALO(NAME, KIND, false, N, 128)
HALOS4(tf32, TF32, 16) HALOS4(tf32, TF32, 32) HALOS4(tf32, TF32, 48) HALOS4(tf32, TF32, 64) HALOS4(tf32, TF32, 96) HALOS4(tf32, TF32, 128)
HALOS4(f32, F32, 16) HALOS4(f32, F32, 32) HALOS4(f32, F32, 48) HALOS4(f32, F32, 64)
#endif
