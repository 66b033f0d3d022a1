// How a tensor with a gated axis lies in memory, and how its passes are cut into tiles.
//
// Every supported layout is (segments, middle, channels, inner) in memory order. A segment is a run that uses one row
// of scores: a sample when there is a group, everything otherwise.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "host_device.h"

namespace pyinterp {

// Sums and tables are float32, or float64 with float64 data.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

struct Site {
  int64_t segments, middle, channels, inner;
  int64_t numel() const {
    return segments * middle * channels * inner;
  }
};

// Tiles depend on the shape alone, never on the number of threads, so every reduction is reproducible.
struct Tiles {
  int64_t rows;     // middle indices per tile
  int64_t columns;  // channels per tile
  int64_t blocks;   // tiles along middle: one partial sum per block and channel
  int64_t strips;   // tiles along channels
};

PYI_HD int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

inline Tiles tiles_of(const Site& site, int64_t elements) {
  Tiles t;
  t.columns = std::clamp<int64_t>(elements / std::max<int64_t>(site.inner, 1), 1, std::max<int64_t>(site.channels, 1));
  t.rows = std::clamp<int64_t>(
      elements / std::max<int64_t>(t.columns * site.inner, 1), 1, std::max<int64_t>(site.middle, 1));
  t.blocks = ceil_div(site.middle, t.rows);
  t.strips = ceil_div(site.channels, t.columns);
  return t;
}

}  // namespace pyinterp
