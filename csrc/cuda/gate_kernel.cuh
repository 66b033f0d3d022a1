// The CUDA kernels of gate and gated_affine, for any Op of gate.h.
//
// Only the language of kernels stands here, so tests/cpp runs these bodies on the host too.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cassert>
#include <cmath>

#include "../host_device.h"
#include "../site.h"
#include "shared.cuh"

namespace pyinterp::cuda {

template <class V>
PYI_HD V number(double value) {
  return static_cast<V>(value);
}

PYI_HD float exp_of(float x) {
  return expf(x);
}

PYI_HD double exp_of(double x) {
  return exp(x);
}

PYI_HD float normal_cdf(float z, float& pdf) {
  pdf = 0.3989422804f * expf(-0.5f * z * z);
  return 0.5f * erfcf(-0.70710678f * z);
}

PYI_HD double normal_cdf(double z, double& pdf) {
  pdf = 0.3989422804014327 * exp(-0.5 * z * z);
  return 0.5 * erfc(-0.7071067811865476 * z);
}

#include "../gate.h"

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;

// What one launch reads and writes.
template <class T>
struct Pass {
  const T* x = nullptr;
  const T* dy = nullptr;               // backward only
  T* out = nullptr;                    // y, or dx (null where nobody needs it)
  const Wide<T>* scores = nullptr;     // (groups, channels)
  const Wide<T>* scale = nullptr;      // (channels,), gated_affine only
  const Wide<T>* shift = nullptr;
  const int64_t* group = nullptr;      // the row of scores for each segment, or null
  Wide<T>* partial = nullptr;          // backward only: (segments, blocks, channels)
  Wide<T>* grad_scores = nullptr;      // finish only: (groups, channels)
  int64_t groups = 1;
  Site site{};
  Tiles tiles{};
  int64_t chunk = 1;                   // along only: numbers of a row that one team of threads sums
  bool packed = false;                 // along only: rows start at 16-byte boundaries
  bool sigmoid = false;
  Wide<T> temperature = 1;
};

template <class T>
struct alignas(16) Pack {
  static constexpr int kCount = 16 / sizeof(T);
  T item[kCount];
};

template <class T>
PYI_HD Wide<T> gate_of(const Pass<T>& p, int64_t row, int64_t channel) {
  const Wide<T> score = p.scores[row * p.site.channels + channel];
  if (!p.sigmoid) {
    return score;
  }
  Wide<T> slope;
  return sigmoid(score / p.temperature, slope);
}

template <class T>
PYI_HD int64_t score_row(const Pass<T>& p, int64_t segment) {
  if (p.group == nullptr) {
    return 0;
  }
  const int64_t row = p.group[segment];
  assert(row >= 0 && row < p.groups && "group must hold rows of scores");
  return row;
}

template <class Op, class T>
PYI_HD void load_tables(const Pass<T>& p, int64_t segment, int64_t channel, Wide<T>* c) {
  c[0] = gate_of(p, score_row(p, segment), channel);
  if constexpr (Op::kTables == 3) {
    c[1] = p.scale[channel];
    c[2] = p.shift[channel];
  }
}

// One number: writes y or dx, returns what it adds to the gradient of its gate.
template <class Op, bool kBackward, class T>
PYI_HD Wide<T> step(const T& x, const T& dy, T& out, const Wide<T>* c) {
  if constexpr (kBackward) {
    Wide<T> term;
    out = static_cast<T>(Op::backward(static_cast<Wide<T>>(dy), static_cast<Wide<T>>(x), c, term));
    return term;
  } else {
    out = static_cast<T>(Op::forward(static_cast<Wide<T>>(x), c));
    return 0;
  }
}

// Rows of one channel. A team is a line of the block (blockDim.x threads: one warp, or all of them) and takes one chunk
// of one row at a time.
template <class Op, bool kBackward, class T>
__global__ void along_kernel(const Pass<T> p) {
  PYI_SHARED(Wide<T>, warp_sum, [kWarps]);
  const int64_t chunks = ceil_div(p.site.inner, p.chunk);
  const int64_t units = p.site.segments * p.site.middle * p.site.channels * chunks;
  for (int64_t unit = int64_t{blockIdx.x} * blockDim.y + threadIdx.y; unit < units;
       unit += int64_t{gridDim.x} * blockDim.y) {
    const int64_t row = unit / chunks, first = unit % chunks * p.chunk;
    const int64_t channel = row % p.site.channels, line = row / p.site.channels;
    Wide<T> c[3];
    load_tables<Op>(p, line / p.site.middle, channel, c);
    const int64_t at = row * p.site.inner + first;
    const int64_t count = p.site.inner - first < p.chunk ? p.site.inner - first : p.chunk;
    Wide<T> total = 0;
    if (p.packed) {
      using P = Pack<T>;
      const P none{};
      for (int64_t i = threadIdx.x * P::kCount; i < count; i += blockDim.x * P::kCount) {
        const P x = *reinterpret_cast<const P*>(p.x + at + i);
        const P dy = kBackward ? *reinterpret_cast<const P*>(p.dy + at + i) : none;
        P out;
        for (int k = 0; k < P::kCount; ++k) {
          total += step<Op, kBackward>(x.item[k], dy.item[k], out.item[k], c);
        }
        if (p.out != nullptr) {
          *reinterpret_cast<P*>(p.out + at + i) = out;
        }
      }
    } else {
      const T none{};
      for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
        T out;
        total += step<Op, kBackward>(p.x[at + i], kBackward ? p.dy[at + i] : none, out, c);
        if (p.out != nullptr) {
          p.out[at + i] = out;
        }
      }
    }
    if constexpr (kBackward) {
      for (int offset = kWarp / 2; offset > 0; offset /= 2) {
        total += __shfl_down_sync(0xffffffffu, total, offset);
      }
      if (blockDim.x > kWarp) {  // the team is the block, so every thread comes here
        if (threadIdx.x % kWarp == 0) {
          warp_sum[threadIdx.x / kWarp] = total;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
          for (int warp = 1; warp < kWarps; ++warp) {
            total += warp_sum[warp];
          }
        }
        __syncthreads();
      }
      if (threadIdx.x == 0) {
        p.partial[(line * chunks + unit % chunks) * p.site.channels + channel] = total;
      }
    }
  }
}

// Channels side by side (inner == 1): one thread per channel and every kWarps-th row of a tile.
template <class Op, bool kBackward, class T>
__global__ void across_kernel(const Pass<T> p) {
  PYI_SHARED(Wide<T>, line_sum, [kWarps][kWarp]);
  const int64_t tiles = p.site.segments * p.tiles.blocks * p.tiles.strips;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t channel = tile % p.tiles.strips * kWarp + threadIdx.x;
    const int64_t part = tile / p.tiles.strips;  // (segment, block)
    const int64_t segment = part / p.tiles.blocks, first = part % p.tiles.blocks * p.tiles.rows;
    const int64_t last = first + p.tiles.rows < p.site.middle ? first + p.tiles.rows : p.site.middle;
    Wide<T> total = 0;
    if (channel < p.site.channels) {
      Wide<T> c[3];
      load_tables<Op>(p, segment, channel, c);
      const T none{};
      for (int64_t row = first + threadIdx.y; row < last; row += kWarps) {
        const int64_t at = (segment * p.site.middle + row) * p.site.channels + channel;
        T out;
        total += step<Op, kBackward>(p.x[at], kBackward ? p.dy[at] : none, out, c);
        if (p.out != nullptr) {
          p.out[at] = out;
        }
      }
    }
    if constexpr (kBackward) {
      line_sum[threadIdx.y][threadIdx.x] = total;
      __syncthreads();
      if (threadIdx.y == 0 && channel < p.site.channels) {
        for (int line = 1; line < kWarps; ++line) {
          total += line_sum[line][threadIdx.x];
        }
        p.partial[part * p.site.channels + channel] = total;
      }
      __syncthreads();
    }
  }
}

// The second stage: sums the partials of each group in an order that depends on the shape alone.
template <class T>
__global__ void finish_kernel(const Pass<T> p) {
  PYI_SHARED(double, line_sum, [kWarps][kWarp]);
  const int64_t strips = ceil_div(p.site.channels, kWarp);
  for (int64_t tile = blockIdx.x; tile < p.groups * strips; tile += gridDim.x) {
    const int64_t channel = tile % strips * kWarp + threadIdx.x, row = tile / strips;
    double total = 0;
    for (int64_t segment = 0; channel < p.site.channels && segment < p.site.segments; ++segment) {
      if (score_row(p, segment) != row) {
        continue;
      }
      for (int64_t block = threadIdx.y; block < p.tiles.blocks; block += kWarps) {
        total += p.partial[(segment * p.tiles.blocks + block) * p.site.channels + channel];
      }
    }
    line_sum[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y == 0 && channel < p.site.channels) {
      for (int line = 1; line < kWarps; ++line) {
        total += line_sum[line][threadIdx.x];
      }
      const int64_t at = row * p.site.channels + channel;
      Wide<T> slope = 1;
      if (p.sigmoid) {
        sigmoid(p.scores[at] / p.temperature, slope);
        slope /= p.temperature;
      }
      p.grad_scores[at] = static_cast<Wide<T>>(total * slope);
    }
    __syncthreads();
  }
}

// The shape of a launch, and how it cuts the data.
struct Launch {
  bool across;
  int team;          // blockDim.x
  int lines;         // blockDim.y
  int64_t grid;
};

template <class T>
inline bool aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % sizeof(Pack<T>) == 0;
}

// Sets tiles, chunk and packed; `blocks` is then the number of partial sums per segment and channel.
template <class T>
inline Launch plan(Pass<T>& p) {
  constexpr int64_t kChunk = 4096, kRows = 64, kMaxGrid = 65535;
  const Site& s = p.site;
  if (s.inner == 1) {
    p.tiles.rows = kRows;
    p.tiles.columns = kWarp;
    p.tiles.blocks = ceil_div(s.middle, kRows);
    p.tiles.strips = ceil_div(s.channels, kWarp);
    return {true, kWarp, kWarps, std::min(kMaxGrid, s.segments * p.tiles.blocks * p.tiles.strips)};
  }
  p.chunk = kChunk;
  p.packed = s.inner % Pack<T>::kCount == 0 && aligned(p.x) && aligned(p.dy) && aligned(p.out);
  p.tiles.blocks = s.middle * ceil_div(s.inner, kChunk);
  const int team = s.inner > 1024 ? kThreads : kWarp;
  const int lines = kThreads / team;
  return {false, team, lines, std::min(kMaxGrid, ceil_div(s.segments * p.tiles.blocks * s.channels, lines))};
}

}  // namespace pyinterp::cuda
