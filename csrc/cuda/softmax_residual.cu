// softmax_residual_ on CUDA: one kernel that reads and writes every logit once, up to 2048 classes.
#include <algorithm>

#include "../softmax_tensors.h"
#include "device.cuh"
#include "softmax_kernel.cuh"

namespace pyinterp::cuda {
namespace {

Tensor softmax_residual_(const Tensor& logits, const Tensor& labels, const std::optional<Tensor>& weights) {
  const DeviceScope device(logits);
  LogitRows call(logits, labels, weights);
  if (call.rows == 0) {
    return call.losses;
  }
  for_each_wide_dtype(call.logits, [&](auto number) {
    using S = decltype(number);
    const SoftmaxPass<S> p{
        call.logits.template mutable_data_ptr<S>(),
        call.labels.template const_data_ptr<int64_t>(),
        call.weights ? call.weights->template const_data_ptr<S>() : nullptr,
        call.losses.template mutable_data_ptr<S>(),
        call.rows,
        call.classes};
    with_team(p.classes, [&](auto team) {
      using Team = decltype(team);
      const auto kernel = softmax_kernel<S, Team::kWarps, Team::kItems>;
      const int64_t grid = std::min<int64_t>(65535, ceil_div(p.rows, Team::kRows));
      kernel<<<static_cast<unsigned>(grid), dim3(Team::kThreads, Team::kRows), 0, device.stream()>>>(p);
      check(cudaGetLastError(), "softmax_residual_ launch");
    });
  });
  return call.losses;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyinterp, CUDA, m) {
  m.impl("softmax_residual_", TORCH_BOX(&softmax_residual_));
}

}  // namespace pyinterp::cuda
