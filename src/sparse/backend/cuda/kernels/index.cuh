#pragma once
// Numbers of offsets, given to a kernel by value.
struct Index {
  short at[128];
};
