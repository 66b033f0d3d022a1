// gated_affine on CUDA: y = act(g (scale x + shift)) in one pass; the backward recomputes from x.
#include "run.cuh"

namespace pyinterp::cuda {
namespace {

// Calls f with the Op of an activation.
template <class F>
void for_each_act(int64_t act, const F& f) {
  switch (static_cast<Act>(act)) {
    case Act::none:
      return f(GatedAffine<Act::none>{});
    case Act::relu:
      return f(GatedAffine<Act::relu>{});
    case Act::relu6:
      return f(GatedAffine<Act::relu6>{});
    case Act::silu:
      return f(GatedAffine<Act::silu>{});
    case Act::hardswish:
      return f(GatedAffine<Act::hardswish>{});
    case Act::gelu:
      return f(GatedAffine<Act::gelu>{});
    case Act::gelu_tanh:
      return f(GatedAffine<Act::gelu_tanh>{});
    default:
      STD_TORCH_CHECK(false, "unknown act ", act);
  }
}

Tensor gated_affine(
    const Tensor& x, const Tensor& scale, const Tensor& shift, const Tensor& scores,
    const std::optional<Tensor>& group, int64_t act, std::optional<double> temperature, int64_t dim) {
  const DeviceScope device(x);
  const Gated gated(x, dim, group.has_value());
  const Scores rows(scores, group, gated);
  const Affine affine(scale, shift, gated);
  Tensor y = torch::stable::empty_like(gated.x);
  for_each_dtype(x, [&](auto number) {
    using T = decltype(number);
    Pass<T> p = pass_over<T>(gated, rows, temperature);
    p.scale = affine.scale.template const_data_ptr<Wide<T>>();
    p.shift = affine.shift.template const_data_ptr<Wide<T>>();
    p.out = y.mutable_data_ptr<T>();
    for_each_act(act, [&](auto op) { forward<decltype(op)>(p, device.stream()); });
  });
  return y;
}

std::tuple<Tensor, Tensor> gated_affine_backward(
    const Tensor& grad, const Tensor& x, const Tensor& scale, const Tensor& shift, const Tensor& scores,
    const std::optional<Tensor>& group, int64_t act, std::optional<double> temperature, int64_t dim, bool need_x) {
  const DeviceScope device(x);
  const Gated gated(x, dim, group.has_value());
  const Scores rows(scores, group, gated);
  const Affine affine(scale, shift, gated);
  const Tensor dy = gated.like_x(grad);
  Tensor dx = need_x ? torch::stable::empty_like(gated.x) : no_gradient(x);
  Tensor grad_scores = torch::stable::empty_like(rows.scores);
  for_each_dtype(x, [&](auto number) {
    using T = decltype(number);
    Pass<T> p = pass_over<T>(gated, rows, temperature);
    p.scale = affine.scale.template const_data_ptr<Wide<T>>();
    p.shift = affine.shift.template const_data_ptr<Wide<T>>();
    p.dy = dy.const_data_ptr<T>();
    p.out = need_x ? dx.mutable_data_ptr<T>() : nullptr;
    for_each_act(act, [&](auto op) { backward<decltype(op)>(p, grad_scores, device.stream()); });
  });
  return {dx, grad_scores};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyinterp, CUDA, m) {
  m.impl("gated_affine", TORCH_BOX(&gated_affine));
  m.impl("gated_affine_backward", TORCH_BOX(&gated_affine_backward));
}

}  // namespace pyinterp::cuda
