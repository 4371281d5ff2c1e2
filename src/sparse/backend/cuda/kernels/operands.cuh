// Copies to shared memory what a weight gradient reads of an item of the map: its list, the rows of x that the list names, and the
// gradients of its places. The copies run in the background; T threads take part.
#pragma once
#include "copy.cuh"
#include "kind.cuh"
#include "tiles.cuh"

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
constexpr int LIST = 640;
struct __align__(16) List {
  u32 row[LIST];
  int out[TILE];
  u32 mask[4];
};
// Walks over the items of a block. After the last one, it gives items with at < 0.
struct Walk {
  const Item* items;
  int many, at;
  __device__ Walk(const Item* items) : items(items), many(items[0].at), at(blockIdx.x) {}
  __device__ Item next() {
    Item item{};
    if (at < many) item = items[1 + at];
    else item.at = -1;
    at += gridDim.x;
    return item;
  }
};
template <int T> __device__ inline void load_list(List& list, const Map& m, const Item& item) {
  u32 to = smem(&list);
  for (int i = threadIdx.x; i < (item.rows + 3) / 4; i += T) copy16(to + i * 16, m.lists + item.list + i * 4);
  for (int i = threadIdx.x; i < TILE / 4; i += T) copy16(to + LIST * 4 + i * 16, m.outrow + item.tile() * TILE + i * 4);
  if (threadIdx.x == 0) copy16(to + (LIST + TILE) * 4, m.mask64 + item.tile() * 4);
}
// Copies RB bytes of each row of the list; a row in memory has `bytes` bytes. Slot 0 is zeros. Chunks are XORed with the bank group.
template <int T, int RB> __device__ inline void load_rows(u32 to, const List& list, const Item& item, const char* x, int bytes) {
  constexpr int CH = RB / 16;
  for (int i = threadIdx.x; i < (item.rows + 1) * CH; i += T) {
    int slot = i / CH, ch = i % CH;
    u32 e = slot ? list.row[slot - 1] : 0;
    copy16(to + slot * RB + ((ch ^ (e & (CH - 1))) << 4), x + size_t(e >> 3) * bytes + ch * 16, slot > 0);
  }
}
// Copies RB bytes of the gradient of each place, swizzled. A place without a row gets zeros.
template <int T, int RB> __device__ inline void load_places(u32 to, const List& list, const char* g, int bytes) {
  constexpr int CH = RB / 16;
  for (int i = threadIdx.x; i < TILE * CH; i += T) {
    int p = i / CH, ch = i % CH, r = list.out[p];
    copy16(to + p * RB + (swizzle<RB>(p, ch) << 4), g + size_t(r < 0 ? 0 : r) * bytes + ch * 16, r >= 0);
  }
}
#endif
