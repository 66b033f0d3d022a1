// From torch tensors to a Frame: the checks, copies and the allocation that the CPU and the CUDA op share.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "mask.h"

namespace pyinterp {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

struct MaskedBatch {
  Tensor x, baseline, players, codes, out;
  Frame frame;

  MaskedBatch(const Tensor& x_, const Tensor& baseline_, const Tensor& players_, const Tensor& codes_, bool last)
      : x(ready(x_, x_)), baseline(ready(baseline_, x_)), players(ready(players_, x_)), codes(ready(codes_, x_)) {
    STD_TORCH_CHECK(baseline.scalar_type() == x.scalar_type(), "x and baseline must have one dtype");
    STD_TORCH_CHECK(same_tail(x, baseline, x.dim()) && baseline.dim() == x.dim(), "baseline must be like x");
    STD_TORCH_CHECK(
        players.scalar_type() == ScalarType::Long && players.dim() <= x.dim() && same_tail(x, players, players.dim()),
        "players must be int64 and have the shape of the last axes of x");
    STD_TORCH_CHECK(
        codes.scalar_type() == ScalarType::Long && codes.dim() == 1, "codes must be int64 of shape (B,)");
    STD_TORCH_CHECK(
        !last || (x.dim() == 3 && players.dim() == 2), "channels-last needs x (C, H, W) and players (H, W)");
    frame = Frame{codes.size(0), 1, players.numel(), last};
    std::vector<int64_t> sizes{frame.batch};
    for (int64_t axis = 0; axis < x.dim(); ++axis) {
      sizes.push_back(x.size(axis));
      frame.channels *= axis < x.dim() - players.dim() ? x.size(axis) : 1;
    }
    out = torch::stable::empty(
        sizes, x.scalar_type(), std::nullopt, x.device(), std::nullopt,
        last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  }

 private:
  static Tensor ready(const Tensor& t, const Tensor& x) {
    STD_TORCH_CHECK(
        t.get_device_index() == x.get_device_index() && t.is_cuda() == x.is_cuda(),
        "x, baseline, players and codes must be on one device");
    return t.is_contiguous() ? t : torch::stable::contiguous(t);
  }

  // Whether the last `count` axes of both are of the same sizes.
  static bool same_tail(const Tensor& a, const Tensor& b, int64_t count) {
    for (int64_t i = 1; i <= count; ++i) {
      if (b.dim() < i || a.size(a.dim() - i) != b.size(b.dim() - i)) {
        return false;
      }
    }
    return true;
  }
};

// Calls f with a number as wide as one element: masking copies bytes and computes nothing.
template <class F>
void for_each_width(const Tensor& x, const F& f) {
  switch (x.element_size()) {
    case 1:
      return f(uint8_t{});
    case 2:
      return f(uint16_t{});
    case 4:
      return f(uint32_t{});
    case 8:
      return f(uint64_t{});
    default:
      STD_TORCH_CHECK(false, "expected elements of 1, 2, 4 or 8 bytes");
  }
}

}  // namespace pyinterp
