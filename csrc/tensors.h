// From torch tensors to a Site: the checks, copies and allocations that the CPU and the CUDA op share.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>

#include "site.h"

namespace pyinterp {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Strides of size-1 axes mean nothing, as in torch.
inline bool is_channels_last(const Tensor& x) {
  if (x.dim() != 4) {
    return false;
  }
  const auto sizes = x.sizes();
  const auto strides = x.strides();
  int64_t expected = 1;
  for (const int axis : {1, 3, 2, 0}) {
    if (sizes[axis] != 1 && strides[axis] != expected) {
      return false;
    }
    expected *= sizes[axis];
  }
  return true;
}

// The gated tensor in a layout the kernels know, and where its gated axis lies in memory.
struct Gated {
  Tensor x;
  MemoryFormat format;
  Site site;

  Gated(const Tensor& given, int64_t dim, bool grouped) : x(given), format(MemoryFormat::Contiguous) {
    if (!x.is_contiguous()) {
      if (is_channels_last(x)) {
        format = MemoryFormat::ChannelsLast;
      } else {
        x = torch::stable::contiguous(x);
      }
    }
    const int64_t ndim = x.dim();
    STD_TORCH_CHECK(dim >= 0 && dim < ndim, "expected 0 <= dim < ", ndim, ", got ", dim);
    STD_TORCH_CHECK(!grouped || dim > 0, "expected dim > 0 with group, got 0");
    const auto sizes = x.sizes();
    constexpr int64_t kLast[4] = {0, 2, 3, 1};
    site = Site{1, 1, 1, 1};
    bool passed = false;
    for (int64_t i = 0; i < ndim; ++i) {
      const int64_t axis = format == MemoryFormat::ChannelsLast ? kLast[i] : i;
      if (axis == dim) {
        site.channels = sizes[axis];
        passed = true;
      } else if (passed) {
        site.inner *= sizes[axis];
      } else if (axis == 0 && grouped) {
        site.segments = sizes[axis];
      } else {
        site.middle *= sizes[axis];
      }
    }
  }

  Tensor like_x(const Tensor& other) const {
    STD_TORCH_CHECK(other.numel() == x.numel(), "expected a gradient of the shape of x");
    const bool ready = format == MemoryFormat::Contiguous ? other.is_contiguous() : is_channels_last(other);
    return ready ? other : torch::stable::contiguous(other, format);
  }
};

// Checks one table of numbers per channel and hands it back contiguous.
inline Tensor table(const Tensor& t, const Tensor& x, const char* name) {
  const auto wanted = x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(t.scalar_type() == wanted, name, " must be float32, or float64 with float64 x");
  STD_TORCH_CHECK(t.get_device_index() == x.get_device_index(), name, " and x must be on one device");
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

// (C,) or, with a group, (G, C) scores; and the group itself.
struct Scores {
  Tensor scores;
  std::optional<Tensor> group;
  int64_t groups = 1;

  Scores(const Tensor& given, const std::optional<Tensor>& rows, const Gated& gated)
      : scores(table(given, gated.x, "scores")) {
    const int64_t ndim = rows ? 2 : 1;
    STD_TORCH_CHECK(
        scores.dim() == ndim && scores.size(ndim - 1) == gated.site.channels,
        "scores must be (C,), or (G, C) with group, where C = ", gated.site.channels);
    if (rows) {
      STD_TORCH_CHECK(
          rows->scalar_type() == ScalarType::Long && rows->dim() == 1 && rows->size(0) == gated.site.segments,
          "group must be int64 of shape (N,), N = ", gated.site.segments);
      STD_TORCH_CHECK(
          rows->get_device_index() == gated.x.get_device_index(), "group and x must be on one device");
      group = rows->is_contiguous() ? *rows : torch::stable::contiguous(*rows);
      groups = scores.size(0);
    }
  }

  const int64_t* rows() const {
    return group ? group->const_data_ptr<int64_t>() : nullptr;
  }
};

// One scale and one shift per channel.
struct Affine {
  Tensor scale, shift;

  Affine(const Tensor& given_scale, const Tensor& given_shift, const Gated& gated)
      : scale(table(given_scale, gated.x, "scale")), shift(table(given_shift, gated.x, "shift")) {
    STD_TORCH_CHECK(
        scale.numel() == gated.site.channels && shift.numel() == gated.site.channels,
        "scale and shift must be (C,), C = ", gated.site.channels);
  }
};

// Stands for a gradient that nobody needs.
inline Tensor no_gradient(const Tensor& x) {
  const int64_t none = 0;
  return torch::stable::new_empty(x, {&none, 1});
}

template <class F>
void for_each_dtype(const Tensor& x, const F& f) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return f(float{});
    case ScalarType::BFloat16:
      return f(c10::BFloat16{});
    case ScalarType::Half:
      return f(c10::Half{});
    case ScalarType::Double:
      return f(double{});
    default:
      STD_TORCH_CHECK(false, "expected float32, bfloat16, float16 or float64");
  }
}

// For the ops that know no 16-bit numbers.
template <class F>
void for_each_wide_dtype(const Tensor& x, const F& f) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return f(float{});
    case ScalarType::Double:
      return f(double{});
    default:
      STD_TORCH_CHECK(false, "expected float32 or float64");
  }
}

}  // namespace pyinterp
