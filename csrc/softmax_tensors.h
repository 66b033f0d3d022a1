// From torch tensors to the rows of softmax_residual_: the checks and allocations that the CPU and the CUDA op share.
#pragma once

#include "tensors.h"

namespace pyinterp {

struct LogitRows {
  Tensor logits, labels, losses;
  std::optional<Tensor> weights;
  int64_t rows, classes;

  LogitRows(const Tensor& given, const Tensor& given_labels, const std::optional<Tensor>& given_weights)
      : logits(given), labels(beside(given_labels, given)), rows(0), classes(0) {
    STD_TORCH_CHECK(logits.dim() == 2 && logits.is_contiguous(), "logits must be contiguous, (N, K)");
    rows = logits.size(0);
    classes = logits.size(1);
    losses = torch::stable::new_empty(logits, {&rows, 1});
    STD_TORCH_CHECK(
        labels.scalar_type() == ScalarType::Long && labels.dim() == 1 && labels.numel() == rows,
        "labels must be int64 of shape (N,), N = ", rows);
    if (given_weights) {
      weights = beside(*given_weights, logits);
      STD_TORCH_CHECK(
          weights->scalar_type() == logits.scalar_type() && weights->dim() == 1 && weights->numel() == rows,
          "weights must be in the dtype of the logits, of shape (N,), N = ", rows);
    }
  }

 private:
  static Tensor beside(const Tensor& t, const Tensor& logits) {
    STD_TORCH_CHECK(
        t.is_cuda() == logits.is_cuda() && t.get_device_index() == logits.get_device_index(),
        "logits, labels and weights must be on one device");
    return t.is_contiguous() ? t : torch::stable::contiguous(t);
  }
};

}  // namespace pyinterp
