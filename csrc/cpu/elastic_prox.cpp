// elastic_prox on the CPU: one pass over memory, in parts among the threads.
#include "../elastic_tensors.h"
#include "for_each_isa.h"

namespace pyinterp::cpu {
namespace {

// Below this many numbers a second thread costs more than it saves.
constexpr int64_t kGrainNumbers = 32768;

std::tuple<Tensor, Tensor> elastic_prox(
    const Tensor& point, const Tensor& gradient, const Tensor& previous, double step, double l1, double l2,
    double momentum) {
  ProxTensors call(point, gradient, previous);
  for_each_wide_dtype(call.point, [&](auto number) {
    using S = decltype(number);
    const ProxPass<S> pass = call.pass(ProxNumbers<S>(step, l1, l2, momentum));
    torch::stable::parallel_for(0, pass.count, kGrainNumbers, [&](int64_t begin, int64_t end) {
      PYI_ON_BEST_ISA(prox_steps(pass, begin, end))
    });
  });
  return {call.weights, call.extrapolated};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyinterp, CPU, m) {
  m.impl("elastic_prox", TORCH_BOX(&elastic_prox));
}

}  // namespace pyinterp::cpu
