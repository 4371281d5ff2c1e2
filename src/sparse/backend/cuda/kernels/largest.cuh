#pragma once
#include "common.cuh"

constexpr int TOP = 14;  // exponent that the largest value is scaled to
// Exponent of the value whose bits wm_largest found.
__device__ inline int exponent_of(const u32* largest) { return *largest ? int(*largest >> 23) - 127 : 0; }
