#pragma once
// A list of offsets, passed to a kernel by value.
struct Index {
  short at[128];
};
