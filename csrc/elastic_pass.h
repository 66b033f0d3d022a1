// What one call of elastic_prox reads and writes.
#pragma once

#include <cstdint>

namespace pyinterp {

template <class S>
struct ProxNumbers {
  S step, threshold, shrinkage, momentum;  // threshold = step l1, shrinkage = 1 + step l2

  ProxNumbers(double step_, double l1, double l2, double momentum_)
      : step(static_cast<S>(step_)),
        threshold(static_cast<S>(step_ * l1)),
        shrinkage(static_cast<S>(1 + step_ * l2)),
        momentum(static_cast<S>(momentum_)) {}
};

template <class S>
struct ProxPass {
  const S* point;
  const S* gradient;
  const S* previous;
  S* weights;
  S* extrapolated;
  int64_t count;
  ProxNumbers<S> numbers;
};

}  // namespace pyinterp
