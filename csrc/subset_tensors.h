// From torch tensors to rows of 2^n numbers: what the CPU and the CUDA op share.
#pragma once

#include "tensors.h"

namespace pyinterp {

struct SubsetRows {
  Tensor x, y;
  int64_t rows;
  int n = 0;

  explicit SubsetRows(const Tensor& values)
      : x(values.is_contiguous() ? values : torch::stable::contiguous(values)), y(torch::stable::empty_like(x)) {
    const int64_t length = x.dim() == 0 ? 0 : x.size(x.dim() - 1);
    STD_TORCH_CHECK(
        length > 0 && (length & (length - 1)) == 0, "expected values of shape (..., 2^n), got a last size of ", length);
    rows = x.numel() / length;
    while (int64_t{1} << n < length) {
      ++n;
    }
  }
};

}  // namespace pyinterp
