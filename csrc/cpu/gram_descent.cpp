// gram_descent on the CPU: every row is solved by one thread, which takes the next one when it is done.
#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "../tensors.h"
#include "for_each_isa.h"

namespace pyinterp::cpu {
namespace {

Tensor beside(const Tensor& t, const Tensor& linear) {
  STD_TORCH_CHECK(
      t.scalar_type() == linear.scalar_type() && t.dim() == 2 && !t.is_cuda(),
      "linear, gram and weights must be matrices of one dtype on the CPU");
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

std::tuple<Tensor, Tensor> gram_descent(
    const Tensor& linear, const Tensor& gram, const Tensor& weights, double l1, double l2, double tolerance,
    int64_t max_sweeps) {
  const Tensor c = beside(linear, linear), g = beside(gram, linear);
  const int64_t rows = c.size(0), d = c.size(1);
  STD_TORCH_CHECK(g.size(0) == d && g.size(1) == d, "gram must be (d, d), d = ", d);
  STD_TORCH_CHECK(
      weights.dim() == 2 && weights.size(0) == rows && weights.size(1) == d, "weights must be like linear");
  STD_TORCH_CHECK(d < std::numeric_limits<int32_t>::max(), "expected less than 2^31 coordinates");
  Tensor solved = torch::stable::empty_like(c);
  torch::stable::copy_(solved, beside(weights, linear));
  Tensor sweeps = torch::stable::new_empty(c, {&rows, 1}, ScalarType::Long);
  for_each_wide_dtype(c, [&](auto number) {
    using S = decltype(number);
    const S* const matrix = g.template const_data_ptr<S>();
    std::vector<S> diagonal(d), curvature(d), inverse(d);
    for (int64_t j = 0; j < d; ++j) {
      diagonal[j] = matrix[j * d + j];
      curvature[j] = diagonal[j] + static_cast<S>(l2);
      inverse[j] = 1 / curvature[j];
      STD_TORCH_CHECK(
          !(diagonal[j] < 0), "the diagonal of the Gram matrix must not be negative, got ", diagonal[j]);
    }
    const DescentPass<S> pass{
        c.template const_data_ptr<S>(), matrix, diagonal.data(), curvature.data(), inverse.data(),
        solved.template mutable_data_ptr<S>(), sweeps.template mutable_data_ptr<int64_t>(), d,
        static_cast<S>(l1), static_cast<S>(l2), static_cast<S>(tolerance), max_sweeps};
    std::atomic<int64_t> next{0};  // rows take unequal times
    const int64_t workers = std::min<int64_t>(rows, torch::stable::get_num_threads());
    torch::stable::parallel_for(0, workers, 1, [&](int64_t, int64_t) {
      PYI_ON_BEST_ISA(descend(pass, next, rows))
    });
  });
  return {solved, sweeps};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyinterp, CPU, m) {
  m.impl("gram_descent", TORCH_BOX(&gram_descent));
}

}  // namespace pyinterp::cpu
