// elastic_prox on CUDA: one pass over memory.
#include <algorithm>

#include "../elastic_tensors.h"
#include "device.cuh"
#include "elastic_kernel.cuh"

namespace pyinterp::cuda {
namespace {

std::tuple<Tensor, Tensor> elastic_prox(
    const Tensor& point, const Tensor& gradient, const Tensor& previous, double step, double l1, double l2,
    double momentum) {
  const DeviceScope device(point);
  ProxTensors call(point, gradient, previous);
  for_each_wide_dtype(call.point, [&](auto number) {
    using S = decltype(number);
    const ProxPass<S> pass = call.pass(ProxNumbers<S>(step, l1, l2, momentum));
    const int64_t grid = std::min<int64_t>(65535, ceil_div(pass.count, kProxThreads));
    if (grid > 0) {
      prox_kernel<S><<<static_cast<unsigned>(grid), kProxThreads, 0, device.stream()>>>(pass);
      check(cudaGetLastError(), "elastic_prox launch");
    }
  });
  return {call.weights, call.extrapolated};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyinterp, CUDA, m) {
  m.impl("elastic_prox", TORCH_BOX(&elastic_prox));
}

}  // namespace pyinterp::cuda
