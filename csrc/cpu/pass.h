// What one pass of a CPU loop over the data reads and writes.
#pragma once

#include "../site.h"

namespace pyinterp {

template <class T>
struct Pass {
  const T* x = nullptr;
  const T* dy = nullptr;                                      // backward only
  T* out = nullptr;                                           // y, or dx (null where nobody needs it)
  const Wide<T>* tables[3] = {nullptr, nullptr, nullptr};     // g, and for gated_affine scale and shift
  const int64_t* group = nullptr;                             // the row of g for each segment, or null
  Wide<T>* partial = nullptr;                                 // backward only: (segments, blocks, channels)
  Site site{};
  Tiles tiles{};
};

}  // namespace pyinterp
