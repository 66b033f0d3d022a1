// The CUDA body of and_or_solve: a block of threads is the team that solves a game.
//
// Only the language of kernels stands here, so tests/cpp runs this on the host too.
#pragma once

#include <cmath>

#include "../and_or_pass.h"
#include "../host_device.h"
#include "shared.cuh"

namespace pyinterp::cuda {

#include "../and_or.h"

constexpr int kTeamThreads = 512;
constexpr int kTeamWarps = kTeamThreads / 32;

struct BlockTeam {
  static constexpr int kLanes = 1;

  double* scratch;  // 2 * kTeamWarps numbers of shared memory; the block has at most kTeamThreads threads

  template <class F>
  __device__ void each(int64_t count, const F& f) const {
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
      f(i);
    }
    __syncthreads();
  }

  template <class F>
  __device__ void rows(int64_t count, int shift, const F& f) const {
    const int64_t mask = (int64_t{1} << shift) - 1;
    each(count << shift, [&](int64_t i) { f(i >> shift, i & mask); });
  }

  template <int k, class F>
  __device__ void total(int64_t count, const F& f, double* out) const {
    double part[k] = {};
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
      f(i, part);
    }
    for (int j = 0; j < k; ++j) {
      for (int offset = 16; offset > 0; offset /= 2) {
        part[j] += __shfl_down_sync(0xffffffffu, part[j], offset);
      }
      if (threadIdx.x % 32 == 0) {
        scratch[j * kTeamWarps + threadIdx.x / 32] = part[j];
      }
    }
    __syncthreads();
    for (int j = 0; j < k; ++j) {
      out[j] = 0;
      for (int warp = 0; warp < static_cast<int>(blockDim.x / 32); ++warp) {
        out[j] += scratch[j * kTeamWarps + warp];
      }
    }
    __syncthreads();
  }

  template <class F>
  __device__ double largest(int64_t count, const F& f) const {
    double most = 0;
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
      most = fmax(most, f(i));
    }
    for (int offset = 16; offset > 0; offset /= 2) {
      most = fmax(most, __shfl_down_sync(0xffffffffu, most, offset));
    }
    if (threadIdx.x % 32 == 0) {
      scratch[threadIdx.x / 32] = most;
    }
    __syncthreads();
    for (int warp = 0; warp < static_cast<int>(blockDim.x / 32); ++warp) {
      most = fmax(most, scratch[warp]);
    }
    __syncthreads();
    return most;
  }

  __device__ void sum_subsets(double* x, int n) const { sum<false>(x, n); }
  __device__ void sum_supersets(double* x, int n) const { sum<true>(x, n); }

  // Two players at a time, so that threads wait for each other half as often.
  template <bool superset>
  __device__ void sum(double* x, int n) const {
    for (int player = 0; player < n; player += 2) {
      const int64_t half = int64_t{1} << player;
      if (player + 1 < n) {
        each((int64_t{1} << n) / 4, [=](int64_t i) {
          double* at = x + ((i & ~(half - 1)) << 2) + (i & (half - 1));
          double &none = at[0], &first = at[half], &second = at[2 * half], &both = at[3 * half];
          if (superset) {
            first += both;
            none += second + first;
            second += both;
          } else {
            second += none;
            both += first + second;
            first += none;
          }
        });
      } else {
        each((int64_t{1} << n) / 2, [=](int64_t i) {
          double* at = x + ((i & ~(half - 1)) << 1) + (i & (half - 1));
          superset ? at[0] += at[half] : at[half] += at[0];
        });
      }
    }
  }
};

// `space` holds kAndOrArrays arrays per block. With `fast_in_shared` the transforms work in shared memory; where 2^n
// numbers are too many for it, in `space`.
static __global__ void __launch_bounds__(kTeamThreads)
    and_or_kernel(const AndOrPass pass, int64_t games, double* space, bool fast_in_shared) {
  PYI_DYNAMIC_SHARED(double, shared);
  PYI_SHARED(double, scratch, [2 * kTeamWarps]);
  const int64_t size = int64_t{1} << pass.n;
  double* own = space + blockIdx.x * (kAndOrArrays * size);
  double* fast = fast_in_shared ? shared : own + (kAndOrArrays - kFastArrays) * size;
  const BlockTeam team{scratch};
  for (int64_t game = blockIdx.x; game < games; game += gridDim.x) {
    AndOrSolver<BlockTeam>(team, pass, game, own, fast).solve(pass, game);
  }
}

}  // namespace pyinterp::cuda
