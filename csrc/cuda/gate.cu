// gate on CUDA: y = x g in one pass, and both gradients in one pass.
#include "run.cuh"

namespace pyinterp::cuda {
namespace {

Tensor gate(
    const Tensor& x, const Tensor& scores, const std::optional<Tensor>& group, std::optional<double> temperature,
    int64_t dim) {
  const DeviceScope device(x);
  const Gated gated(x, dim, group.has_value());
  const Scores rows(scores, group, gated);
  Tensor y = torch::stable::empty_like(gated.x);
  for_each_dtype(x, [&](auto number) {
    using T = decltype(number);
    Pass<T> p = pass_over<T>(gated, rows, temperature);
    p.out = y.mutable_data_ptr<T>();
    forward<Gate>(p, device.stream());
  });
  return y;
}

std::tuple<Tensor, Tensor> gate_backward(
    const Tensor& grad, const Tensor& x, const Tensor& scores, const std::optional<Tensor>& group,
    std::optional<double> temperature, int64_t dim, bool need_x) {
  const DeviceScope device(x);
  const Gated gated(x, dim, group.has_value());
  const Scores rows(scores, group, gated);
  const Tensor dy = gated.like_x(grad);
  Tensor dx = need_x ? torch::stable::empty_like(gated.x) : no_gradient(x);
  Tensor grad_scores = torch::stable::empty_like(rows.scores);
  for_each_dtype(x, [&](auto number) {
    using T = decltype(number);
    Pass<T> p = pass_over<T>(gated, rows, temperature);
    p.dy = dy.const_data_ptr<T>();
    p.out = need_x ? dx.mutable_data_ptr<T>() : nullptr;
    backward<Gate>(p, grad_scores, device.stream());
  });
  return {dx, grad_scores};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyinterp, CUDA, m) {
  m.impl("gate", TORCH_BOX(&gate));
  m.impl("gate_backward", TORCH_BOX(&gate_backward));
}

}  // namespace pyinterp::cuda
