// PTX instructions of sm_90a: barriers in shared memory, bulk copies, and wgmma with A in registers and B in shared memory.
#pragma once
#include "common.cuh"
#include "kind.cuh"

__device__ inline void bar_init(u32 bar, int arrivals) { asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(bar), "r"(arrivals) : "memory"); }
__device__ inline void bar_arrive(u32 bar) { asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(bar) : "memory"); }
__device__ inline void bar_expect(u32 bar, u32 bytes) { asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory"); }
__device__ inline void bar_wait(u32 bar, u32 parity) {
  asm volatile("{\n.reg .pred p;\nL:\nmbarrier.try_wait.parity.shared.b64 p, [%0], %1;\n@p bra D;\nbra L;\nD:\n}" ::"r"(bar), "r"(parity) : "memory");
}
__device__ inline void bulk_copy(u32 to, const void* from, u32 bytes, u32 bar) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes), "r"(bar) : "memory");
}

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most LEFT groups are still under way.
template <int LEFT> __device__ inline void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory"); }
__device__ inline void wgmma_finish() {
  wgmma_commit();
  wgmma_wait<0>();
}
// Keeps the compiler from moving accumulators across this point.
template <int N> __device__ inline void hold(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}
// The descriptor of a matrix B whose rows have 32, 64 or 128 bytes and the swizzle of that width. A step of 16 bytes adds 1.
template <int ROW_BYTES> __device__ inline u64 describe(u32 at) {
  return u64(at >> 4 & 0x3fff) | u64(1) << 16 | u64(ROW_BYTES * 8 / 16) << 32 | u64(ROW_BYTES == 128 ? 1 : ROW_BYTES == 64 ? 2 : 3) << 62;
}
#define D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D8(i) D4(i), D4(i + 4)
#define D16(i) D8(i), D8(i + 8)
#define R8 "{%0,%1,%2,%3,%4,%5,%6,%7}"
#define R16 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}"
#define R24 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23}"
#define R32 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}"
#define R48 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47}"
#define R64 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}"
#define OPERANDS "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(add))
// d (64 x N) += A (64 x 16 halves or 64 x 8 floats) * B; without `add`, d is overwritten. TB 1: B is [k][n] (halves only).
#define WGMMA_HALF(N, TYPES, REGS, AB, P, T, ...)                                                                                                           \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P ", 0;\nwgmma.mma_async.sync.aligned.m64n" N "k16.f32." TYPES " " REGS ", " AB ", p, 1, 1, " T ";\n}" \
               : __VA_ARGS__ : OPERANDS, "n"(TB))
#define WGMMA_TF32(N, REGS, AB, P, ...)                                                                                                                  \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P ", 0;\nwgmma.mma_async.sync.aligned.m64n" N "k8.f32.tf32.tf32 " REGS ", " AB ", p, 1, 1;\n}" \
               : __VA_ARGS__ : OPERANDS)
#define WGMMA(N, REGS, AB, P, T, ...)                                                        \
  {                                                                                          \
    if constexpr (KIND == F16) WGMMA_HALF(N, "f16.f16", REGS, AB, P, T, __VA_ARGS__);        \
    else if constexpr (KIND == BF16) WGMMA_HALF(N, "bf16.bf16", REGS, AB, P, T, __VA_ARGS__); \
    else WGMMA_TF32(N, REGS, AB, P, __VA_ARGS__);                                            \
  }
template <Kind KIND, int N, int TB = 0> __device__ inline void wgmma(float (&d)[N / 2], const u32 (&a)[4], u64 b, bool add = true) {
  if constexpr (N == 16) WGMMA("16", R8, "{%8,%9,%10,%11}, %12", "%13", "%14", D8(0))
  else if constexpr (N == 32) WGMMA("32", R16, "{%16,%17,%18,%19}, %20", "%21", "%22", D16(0))
  else if constexpr (N == 48) WGMMA("48", R24, "{%24,%25,%26,%27}, %28", "%29", "%30", D16(0), D8(16))
  else if constexpr (N == 64) WGMMA("64", R32, "{%32,%33,%34,%35}, %36", "%37", "%38", D16(0), D16(16))
  else if constexpr (N == 96) WGMMA("96", R48, "{%48,%49,%50,%51}, %52", "%53", "%54", D16(0), D16(16), D16(32))
  else WGMMA("128", R64, "{%64,%65,%66,%67}, %68", "%69", "%70", D16(0), D16(16), D16(32), D16(48))
}
