// The CUDA kernel of subset_sum: tiles of 2^13 numbers, each read once and written once.
//
// Only the language of kernels stands here, so tests/cpp runs this body on the host too.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "../host_device.h"
#include "../site.h"

namespace pyinterp::cuda {

#include "../subset.h"

constexpr int kHeld = 4;                                // players whose 2^4 numbers one thread holds
constexpr int kNumbers = 1 << kHeld;
constexpr int kWarpPlayers = 5;                         // players whose numbers lie in the lanes of one warp
constexpr int kInWarp = kHeld + kWarpPlayers;           // players that need no other warp
constexpr int kTilePlayers = kInWarp + kHeld;
constexpr int kTile = 1 << kTilePlayers;
constexpr int kSubsetThreads = kTile / kNumbers;        // 16 warps: as many as a thread holds numbers
constexpr int kMostLines = 8;                           // players of a pass over lines: lines of 2^5 numbers in a tile

// One pass over memory sums the players [first, last) of a tile. A tile is 2^(13 - first) lines of 2^first numbers, which
// lie 2^apart numbers from each other: for rows up to 2^13 numbers it is 2^13 numbers on end, maybe several rows.
struct Part {
  int first, last, apart;
};

// The parts of a row of 2^n numbers, the last players first. Returns how many.
inline int parts_of(int n, Part* parts) {
  int count = 0;
  while (n > kTilePlayers) {
    const int passes = static_cast<int>(ceil_div(n - kTilePlayers, kMostLines));
    const int lines = static_cast<int>(ceil_div(n - kTilePlayers, passes));
    parts[count++] = {kTilePlayers - lines, kTilePlayers, n - lines};
    n -= lines;
  }
  parts[count++] = {0, n, 0};
  return count;
}

constexpr int kMaxParts = 4;  // enough for 2^37 numbers

// What one launch reads and writes; `out` may be `in`.
template <class From, class To>
struct SubsetPass {
  const From* in;
  To* out;
  int64_t count;  // numbers in all
  Part part;
  bool superset;
};

template <class From, class To>
PYI_HD int64_t tiles_in(const SubsetPass<From, To>& p) {
  return ceil_div(p.count, kTile);
}

// Where the numbers of a tile lie. Read from behind, a sum over supersets is one over subsets. The place of a number is
// start + offset(some of its bits) + offset(its other bits): a thread keeps one part, the other is the same for all.
template <class From, class To>
struct TileMap {
  int64_t start;
  int first, apart, turned, count;

  PYI_HD TileMap(const SubsetPass<From, To>& p, int64_t tile) : first(p.part.first), apart(p.part.apart) {
    const int units = first > 0 ? apart - first : 0;  // tiles side by side, 2^units
    start = ((tile >> units) << (units + kTilePlayers)) + ((tile & ((int64_t{1} << units) - 1)) << first);
    turned = p.superset ? (1 << p.part.last) - (1 << first) : 0;
    const int64_t left = p.count - tile * kTile;
    count = left < kTile ? static_cast<int>(left) : kTile;
  }

  PYI_HD int64_t offset(int number, int bits) const {
    number ^= turned & bits;
    return (static_cast<int64_t>(number >> first) << apart) + (number & ((1 << first) - 1));
  }
};

// The players at bits [base, base + 4) of the numbers that a thread holds, as far as the part has them.
template <class D, class S>
PYI_HD void sum_held(S* v, int base, const Part& part) {
  PYI_UNROLL
  for (int bit = kHeld - 1; bit >= 0; --bit) {
    if (base + bit < part.first || base + bit >= part.last) {
      continue;
    }
    PYI_UNROLL
    for (int i = 0; i < kNumbers; ++i) {
      if ((i >> bit & 1) == 0) {
        D::step(v[i], v[i + (1 << bit)]);
      }
    }
  }
}

// Thread t holds the numbers k 2^9 + t, for the last four players of the tile; then, in warp w, the numbers
// w 2^9 + k 2^5 + lane, for the others. Numbers change threads in shared memory, half of the doubles at a time. One
// block per tile: a loop over tiles would keep 32 addresses in registers.
template <bool inverse, class From, class To, class S>
__global__ void __launch_bounds__(kSubsetThreads, 8 / sizeof(S)) subset_kernel(const SubsetPass<From, To> p) {
  using D = Direction<inverse, false>;
  constexpr int kRounds = sizeof(S) / 4, kAtOnce = kNumbers / kRounds;
  constexpr int kOfThread = kSubsetThreads - 1, kOfHeld = (kNumbers - 1) << kWarpPlayers;
  __shared__ S exchange[kTile / kRounds];
  const int t = threadIdx.x, warp = t >> kWarpPlayers, lane = t & ((1 << kWarpPlayers) - 1);
  const int in_warp = (warp << kInWarp) + lane;
  const bool crosses = p.part.last > kInWarp;
  const TileMap<From, To> map(p, blockIdx.x);
  const int mine = crosses ? t : in_warp, others = crosses ? kTile - 1 - kOfThread : kOfHeld;
  const int step = crosses ? kSubsetThreads : 1 << kWarpPlayers;
  const From* in = p.in + map.start + map.offset(mine, ~others);
  S v[kNumbers];
  PYI_UNROLL
  for (int k = 0; k < kNumbers; ++k) {
    v[k] = mine + k * step < map.count ? static_cast<S>(in[map.offset(k * step, others)]) : S{0};
  }
  if (crosses) {
    sum_held<D>(v, kInWarp, p.part);
    S held[kNumbers];
    PYI_UNROLL
    for (int round = 0; round < kRounds; ++round) {
      __syncthreads();
      PYI_UNROLL
      for (int k = 0; k < kAtOnce; ++k) {
        exchange[k * kSubsetThreads + t] = v[round * kAtOnce + k];
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
  sum_held<D>(v, kWarpPlayers, p.part);
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
