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

// x and baseline are in the memory order of a sample of out.
struct MaskedBatch {
  Tensor x, baseline, players, codes, out;
  Frame frame;

  MaskedBatch(const Tensor& x_, const Tensor& baseline_, const Tensor& players_, const Tensor& codes_, bool last)
      : x(x_), baseline(baseline_), players(in_order(players_, false)), codes(in_order(codes_, false)) {
    for (const Tensor* t : {&baseline, &players, &codes}) {
      STD_TORCH_CHECK(
          t->get_device_index() == x.get_device_index() && t->is_cuda() == x.is_cuda(),
          "x, baseline, players and codes must be on one device");
    }
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
    x = in_order(x, last);
    baseline = in_order(baseline, last);
  }

 private:
  // Contiguous; with `last`, as (H, W, C), which is free for an image that is stored channels-last.
  static Tensor in_order(const Tensor& t, bool last) {
    const Tensor view = last ? torch::stable::transpose(torch::stable::transpose(t, 0, 1), 1, 2) : t;
    return view.is_contiguous() ? view : torch::stable::contiguous(view);
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
