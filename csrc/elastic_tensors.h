// From torch tensors to a pass of elastic_prox: the checks and allocations that the CPU and the CUDA op share.
#pragma once

#include "elastic_pass.h"
#include "tensors.h"

namespace pyinterp {

struct ProxTensors {
  Tensor point, gradient, previous, weights, extrapolated;

  ProxTensors(const Tensor& point_, const Tensor& gradient_, const Tensor& previous_)
      : point(like(point_, point_)),
        gradient(like(gradient_, point_)),
        previous(like(previous_, point_)),
        weights(torch::stable::empty_like(point)),
        extrapolated(torch::stable::empty_like(point)) {}

  template <class S>
  ProxPass<S> pass(const ProxNumbers<S>& numbers) {
    return {
        point.const_data_ptr<S>(), gradient.const_data_ptr<S>(), previous.const_data_ptr<S>(),
        weights.mutable_data_ptr<S>(), extrapolated.mutable_data_ptr<S>(), point.numel(), numbers};
  }

 private:
  static Tensor like(const Tensor& t, const Tensor& point) {
    STD_TORCH_CHECK(
        t.scalar_type() == point.scalar_type() && t.is_cuda() == point.is_cuda() &&
            t.get_device_index() == point.get_device_index(),
        "point, gradient and previous must have one dtype and be on one device");
    STD_TORCH_CHECK(t.numel() == point.numel(), "point, gradient and previous must have one shape");
    return t.is_contiguous() ? t : torch::stable::contiguous(t);
  }
};

}  // namespace pyinterp
