// gated_affine on the CPU: y = act(g (scale x + shift)) in one pass; the backward recomputes from x.
#include "run.h"

namespace pyinterp::cpu {
namespace {

template <int act, class T>
void forward_pass(const Pass<T>& pass, int64_t begin, int64_t end) {
  PYI_WITH_ISA(T, (forward_tiles<GatedAffine<static_cast<Act>(act)>, T>(pass, begin, end)))
}

template <int act, class T>
void backward_pass(const Pass<T>& pass, int64_t begin, int64_t end) {
  PYI_WITH_ISA(T, (backward_tiles<GatedAffine<static_cast<Act>(act)>, T>(pass, begin, end)))
}

// The passes of every activation, in the order of Act.
template <class T>
using PassFn = void (*)(const Pass<T>&, int64_t, int64_t);
constexpr int64_t kActs = 7;

template <class T>
constexpr PassFn<T> kForward[kActs] = {
    forward_pass<0, T>, forward_pass<1, T>, forward_pass<2, T>, forward_pass<3, T>,
    forward_pass<4, T>, forward_pass<5, T>, forward_pass<6, T>};
template <class T>
constexpr PassFn<T> kBackward[kActs] = {
    backward_pass<0, T>, backward_pass<1, T>, backward_pass<2, T>, backward_pass<3, T>,
    backward_pass<4, T>, backward_pass<5, T>, backward_pass<6, T>};

void check_act(int64_t act) {
  STD_TORCH_CHECK(act >= 0 && act < kActs, "act must be in [0, ", kActs, "), got ", act);
}

template <class T>
void attach(const Affine& affine, Pass<T>& pass) {
  pass.tables[1] = affine.scale.const_data_ptr<Wide<T>>();
  pass.tables[2] = affine.shift.const_data_ptr<Wide<T>>();
}

Tensor gated_affine(
    const Tensor& x, const Tensor& scale, const Tensor& shift, const Tensor& scores,
    const std::optional<Tensor>& group, int64_t act, std::optional<double> temperature, int64_t dim) {
  const Gated gated(x, dim, group.has_value());
  const Scores rows(scores, group, gated);
  const Affine affine(scale, shift, gated);
  check_act(act);
  Tensor y = torch::stable::empty_like(gated.x);
  for_each_dtype(x, [&](auto number) {
    using T = decltype(number);
    Call<T> call(gated, rows, temperature);
    attach(affine, call.pass);
    call.pass.out = y.mutable_data_ptr<T>();
    call.for_tiles([&](int64_t begin, int64_t end) { kForward<T>[act](call.pass, begin, end); });
  });
  return y;
}

std::tuple<Tensor, Tensor> gated_affine_backward(
    const Tensor& grad, const Tensor& x, const Tensor& scale, const Tensor& shift, const Tensor& scores,
    const std::optional<Tensor>& group, int64_t act, std::optional<double> temperature, int64_t dim, bool need_x) {
  const Gated gated(x, dim, group.has_value());
  const Scores rows(scores, group, gated);
  const Affine affine(scale, shift, gated);
  check_act(act);
  const Tensor dy = gated.like_x(grad);
  Tensor dx = need_x ? torch::stable::empty_like(gated.x) : no_gradient(x);
  Tensor grad_scores = torch::stable::empty_like(rows.scores);
  for_each_dtype(x, [&](auto number) {
    using T = decltype(number);
    Call<T> call(gated, rows, temperature);
    attach(affine, call.pass);
    call.make_partial();
    call.pass.dy = dy.const_data_ptr<T>();
    call.pass.out = need_x ? dx.mutable_data_ptr<T>() : nullptr;
    call.for_tiles([&](int64_t begin, int64_t end) { kBackward<T>[act](call.pass, begin, end); });
    call.finish(grad_scores.mutable_data_ptr<Wide<T>>(), rows, temperature);
  });
  return {dx, grad_scores};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyinterp, CPU, m) {
  m.impl("gated_affine", TORCH_BOX(&gated_affine));
  m.impl("gated_affine_backward", TORCH_BOX(&gated_affine_backward));
}

}  // namespace pyinterp::cpu
