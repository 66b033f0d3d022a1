// The loop of elastic_prox, which the compiler vectorises.
//
// No include guard: for_each_isa.h includes this once per instruction set, inside that set's namespace.

template <class S>
void prox_steps(const ProxPass<S>& p, int64_t begin, int64_t end) {
  const ProxNumbers<S> numbers = p.numbers;
#pragma GCC ivdep
  for (int64_t i = begin; i < end; ++i) {
    p.weights[i] = prox_step(p.point[i], p.gradient[i], p.previous[i], numbers, p.extrapolated[i]);
  }
}
