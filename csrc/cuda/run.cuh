// Everything around the kernels of gate and gated_affine: launches and allocations.
#pragma once

#include "../tensors.h"
#include "device.cuh"
#include "gate_kernel.cuh"

namespace pyinterp::cuda {

template <class T>
Pass<T> pass_over(const Gated& gated, const Scores& rows, std::optional<double> temperature) {
  Pass<T> p;
  p.x = gated.x.template const_data_ptr<T>();
  p.site = gated.site;
  p.scores = rows.scores.template const_data_ptr<Wide<T>>();
  p.group = rows.rows();
  p.groups = rows.groups;
  p.sigmoid = temperature.has_value();
  p.temperature = static_cast<Wide<T>>(temperature.value_or(1));
  return p;
}

template <class Op, class T>
void forward(Pass<T> p, cudaStream_t stream) {
  if (p.site.numel() == 0) {
    return;
  }
  const Launch launch = plan(p);
  const dim3 block(launch.team, launch.lines);
  if (launch.across) {
    across_kernel<Op, false, T><<<launch.grid, block, 0, stream>>>(p);
  } else {
    along_kernel<Op, false, T><<<launch.grid, block, 0, stream>>>(p);
  }
  check(cudaGetLastError(), "forward launch");
}

template <class Op, class T>
void backward(Pass<T> p, Tensor& grad_scores, cudaStream_t stream) {
  if (p.site.numel() == 0) {
    torch::stable::zero_(grad_scores);
    return;
  }
  const Launch launch = plan(p);
  const int64_t sums = p.site.segments * p.tiles.blocks * p.site.channels;
  Tensor partial = torch::stable::new_empty(grad_scores, {&sums, 1});
  p.partial = partial.mutable_data_ptr<Wide<T>>();
  p.grad_scores = grad_scores.mutable_data_ptr<Wide<T>>();
  const dim3 block(launch.team, launch.lines);
  if (launch.across) {
    across_kernel<Op, true, T><<<launch.grid, block, 0, stream>>>(p);
  } else {
    along_kernel<Op, true, T><<<launch.grid, block, 0, stream>>>(p);
  }
  check(cudaGetLastError(), "backward launch");
  const int64_t grid = std::min<int64_t>(65535, p.groups * ceil_div(p.site.channels, kWarp));
  if (grid > 0) {
    finish_kernel<T><<<grid, dim3(kWarp, kWarps), 0, stream>>>(p);
    check(cudaGetLastError(), "finish launch");
  }
}

}  // namespace pyinterp::cuda
