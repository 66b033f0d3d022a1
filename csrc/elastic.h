// The elementwise half of a proximal gradient step with an elastic-net penalty, for CPU and CUDA.
//
// No include guard, as in gate.h: CPU code includes this once per instruction set, inside that set's namespace.

// Gives the new weight and sets the point of the next step. NaN stays NaN; zeros are +0, since -0 + 0 = +0.
template <class S>
PYI_HD S prox_step(S point, S gradient, S previous, const ProxNumbers<S>& n, S& extrapolated) {
  const S moved = point - n.step * gradient;
  const S over = std::fabs(moved) - n.threshold;
  const S weight = std::copysign(over < 0 ? S{0} : over, moved) / n.shrinkage + S{0};
  extrapolated = weight + n.momentum * (weight - previous);
  return weight;
}
