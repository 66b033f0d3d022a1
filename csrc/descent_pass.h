// What one call of gram_descent reads and writes.
#pragma once

#include <cstdint>

namespace pyinterp {

template <class S>
struct DescentPass {
  const S* linear;     // (rows, size)
  const S* gram;       // (size, size)
  const S* diagonal;   // (size): of gram
  const S* curvature;  // (size): the same, plus l2
  const S* inverse;    // (size): of curvature
  S* weights;          // (rows, size): the start, then the result
  int64_t* sweeps;     // (rows)
  int64_t size;
  S l1, l2, tolerance;
  int64_t max_sweeps;
};

}  // namespace pyinterp
