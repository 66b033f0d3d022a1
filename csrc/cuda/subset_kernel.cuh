// The CUDA kernel of subset_sum: tiles of 2^13 numbers, each read once and written once per pass.
//
// Only the language of kernels stands here, so tests/cpp runs this body on the host too.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "../host_device.h"
#include "../site.h"
#include "shared.cuh"

namespace pyinterp::cuda {

#include "../subset.h"

constexpr int kWarpPlayers = 5;  // players whose numbers lie in the lanes of one warp

// A tile, where every thread holds 2^held numbers and a block has as many warps. Calls use 4; tests on the host fewer.
template <int held>
struct TileShape {
  static constexpr int kHeld = held;
  static constexpr int kNumbers = 1 << held;
  static constexpr int kInWarp = held + kWarpPlayers;  // players that need no other warp
  static constexpr int kPlayers = kInWarp + held;
  static constexpr int kSize = 1 << kPlayers;
  static constexpr int kThreads = kSize / kNumbers;
  static constexpr int kMostLines = 2 * held;          // players of a pass over lines, which then hold 2^5 numbers
};
using Shape = TileShape<4>;

// One pass over memory sums the players [first, last) of a tile of 2^13 numbers: 2^(13 - first) lines of 2^first numbers,
// 2^apart numbers from each other. With first = 0 they lie on end, and may be several rows.
struct Part {
  int first, last, apart;
};

// The parts of a row of 2^n numbers, the last players first. Returns how many.
template <class Shape>
int parts_of(int n, Part* parts) {
  int count = 0;
  while (n > Shape::kPlayers) {
    const int passes = static_cast<int>(ceil_div(n - Shape::kPlayers, Shape::kMostLines));
    const int lines = static_cast<int>(ceil_div(n - Shape::kPlayers, passes));
    parts[count++] = {Shape::kPlayers - lines, Shape::kPlayers, n - lines};
    n -= lines;
  }
  parts[count++] = {0, n, 0};
  return count;
}

constexpr int kMaxParts = 16;

// What one launch reads and writes; `out` may be `in`.
template <class From, class To>
struct SubsetPass {
  const From* in;
  To* out;
  int64_t count;  // numbers in all
  Part part;
  bool superset;
};

template <class Shape, class From, class To>
PYI_HD int64_t tiles_in(const SubsetPass<From, To>& p) {
  return ceil_div(p.count, Shape::kSize);
}

// Where the numbers of a tile lie. Read from behind, a sum over supersets is one over subsets. The place of a number is
// start + offset(some of its bits) + offset(its other bits): a thread keeps one part, the other is the same for all.
template <class Shape>
struct TileMap {
  int64_t start;
  int first, apart, turned, count;

  template <class From, class To>
  PYI_HD TileMap(const SubsetPass<From, To>& p, int64_t tile) : first(p.part.first), apart(p.part.apart) {
    const int units = first > 0 ? apart - first : 0;  // tiles side by side, 2^units
    start = ((tile >> units) << (units + Shape::kPlayers)) + ((tile & ((int64_t{1} << units) - 1)) << first);
    turned = p.superset ? (1 << p.part.last) - (1 << first) : 0;
    const int64_t left = p.count - tile * Shape::kSize;
    count = left < Shape::kSize ? static_cast<int>(left) : Shape::kSize;
  }

  PYI_HD int64_t offset(int number, int bits) const {
    number ^= turned & bits;
    return (static_cast<int64_t>(number >> first) << apart) + (number & ((1 << first) - 1));
  }
};

// The players at bits base and up of the numbers that a thread holds, as far as the part has them.
template <class D, class Shape, class S>
PYI_HD void sum_held(S* v, int base, const Part& part) {
  PYI_UNROLL
  for (int bit = Shape::kHeld - 1; bit >= 0; --bit) {
    if (base + bit < part.first || base + bit >= part.last) {
      continue;
    }
    PYI_UNROLL
    for (int i = 0; i < Shape::kNumbers; ++i) {
      if ((i >> bit & 1) == 0) {
        D::step(v[i], v[i + (1 << bit)]);
      }
    }
  }
}

// Thread t holds the numbers k 2^9 + t, for the last four players of the tile; then, in warp w, the numbers
// w 2^9 + k 2^5 + lane, for the others. Numbers change threads in shared memory, half of the doubles at a time. One
// block per tile: a loop over tiles would keep 32 addresses in registers.
template <class Shape, bool inverse, class From, class To, class S>
__global__ void __launch_bounds__(Shape::kThreads, 8 / sizeof(S)) subset_kernel(const SubsetPass<From, To> p) {
  using D = Direction<inverse, false>;
  constexpr int kNumbers = Shape::kNumbers, kInWarp = Shape::kInWarp, kThreads = Shape::kThreads;
  constexpr int kRounds = sizeof(S) / 4, kAtOnce = kNumbers / kRounds;
  constexpr int kOfThread = kThreads - 1, kOfHeld = (kNumbers - 1) << kWarpPlayers;
  PYI_SHARED(S, exchange, [Shape::kSize / kRounds]);
  const int t = threadIdx.x, warp = t >> kWarpPlayers, lane = t & ((1 << kWarpPlayers) - 1);
  const int in_warp = (warp << kInWarp) + lane;
  const bool crosses = p.part.last > kInWarp;
  const TileMap<Shape> map(p, blockIdx.x);
  const int mine = crosses ? t : in_warp, others = crosses ? Shape::kSize - 1 - kOfThread : kOfHeld;
  const int step = crosses ? kThreads : 1 << kWarpPlayers;
  const From* in = p.in + map.start + map.offset(mine, ~others);
  S v[kNumbers];
  PYI_UNROLL
  for (int k = 0; k < kNumbers; ++k) {
    v[k] = mine + k * step < map.count ? static_cast<S>(in[map.offset(k * step, others)]) : S{0};
  }
  if (crosses) {
    sum_held<D, Shape>(v, kInWarp, p.part);
    S held[kNumbers];
    PYI_UNROLL
    for (int round = 0; round < kRounds; ++round) {
      __syncthreads();
      PYI_UNROLL
      for (int k = 0; k < kAtOnce; ++k) {
        exchange[k * kThreads + t] = v[round * kAtOnce + k];
      }
      __syncthreads();
      if (warp / kAtOnce == round) {
        PYI_UNROLL
        for (int k = 0; k < kNumbers; ++k) {
          held[k] = exchange[((warp % kAtOnce) << kInWarp) + (k << kWarpPlayers) + lane];
        }
      }
    }
    PYI_UNROLL
    for (int k = 0; k < kNumbers; ++k) {
      v[k] = held[k];
    }
  }
  sum_held<D, Shape>(v, kWarpPlayers, p.part);
  PYI_UNROLL
  for (int bit = kWarpPlayers - 1; bit >= 0; --bit) {
    if (bit < p.part.first || bit >= p.part.last) {
      continue;
    }
    PYI_UNROLL
    for (int k = 0; k < kNumbers; ++k) {
      S other = __shfl_xor_sync(0xffffffffu, v[k], 1 << bit);
      if (lane >> bit & 1) {
        D::step(other, v[k]);
      }
    }
  }
  To* out = p.out + map.start + map.offset(in_warp, ~kOfHeld);
  PYI_UNROLL
  for (int k = 0; k < kNumbers; ++k) {
    if (in_warp + (k << kWarpPlayers) < map.count) {
      out[map.offset(k << kWarpPlayers, kOfHeld)] = static_cast<To>(v[k]);
    }
  }
}

}  // namespace pyinterp::cuda
