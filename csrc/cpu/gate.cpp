// gate on the CPU: y = x g in one pass, and both gradients in one pass.
#include "run.h"

namespace pyinterp::cpu {
namespace {

template <class T>
void forward_pass(const Pass<T>& pass, int64_t begin, int64_t end) {
  PYI_WITH_ISA(T, (forward_tiles<Gate, T>(pass, begin, end)))
}

template <class T>
void backward_pass(const Pass<T>& pass, int64_t begin, int64_t end) {
  PYI_WITH_ISA(T, (backward_tiles<Gate, T>(pass, begin, end)))
}

Tensor gate(
    const Tensor& x, const Tensor& scores, const std::optional<Tensor>& group, std::optional<double> temperature,
    int64_t dim) {
  const Gated gated(x, dim, group.has_value());
  const Scores rows(scores, group, gated);
  Tensor y = torch::stable::empty_like(gated.x);
  for_each_dtype(x, [&](auto number) {
    using T = decltype(number);
    Call<T> call(gated, rows, temperature);
    call.pass.out = y.mutable_data_ptr<T>();
    call.for_tiles([&](int64_t begin, int64_t end) { forward_pass(call.pass, begin, end); });
  });
  return y;
}

std::tuple<Tensor, Tensor> gate_backward(
    const Tensor& grad, const Tensor& x, const Tensor& scores, const std::optional<Tensor>& group,
    std::optional<double> temperature, int64_t dim, bool need_x) {
  const Gated gated(x, dim, group.has_value());
  const Scores rows(scores, group, gated);
  const Tensor dy = gated.like_x(grad);
  Tensor dx = need_x ? torch::stable::empty_like(gated.x) : no_gradient(x);
  Tensor grad_scores = torch::stable::empty_like(rows.scores);
  for_each_dtype(x, [&](auto number) {
    using T = decltype(number);
    Call<T> call(gated, rows, temperature);
    call.make_partial();
    call.pass.dy = dy.const_data_ptr<T>();
    call.pass.out = need_x ? dx.mutable_data_ptr<T>() : nullptr;
    call.for_tiles([&](int64_t begin, int64_t end) { backward_pass(call.pass, begin, end); });
    call.finish(grad_scores.mutable_data_ptr<Wide<T>>(), rows, temperature);
  });
  return {dx, grad_scores};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyinterp, CPU, m) {
  m.impl("gate", TORCH_BOX(&gate));
  m.impl("gate_backward", TORCH_BOX(&gate_backward));
}

}  // namespace pyinterp::cpu
