#pragma once
#include "common.cuh"

constexpr int TOP = 14;  // the exponent to which the largest value is scaled
// The exponent of the value whose bits wm_largest found.
__device__ inline int exponent_of(const u32* largest) { return *largest ? int(*largest >> 23) - 127 : 0; }
