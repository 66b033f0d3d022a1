// The CUDA kernel of elastic_prox.
//
// Only the language of kernels stands here, so tests/cpp runs this body on the host too.
#pragma once

#include <cmath>

#include "../elastic_pass.h"
#include "../host_device.h"

namespace pyinterp::cuda {

#include "../elastic.h"

constexpr int kProxThreads = 256;

template <class S>
__global__ void prox_kernel(const ProxPass<S> p) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < p.count; i += step) {
    S extrapolated;
    p.weights[i] = prox_step(p.point[i], p.gradient[i], p.previous[i], p.numbers, extrapolated);
    p.extrapolated[i] = extrapolated;
  }
}

}  // namespace pyinterp::cuda
