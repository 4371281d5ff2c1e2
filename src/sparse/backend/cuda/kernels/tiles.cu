// Builds the map of tiles.cuh from the index of the sites (sites.cu): one block per tile, then a list of the work.
//
// The 27 neighbours of a site are in at most 8 bricks of 4^3 cells. A small table in shared memory holds the bricks that a tile reads, and
// the cells of each that each quarter of the tile's sites needs. Counting bits then gives the slots, so nothing is searched twice.
#include "tiles.cuh"

constexpr int SLOTS = 704, FULL = 600;  // slots of the table of bricks; the most bricks in it
constexpr u16 NONE = 0xffff;

// For each of the 64 cells of a brick: where its neighbours are (which of 8 bricks << 6 | cell), and the same as masks of each brick.
struct Near {
  u64 mask[8][64];
  u16 at[K][64];
};
constexpr Near make_near() {
  Near near{};
  for (int cell = 0; cell < 64; cell++)
    for (int o = 0; o < K; o++) {
      int from[3] = {(cell >> 4 & 2) | (cell >> 2 & 1), (cell >> 3 & 2) | (cell >> 1 & 1), (cell >> 2 & 2) | (cell & 1)};
      int step[3] = {o / 9 - 1, o / 3 % 3 - 1, o % 3 - 1}, brick = 0, to = 0;
      for (int a = 0; a < 3; a++) {
        int v = from[a] + step[a];
        brick = brick << 1 | (v < 0 || v > 3);
        to |= ((v & 2) << 2 | (v & 1)) << (2 - a);
      }
      near.at[o][cell] = u16(brick << 6 | to);
      near.mask[brick][cell] |= 1ull << to;
    }
  return near;
}
__device__ constexpr Near NEAR = make_near();

__device__ inline u32 or_of(u32 lanes, u32 v) {
#if __CUDA_ARCH__ >= 800
  return __reduce_or_sync(lanes, v);
#else
  u32 all = 0;
  for (u32 left = lanes; left; left &= left - 1) all |= __shfl_sync(lanes, v, __ffs(left) - 1);
  return all;
#endif
}
__device__ inline u32 warp_sum(u32 v) {
  for (int d = 16; d; d /= 2) v += __shfl_xor_sync(~0u, v, d);
  return v;
}

__device__ inline u32 min_of(u32 v) {
#if __CUDA_ARCH__ >= 800
  return __reduce_min_sync(~0u, v);
#else
  for (int d = 16; d; d /= 2) v = min(v, __shfl_xor_sync(~0u, v, d));
  return v;
#endif
}

// Puts the `count` rows of a tile from `first` on into groups of 64 that have few offsets each, so that a warpgroup can skip the others; a
// warp does it. A group begins with the row of the fewest offsets. All rows that add no offset follow; if there are too many, those with the
// most. Then comes the row that adds the fewest. becomes[place]: the row.
__device__ void gather_alike(const u32* masks, int first, int count, u16* becomes) {
  constexpr int EACH = TILE / 32;
  int lane = threadIdx.x & 31;
  u32 mask[EACH], waiting = (1u << count / 32) - 1, have = 0;
#pragma unroll
  for (int i = 0; i < EACH; i++) mask[i] = waiting >> i & 1 ? masks[first + i * 32 + lane] : 0;
  for (int placed = 0; placed < count;) {
    int room = 64 - placed % 64, adds_none = 0;
    u32 chosen = 0, ballots[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++)
      if (!(mask[i] & ~have)) chosen |= 1u << i;
    chosen &= waiting;
    if (!__any_sync(~0u, chosen)) {
      u32 best = ~0u;
#pragma unroll
      for (int i = 0; i < EACH; i++)
        if (waiting >> i & 1) best = min(best, u32(__popc(mask[i] & ~have) << 8 | i * 32 | lane));
      have |= masks[first + (min_of(best) & 255)];
      continue;
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) adds_none += __popc(ballots[i] = __ballot_sync(~0u, chosen >> i & 1));
    if (adds_none > room) {
      u32 least = ~0u;  // 32 - offsets
#pragma unroll
      for (int i = 0; i < EACH; i++)
        if (chosen >> i & 1) least = min(least, u32(32 - __popc(mask[i])));
      least = min_of(least);
#pragma unroll
      for (int i = 0; i < EACH; i++) {
        if (32 - __popc(mask[i]) != least) chosen &= ~(1u << i);
        ballots[i] = __ballot_sync(~0u, chosen >> i & 1);
      }
    }
    int rank = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      int at = rank + __popc(ballots[i] & ((1u << lane) - 1));
      if (chosen >> i & 1 && at < room) {
        becomes[first + placed + at] = first + i * 32 + lane;
        waiting &= ~(1u << i);
      }
      rank += __popc(ballots[i]);
    }
    placed += min(rank, room);
    if (placed % 64 == 0) have = 0;
  }
}

// keys, order: by rank (wm_index_rank). most: the most rows that a part may read. least: the fewest parts of a tile (1, 2 or 4), to spread
// few sites over many multiprocessors. lists has room for `room` entries. fill[0] (zero before) becomes the number of entries in use.
// fill[1] is set if a tile does not fit; the map must not be used then.
extern "C" __global__ void __launch_bounds__(TILE) wm_tiles(const u64* keys, const int* order, int n, int bits, const Brick* table, u32 cap, int most, int least, int* outrow,
                                                            u32* mask64, u16* local, u32* lists, u32 room, uint2* parts_of, u32* fill) {
  __shared__ u64 need[4][SLOTS], have[SLOTS];  // cells of a brick that a quarter of the tile needs; cells that are active
  __shared__ u32 base[SLOTS], sorted_base[SLOTS];
  __shared__ u16 start[SLOTS], used[SLOTS], sorted_count[SLOTS];
  __shared__ u8 odd[SLOTS];
  __shared__ u16 at[K][64], where[8][TILE], source[TILE];
  __shared__ u32 masks[TILE], counts[7], groups[4], list_at[4];
  __shared__ u8 place[TILE], group[TILE], group_count[TILE / 32][8];
  __shared__ int bricks, crowded;
  int t = threadIdx.x, tile = blockIdx.x, row = tile * TILE + t, lane = t & 31, warp = t >> 5;
  u64 inside = (1ull << 3 * bits) - 1, key = row < n ? keys[row] : 0;
  int z = squeeze((key & inside) >> 2), y = squeeze((key & inside) >> 1), x = squeeze(key & inside), cell = key & 63;
  int sz = (z & 3) == 0 ? -1 : (z & 3) == 3, sy = (y & 3) == 0 ? -1 : (y & 3) == 3, sx = (x & 3) == 0 ? -1 : (x & 3) == 3;
  auto brick_key = [&](int c, bool& exists) {
    int bz = (z >> 2) + (c >> 2 & 1) * sz, by = (y >> 2) + (c >> 1 & 1) * sy, bx = (x >> 2) + (c & 1) * sx;
    exists = row < n && !((c >> 2 & 1 && !sz) || (c >> 1 & 1 && !sy) || (c & 1 && !sx)) && !(u32(bz | by | bx) >> (bits - 2));
    return (key & ~inside) >> 6 | spread(bz) << 2 | spread(by) << 1 | spread(bx);
  };
  {  // sends the first probes of all eight bricks together, so that the loop below finds them in the cache
    u64 touch = 0;
#pragma unroll
    for (int c = 0; c < 8; c++) {
      bool exists;
      u64 b = brick_key(c, exists);
      if (exists) touch ^= table[mix(b) & (cap - 1)].key;
    }
    asm volatile("" ::"l"(touch));
  }
  place[t] = cell;
  group[t] = bank_group(z, y, x);
  for (int i = t; i < K * 64; i += TILE) at[0][i] = NEAR.at[0][i];
  for (int i = t; i < SLOTS; i += TILE) {
    base[i] = ~0u;
    for (int q = 0; q < 4; q++) need[q][i] = 0;
  }
  if (t < 7) counts[t] = 0;
  if (t < 4) groups[t] = 0;
  if (t == 0) bricks = crowded = 0;
  __syncthreads();

#pragma unroll 1
  for (int c = 0; c < 8; c++) {
    bool exists;
    u64 b = brick_key(c, exists), active = 0, mine = 0;
    u32 first = 0;
    int slot = -1;
    if (exists)
      for (u32 h = mix(b) & (cap - 1);; h = (h + 1) & (cap - 1)) {
        ulonglong2 e = *reinterpret_cast<const ulonglong2*>(&table[h]);
        if (e.x == b) {
          active = e.y;
          first = table[h].base;
          break;
        }
        if (e.x == EMPTY) break;
      }
    mine = active & NEAR.mask[c][cell];
    if (mine)
      for (u32 h = u32(u64(first * 0x9e3779b1u) * SLOTS >> 32); slot < 0; h = h + 1 == SLOTS ? 0 : h + 1) {
        if (*(volatile int*)&bricks > FULL) {
          crowded = 1;
          break;
        }
        u32 was = *(volatile u32*)&base[h];
        if (was == ~0u) was = atomicCAS(&base[h], ~0u, first);
        if (was == ~0u) {
          used[atomicAdd(&bricks, 1)] = h;
          have[h] = active;
          odd[h] = ((z >> 2) + (c >> 2) * sz) & 1;
        }
        if (was == ~0u || was == first) slot = h;
      }
    where[c][t] = u16(slot);
    __syncwarp();
    u32 peers = __match_any_sync(~0u, slot), low = or_of(peers, u32(mine)), high = or_of(peers, u32(mine >> 32));
    if (slot >= 0 && __ffs(peers) - 1 == lane) {
      u32* word = reinterpret_cast<u32*>(&need[t >> 6][slot]);
      if (low) atomicOr(word, low);
      if (high) atomicOr(word + 1, high);
    }
  }
  __syncthreads();

  // The number of parts. `counts` are the rows that the whole tile, its two halves and its four quarters read.
  int nb = min(bricks, FULL);
  {
    u32 sum[7] = {};
    for (int i = t; i < nb; i += TILE) {
      int h = used[i];
      u64 a = need[0][h], b = need[1][h], c = need[2][h], d = need[3][h];
      sum[0] += __popcll(a | b | c | d);
      sum[1] += __popcll(a | b);
      sum[2] += __popcll(c | d);
      sum[3] += __popcll(a);
      sum[4] += __popcll(b);
      sum[5] += __popcll(c);
      sum[6] += __popcll(d);
    }
    for (int i = 0; i < 7; i++) {
      u32 all = warp_sum(sum[i]);
      if (lane == 0 && all) atomicAdd(&counts[i], all);
    }
  }
  __syncthreads();
  u32 m = most, parts = 1;
  if (least > 1 || counts[0] > m) parts = 2;
  if (parts == 2 && (least > 2 || counts[1] > m || counts[2] > m)) parts = 4;
  bool fits = !crowded && (parts < 4 || (counts[3] <= m && counts[4] <= m && counts[5] <= m && counts[6] <= m));
  if (t < 4) {
    u32 count = t < parts ? counts[parts - 1 + t] : 0, length = (count + 3) & ~3u;
    u32 from = fits && count ? atomicAdd(&fill[0], length) : 0;
    if (from + length > room) fits = false;
    list_at[t] = from;
    parts_of[tile * 4 + t] = make_uint2(from, count);
    if (!fits) fill[1] = 1;
  }
  fits = __syncthreads_and(fits);
  if (!fits) {
    if (t < 4) mask64[tile * 4 + t] = t == 0 ? 1u << 28 : 0;
    return;
  }
  if (parts < 4)
    for (int i = t; i < nb; i += TILE) {  // the first quarter of a part gets the union of the part's quarters
      int h = used[i];
      need[0][h] |= need[1][h];
      need[2][h] |= need[3][h];
      if (parts == 1) need[0][h] |= need[2][h];
    }

  u32 mask = row < n ? 0 : OFFSETS;
  if (row < n)
    for (int o = 0; o < K; o++) {
      u32 e = at[o][cell], slot = where[e >> 6][t];
      if (slot != NONE) mask |= u32(have[slot] >> (e & 63) & 1) << o;
    }
  masks[t] = mask;
  __syncthreads();
  if (int mine = (warp + tile) % (TILE / 32); mine < parts)  // blocks on one multiprocessor use different schedulers
    gather_alike(masks, mine * TILE / parts, TILE / parts, source);
  __syncthreads();
  {  // the k-th of 64 by bank group goes to place 8 (k mod 8) + k div 8, so that eight places that are read together differ in their groups
    int me = source[t], mine = group[me];
    u32 ones[3], same = ~0u, has = ~0u;
    for (int b = 0; b < 3; b++) {
      ones[b] = __ballot_sync(~0u, mine >> b & 1);
      same &= mine >> b & 1 ? ones[b] : ~ones[b];
      has &= lane >> b & 1 ? ones[b] : ~ones[b];
    }
    if (lane < 8) group_count[warp][lane] = __popc(has);
    __syncthreads();
    int rank = __popc(same & ((1u << lane) - 1)) + (warp & 1 ? group_count[warp - 1][mine] : 0);
    for (int g = 0; g < mine; g++) rank += group_count[warp & ~1][g] + group_count[warp | 1][g];
    source[(t & ~63) + (rank & 7) * 8 + (rank >> 3)] = me;
  }
  __syncthreads();
  int me = source[t];
  outrow[tile * TILE + t] = tile * TILE + me < n ? order[tile * TILE + me] : -1;

  for (u32 part = 0; part < parts; part++) {
    const u64* wanted = need[part * 4 / parts];
    for (int i = t; i < nb; i += TILE) {
      int h = used[i];
      sorted_base[i] = base[h];
      sorted_count[i] = __popcll(wanted[h]);
    }
    __syncthreads();
    for (int i = t; i < nb; i += TILE) {  // bricks ascend, and cells ascend in each brick
      u32 b = sorted_base[i], slot = 1;
#pragma unroll 4
      for (int j = 0; j < nb; j++) slot += sorted_base[j] < b ? sorted_count[j] : 0;
      start[used[i]] = slot;
    }
    __syncthreads();
    for (int i = t; i < nb * 64; i += TILE) {
      int h = used[i >> 6], bit = i & 63;
      if (!(wanted[h] >> bit & 1)) continue;
      u64 below = (1ull << bit) - 1;
      u32 to = (bit >> 4 & 2) | (bit >> 2 & 1) | odd[h] << 2;
      u32 g = bank_group(to, (bit >> 3 & 2) | (bit >> 1 & 1), (bit >> 2 & 2) | (bit & 1));
      lists[list_at[part] + start[h] - 1 + __popcll(wanted[h] & below)] = u32(order[base[h] + __popcll(have[h] & below)]) << 3 | g;
    }
    if (t * parts / TILE == part) {  // t is a place of the tile here
      int mine = group[me], from = place[me];
      u32 got = 0;
#pragma unroll 9
      for (int o = 0; o < K; o++) {
        u32 e = at[o][from], h = where[e >> 6][me], g = (mine + bank_group(o / 9 - 1, o / 3 % 3 - 1, o % 3 - 1)) & 7, slot = 0;
        if (h != NONE && have[h] >> (e & 63) & 1) {
          slot = start[h] + __popcll(wanted[h] & ((1ull << (e & 63)) - 1));
          got |= 1u << o;
        }
        local[(size_t(tile) * K + o) * TILE + t] = u16(slot << 3 | g);
      }
      got = or_of(~0u, got);
      if (lane == 0) atomicOr(&groups[t >> 6], got);
    }
    __syncthreads();
  }
  if (t < 4) mask64[tile * 4 + t] = groups[t] | (t == 0 ? parts << 28 : 0);
}

// Lists the items in a fixed order, whole tiles first. One block of 1024 threads. items has room for their number and 4 items per tile.
extern "C" __global__ void __launch_bounds__(1024) wm_schedule(const u32* mask64, const uint2* parts_of, int tiles, Item* items) {
  __shared__ int whole[1024], rest[1024];
  int t = threadIdx.x, each = (tiles + 1023) / 1024, from = min(t * each, tiles), to = min(from + each, tiles), a = 0, b = 0;
  for (int i = from; i < to; i++) {
    int parts = mask64[i * 4] >> 28;
    if (parts == 1) a++;
    else b += parts;
  }
  whole[t] = a;
  rest[t] = b;
  for (int d = 1; d < 1024; d *= 2) {
    __syncthreads();
    int x = t >= d ? whole[t - d] : 0, y = t >= d ? rest[t - d] : 0;
    __syncthreads();
    whole[t] += x;
    rest[t] += y;
  }
  __syncthreads();
  a = whole[t] - a;
  b = whole[1023] + rest[t] - b;
  for (int i = from; i < to; i++) {
    int parts = mask64[i * 4] >> 28;
    for (int p = 0; p < parts; p++) {
      Item item{i << 2 | p, parts_of[i * 4 + p].x, int(parts_of[i * 4 + p].y), 0};
      for (int g = p * 4 / parts; g < (p + 1) * 4 / parts; g++) item.offsets |= mask64[i * 4 + g] & OFFSETS;
      items[1 + (parts == 1 ? a++ : b++)] = item;
    }
  }
  if (t == 1023) items[0].at = whole[1023] + rest[1023];
}
