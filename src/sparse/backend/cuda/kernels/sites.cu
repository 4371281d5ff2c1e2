// The index of a set of sites: a hash table of bricks of cells, which gives the rank of any site with one lookup, and the order, which
// gives the row of a rank. The index is deterministic, because the table holds sets, and ranks come from sorting and counting.
//
//   1 wm_index_clear      clears the table and the counters
//   2 wm_index_insert     inserts the sites by their Morton keys
//   3 wm_sort_histogram   counts the digits of the bricks' keys
//   4 wm_sort_pass        sorts by one digit of 8 bits; launched once per digit
//   5 wm_index_base       gives each brick the rank of its first cell
//   6 wm_index_rank       writes order[rank] = row, and keys[rank]
//
// The number of bricks stays on the device (state[0]). Kernels are launched for the largest possible number and skip the rest.
#include "common.cuh"

enum State { BRICKS, STATUS, SITES, TICKETS };  // words of `state`; tickets: one per pass, then one for wm_index_base
enum Status { DUPLICATE = 1, OUTSIDE = 2 };
constexpr int DIGITS = 8, BINS = 256;          // the most passes, values of a digit
constexpr int HISTOGRAMS = 64;                 // state[HISTOGRAMS + pass * BINS + digit]
constexpr int SORT = 2048, THREADS = 256;      // keys and threads of a block
constexpr u32 LOCAL = 1u << 30, TOTAL = 2u << 30, VALUE = LOCAL - 1;  // flags of a word of `look`: the block's own sum, or with all before

extern "C" __global__ void wm_index_clear(Brick* table, u32 cap, u32* state, u32* look, u32 looks) {
  u32 step = gridDim.x * blockDim.x, first = blockIdx.x * blockDim.x + threadIdx.x;
  for (u32 i = first; i < cap; i += step) {
    *reinterpret_cast<ulonglong2*>(&table[i]) = make_ulonglong2(EMPTY, 0);
    *reinterpret_cast<ulonglong2*>(&table[i].base) = make_ulonglong2(0, 0);
  }
  for (u32 i = first; i < HISTOGRAMS + DIGITS * BINS; i += step) state[i] = 0;
  for (u32 i = first; i < looks; i += step) look[i] = 0;
}

// Sites (n, 4): batch, z, y, x, each coordinate below 2^bits. brick_of[row]: the slot of the row's brick. New bricks are appended to
// `bricks`, and their slots to `places`.
extern "C" __global__ void wm_index_insert(const int4* coords, int n, int bits, Brick* table, u32 cap, u64* bricks, u32* places, u32* brick_of, u32* state) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int4 c = coords[i];
  if (u32(c.y | c.z | c.w) >> bits || c.x < 0) {
    atomicOr(&state[STATUS], OUTSIDE);
    brick_of[i] = 0;
    return;
  }
  u64 key = morton(c.x, c.y, c.z, c.w, bits), b = key >> 6;
  u32 h = mix(b) & (cap - 1);
  for (;; h = (h + 1) & (cap - 1)) {
    u64 was = *reinterpret_cast<volatile u64*>(&table[h].key);
    if (was == EMPTY) {
      was = atomicCAS(&table[h].key, EMPTY, b);
      if (was == EMPTY) {
        u32 at = atomicAdd(&state[BRICKS], 1);
        bricks[at] = b;
        places[at] = h;
        break;
      }
    }
    if (was == b) break;
  }
  u32 bit = 1u << (key & 31);
  if (atomicOr(reinterpret_cast<u32*>(&table[h].bits) + (key >> 5 & 1), bit) & bit) atomicOr(&state[STATUS], DUPLICATE);
  brick_of[i] = h;
}

extern "C" __global__ void __launch_bounds__(THREADS) wm_sort_histogram(const u64* bricks, u32* state, int passes) {
  __shared__ u32 count[DIGITS * BINS];
  for (int i = threadIdx.x; i < passes * BINS; i += THREADS) count[i] = 0;
  __syncthreads();
  u32 n = state[BRICKS];
  for (u32 i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS)
    for (int p = 0; p < passes; p++) atomicAdd(&count[p * BINS + (bricks[i] >> 8 * p & 255)], 1);
  __syncthreads();
  for (int i = threadIdx.x; i < passes * BINS; i += THREADS)
    if (count[i]) atomicAdd(&state[HISTOGRAMS + i], count[i]);
}

// The sum of `value` over the threads before this one, in a block of 256.
__device__ inline u32 sum_before(u32 value, u32* warps) {
  u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, sum = value;
  for (int d = 1; d < 32; d *= 2) {
    u32 below = __shfl_up_sync(~0u, sum, d);
    if (lane >= d) sum += below;
  }
  if (lane == 31) warps[warp] = sum;
  __syncthreads();
  u32 before = 0;
  for (u32 w = 0; w < warp; w++) before += warps[w];
  __syncthreads();
  return before + sum - value;
}
// Publishes a block's sum and returns the total of the blocks before it. The word of block b is look[b * stride + at]. Blocks are numbered
// in the order in which they start, so the blocks that this one waits for are already running.
__device__ inline u32 look_back(u32* look, u32 block, u32 stride, u32 at, u32 sum) {
  volatile u32* words = look;
  words[block * stride + at] = (block ? LOCAL : TOTAL) | sum;
  u32 before = 0;
  for (u32 b = block; b-- > 0;) {
    u32 word;
    do word = words[b * stride + at];
    while (!word);
    before += word & VALUE;
    if (word & TOTAL) break;
  }
  if (block) words[block * stride + at] = TOTAL | (before + sum);
  return before;
}

// One pass of a stable sort by 8 bits. `look` has a word for each block of 2048 keys and each digit; all must be zero before.
extern "C" __global__ void __launch_bounds__(THREADS) wm_sort_pass(const u64* bricks, const u32* places, u64* bricks_out, u32* places_out, u32* state, int pass, u32* look) {
  constexpr int WARPS = THREADS / 32, EACH = SORT / THREADS;
  __shared__ u32 seen[WARPS][BINS], sums[WARPS], ticket;
  u32 t = threadIdx.x, lane = t & 31, warp = t >> 5, n = state[BRICKS];
  if (t == 0) ticket = atomicAdd(&state[TICKETS + pass], 1);
  for (int w = 0; w < WARPS; w++) seen[w][t] = 0;
  __syncthreads();
  u32 block = ticket;
  if (block * SORT >= n) return;
  u64 key[EACH];
  u32 rank[EACH];
  for (int e = 0; e < EACH; e++) {  // each warp has 256 consecutive keys
    u32 i = block * SORT + warp * 32 * EACH + e * 32 + lane;
    key[e] = i < n ? bricks[i] : EMPTY;
    u32 digit = i < n ? u32(key[e] >> 8 * pass & 255) : BINS, peers = __match_any_sync(~0u, digit), before = 0;
    if (i < n) before = seen[warp][digit];
    __syncwarp();
    rank[e] = before + __popc(peers & ((1u << lane) - 1));
    if (i < n && lane == __ffs(peers) - 1) seen[warp][digit] = before + __popc(peers);
    __syncwarp();
  }
  __syncthreads();
  u32 total = 0;  // thread t owns digit t from here on
  for (int w = 0; w < WARPS; w++) {
    u32 count = seen[w][t];
    seen[w][t] = total;
    total += count;
  }
  u32 first = sum_before(state[HISTOGRAMS + pass * BINS + t], sums) + look_back(look, block, BINS, t, total);
  for (int w = 0; w < WARPS; w++) seen[w][t] += first;
  __syncthreads();
  for (int e = 0; e < EACH; e++) {
    u32 i = block * SORT + warp * 32 * EACH + e * 32 + lane;
    if (i >= n) continue;
    u32 to = seen[warp][key[e] >> 8 * pass & 255] + rank[e];
    bricks_out[to] = key[e];
    places_out[to] = places[i];
  }
}

// Sets the base of each brick in the order of `places`, and state[SITES] to the number of sites. `look` has a word for each block of 2048
// bricks.
extern "C" __global__ void __launch_bounds__(THREADS) wm_index_base(const u32* places, Brick* table, u32* state, u32* look) {
  constexpr int EACH = SORT / THREADS;
  __shared__ u32 sums[THREADS / 32], ticket, before;
  u32 t = threadIdx.x, n = state[BRICKS];
  if (t == 0) ticket = atomicAdd(&state[TICKETS + DIGITS], 1);
  __syncthreads();
  u32 block = ticket, place[EACH], sum = 0;
  if (block * SORT >= n) return;
  u32 count[EACH];
  for (int e = 0; e < EACH; e++) {
    u32 i = block * SORT + t * EACH + e;
    place[e] = i < n ? places[i] : 0;
    count[e] = i < n ? __popcll(table[place[e]].bits) : 0;
    sum += count[e];
  }
  u32 first = sum_before(sum, sums);
  if (t == THREADS - 1) {
    before = look_back(look, block, 1, 0, first + sum);
    if ((block + 1) * SORT >= n) state[SITES] = before + first + sum;
  }
  __syncthreads();
  first += before;
  for (int e = 0; e < EACH; e++) {
    if (block * SORT + t * EACH + e < n) table[place[e]].base = first;
    first += count[e];
  }
}

extern "C" __global__ void wm_index_rank(const int4* coords, int n, int bits, const u32* brick_of, const Brick* table, int* order, u64* keys) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int4 c = coords[i];
  u64 key = morton(c.x, c.y, c.z, c.w, bits), below = (1ull << (key & 63)) - 1;
  const Brick& brick = table[brick_of[i]];
  u32 rank = brick.base + __popcll(brick.bits & below);
  if (rank >= u32(n)) return;  // happens only if wm_index_insert has set a status
  order[rank] = i;
  keys[rank] = key;
}
