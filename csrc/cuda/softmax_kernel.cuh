// The CUDA kernel of softmax_residual_: a team of warps per row, whose numbers stay in registers from the first pass to
// the last.
//
// Only the language of kernels stands here, so tests/cpp runs these bodies on the host too.
#pragma once

#include <cassert>
#include <cmath>
#include <cstdint>

#include "shared.cuh"

namespace pyinterp::cuda {

template <class S>
struct SoftmaxPass {
  S* logits;
  const int64_t* labels;
  const S* weights;  // null where every weight is 1
  S* losses;
  int64_t rows, classes;
};

// f over the values of all threads of a team of `warps` warps, in an order that depends on nothing; for every thread.
template <int warps, class S, class F>
__device__ S over_team(S value, S* scratch, const F& f) {
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    value = f(value, __shfl_xor_sync(0xffffffffu, value, lanes));
  }
  if constexpr (warps > 1) {
    if (threadIdx.x % 32 == 0) {
      scratch[threadIdx.x / 32] = value;
    }
    __syncthreads();
    value = scratch[0];
    for (int warp = 1; warp < warps; ++warp) {
      value = f(value, scratch[warp]);
    }
    __syncthreads();
  }
  return value;
}

// blockDim is (32 * warps, rows at once), with one row at once for teams of several warps. A thread holds `items`
// numbers of its row; those beyond are read again in every pass.
template <class S, int warps, int items>
__global__ void softmax_kernel(const SoftmaxPass<S> p) {
  PYI_SHARED(S, scratch, [warps]);
  constexpr int64_t kTeam = 32 * warps, kHeld = kTeam * items;
  const auto larger = [](S a, S b) { return b > a ? b : a; };  // a NaN does not count: the sum brings it back
  const int64_t step = int64_t{gridDim.x} * blockDim.y, k = p.classes;
  for (int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y; row < p.rows; row += step) {
    S* const x = p.logits + row * k;
    const int64_t label = p.labels[row];
    assert(label >= 0 && label < k && "labels must be at least 0 and less than the number of classes");
    const S weight = p.weights ? p.weights[row] : S{1};
    S item[items], most = -INFINITY, chosen = 0;
    for (int i = 0; i < items; ++i) {
      const int64_t at = threadIdx.x + i * kTeam;
      item[i] = at < k ? x[at] : static_cast<S>(-INFINITY);
      most = larger(most, item[i]);
      chosen = at == label ? item[i] : chosen;
    }
    for (int64_t at = threadIdx.x + kHeld; at < k; at += kTeam) {
      most = larger(most, x[at]);
      chosen = at == label ? x[at] : chosen;
    }
    most = over_team<warps>(most, scratch, larger);
    S total = 0;
    for (int i = 0; i < items; ++i) {
      item[i] = std::exp(item[i] - most);
      total += item[i];
    }
    for (int64_t at = threadIdx.x + kHeld; at < k; at += kTeam) {
      total += std::exp(x[at] - most);
    }
    total = over_team<warps>(total, scratch, [](S a, S b) { return a + b; });
    const S scale = weight / total;
    for (int i = 0; i < items; ++i) {
      const int64_t at = threadIdx.x + i * kTeam;
      if (at < k) {
        x[at] = item[i] * scale - (at == label ? weight : S{0});
      }
    }
    for (int64_t at = threadIdx.x + kHeld; at < k; at += kTeam) {
      x[at] = std::exp(x[at] - most) * scale - (at == label ? weight : S{0});
    }
    if (label % kTeam == threadIdx.x) {  // the thread that holds the logit of the label
      p.losses[row] = weight * (std::log(total) + (most - chosen));
    }
  }
}

// The shape of a launch.
template <int warps, int items>
struct SoftmaxTeam {
  static constexpr int kWarps = warps, kItems = items;
  static constexpr unsigned kThreads = 32 * warps, kRows = 256 / kThreads;  // of a block
};

// Calls f with the team for rows of so many classes.
template <class F>
void with_team(int64_t classes, const F& f) {
  if (classes <= 32) {
    f(SoftmaxTeam<1, 1>{});
  } else if (classes <= 128) {
    f(SoftmaxTeam<1, 4>{});
  } else if (classes <= 512) {
    f(SoftmaxTeam<1, 16>{});
  } else {
    f(SoftmaxTeam<8, 8>{});
  }
}

}  // namespace pyinterp::cuda
