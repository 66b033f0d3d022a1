// The CUDA kernel of mask_inputs. A thread owns one pack of the sample: it reads its players, x and baseline once and
// then only writes, sample after sample.
//
// Only the language of kernels stands here, so tests/cpp runs these bodies on the host too.
#pragma once

#include <algorithm>
#include <cassert>

#include "../mask.h"

namespace pyinterp::cuda {

constexpr int kMaskThreads = 256;

template <class T, int count>
struct alignas(sizeof(T) * count) MaskPack {
  T item[count];
};

// What one launch reads and writes, all in the memory order of the frame.
template <class T>
struct Masking {
  const T* x = nullptr;
  const T* baseline = nullptr;
  const int64_t* players = nullptr;
  const int64_t* codes = nullptr;
  T* out = nullptr;
  Frame frame{};
  int64_t share = 1;    // samples that one thread writes
  bool packed = false;  // 16 bytes per store, else one element
};

template <class T, int count>
__global__ void mask_kernel(const Masking<T> m) {
  using P = MaskPack<T, count>;
  const Frame& f = m.frame;
  const int64_t packs = f.sample() / count;
  const int64_t units = packs * ((f.batch + m.share - 1) / m.share);
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t unit = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; unit < units; unit += step) {
    const int64_t pack = unit % packs;
    P x, baseline;
    int slot[count];
    bool alike = true;
    for (int k = 0; k < count; ++k) {
      const int64_t at = pack * count + k;
      const int64_t position = f.channels_last ? at / f.channels : at % f.positions;
      x.item[k] = m.x[at];
      baseline.item[k] = m.baseline[at];
      assert(is_player(m.players[position]) && "players must be -2 (masked), -1 (kept) or 0 to 61");
      slot[k] = slot_of(m.players[position]);
      alike = alike && slot[k] == slot[0];
    }
    const int64_t first = unit / packs * m.share;
    const int64_t last = first + m.share < f.batch ? first + m.share : f.batch;
    for (int64_t sample = first; sample < last; ++sample) {
      const uint64_t bits = bits_of(m.codes[sample]);
      P out = shows(bits, slot[0]) ? x : baseline;
      if (!alike) {
        for (int k = 1; k < count; ++k) {
          out.item[k] = shows(bits, slot[k]) ? x.item[k] : baseline.item[k];
        }
      }
      *reinterpret_cast<P*>(m.out + sample * f.sample() + pack * count) = out;
    }
  }
}

// Sets share and packed, and gives the number of blocks.
template <class T>
int64_t plan(Masking<T>& m) {
  constexpr int64_t kPack = 16 / sizeof(T), kThreadsWanted = int64_t{1} << 19, kMaxShare = 32, kMaxGrid = 65535;
  m.packed = m.frame.sample() % kPack == 0 && reinterpret_cast<uintptr_t>(m.out) % 16 == 0;
  const int64_t packs = m.frame.sample() / (m.packed ? kPack : 1);
  m.share = std::clamp<int64_t>(m.frame.batch * packs / kThreadsWanted, 1, kMaxShare);
  const int64_t units = packs * ((m.frame.batch + m.share - 1) / m.share);
  return std::min(kMaxGrid, (units + kMaskThreads - 1) / kMaskThreads);
}

}  // namespace pyinterp::cuda
