// softmax_residual_ on the CPU: the rows among the threads; a row stays in cache from its maximum to its last number.
#include "../softmax_tensors.h"
#include "for_each_isa.h"

namespace pyinterp::cpu {
namespace {

// Below this many numbers a second thread costs more than it saves.
constexpr int64_t kGrainNumbers = 8192;
// Rows go through the loops in bundles: whole ones for all parts but the last.
constexpr int64_t kBundle = 16;

Tensor softmax_residual_(const Tensor& logits, const Tensor& labels, const std::optional<Tensor>& weights) {
  LogitRows call(logits, labels, weights);
  const int64_t rows = call.rows, k = call.classes;
  const int64_t* const label = call.labels.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < rows; ++i) {
    STD_TORCH_CHECK(label[i] >= 0 && label[i] < k, "labels must be 0 to ", k - 1, ", got ", label[i]);
  }
  for_each_wide_dtype(call.logits, [&](auto number) {
    using S = decltype(number);
    S* const x = call.logits.template mutable_data_ptr<S>();
    S* const losses = call.losses.template mutable_data_ptr<S>();
    const S* const weight = call.weights ? call.weights->template const_data_ptr<S>() : nullptr;
    const int64_t grain = ceil_div(kGrainNumbers, kBundle * std::max<int64_t>(k, 1));
    torch::stable::parallel_for(0, ceil_div(rows, kBundle), grain, [&](int64_t begin, int64_t end) {
      PYI_ON_BEST_ISA(
          softmax_rows(x, k, label, weight, losses, begin * kBundle, std::min(end * kBundle, rows)))
    });
  });
  return call.losses;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyinterp, CPU, m) {
  m.impl("softmax_residual_", TORCH_BOX(&softmax_residual_));
}

}  // namespace pyinterp::cpu
