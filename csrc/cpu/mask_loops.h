// The CPU loops of mask_inputs: long runs of one player are copied, short ones blended number by number.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "../mask.h"
#include "for_each_isa.h"

namespace pyinterp::cpu {

// A plane is a part of the sample that the map of players covers once: one channel, or all where channels are last.
struct Run {
  int64_t first, last;  // in elements of the plane
  int slot;
};

// Below this many bytes in a run, on average, blending is faster than copying.
constexpr int64_t kRunBytes = 48;

// The map as the loops need it, made once per call.
struct Plan {
  int64_t planes, length;       // of a sample: planes * length elements
  int64_t tile;                 // elements of a plane that one turn handles
  std::vector<Run> runs;        // cut at the edges of tiles
  std::vector<int64_t> starts;  // tile -> its first run, and the number of runs at the end
  std::vector<uint8_t> slots;   // (length,) where runs are so short that they are blended, else empty
  int64_t tiles() const {
    return static_cast<int64_t>(starts.size()) - 1;
  }
  int64_t first(int64_t t) const {
    return t * tile;
  }
  int64_t count(int64_t t) const {
    return std::min(tile, length - first(t));
  }
};

#ifdef PYI_WIDE
constexpr bool kStreams = true;
#else
constexpr bool kStreams = false;
#endif

// Copies past the caches: a line that is overwritten whole is not read from memory first.
inline void stream(void* to, const void* from, int64_t bytes) {
  char* out = static_cast<char*>(to);
  const char* in = static_cast<const char*>(from);
#ifdef PYI_WIDE
  constexpr int64_t kLine = 64, kWord = sizeof(__m128i);
  const int64_t head = std::min<int64_t>(bytes, -reinterpret_cast<uintptr_t>(out) % kLine);
  std::memcpy(out, in, head);
  for (out += head, in += head, bytes -= head; bytes >= kLine; out += kLine, in += kLine, bytes -= kLine) {
    for (int64_t i = 0; i < kLine; i += kWord) {
      const __m128i word = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i));
      _mm_stream_si128(reinterpret_cast<__m128i*>(out + i), word);
    }
  }
#endif
  std::memcpy(out, in, bytes);
}

inline Plan plan_of(const Frame& frame, const int64_t* players, int64_t tile_bytes, int64_t element_bytes) {
  const int64_t repeat = frame.channels_last ? frame.channels : 1;
  const int64_t tile = std::max<int64_t>(tile_bytes / (element_bytes * repeat), 1);  // in positions
  Plan plan{frame.channels_last ? 1 : frame.channels, frame.positions * repeat, tile * repeat, {}, {}, {}};
  for (int64_t begin = 0; begin < frame.positions; begin += tile) {
    plan.starts.push_back(plan.runs.size());
    const int64_t end = std::min(begin + tile, frame.positions);
    for (int64_t i = begin; i < end;) {
      const int64_t first = i;
      while (i < end && players[i] == players[first]) {
        ++i;
      }
      plan.runs.push_back({first * repeat, i * repeat, slot_of(players[first])});
    }
  }
  plan.starts.push_back(plan.runs.size());
  if (plan.length * element_bytes < kRunBytes * static_cast<int64_t>(plan.runs.size())) {
    plan.slots.resize(plan.length);
    for (const Run& run : plan.runs) {
      std::fill(plan.slots.begin() + run.first, plan.slots.begin() + run.last, static_cast<uint8_t>(run.slot));
    }
  }
  return plan;
}

// x and baseline are in the memory order of a sample of out.
template <class T>
struct Masking {
  const T* x;
  const T* baseline;
  const int64_t* codes;
  T* out;
  const Plan& plan;
  bool past_caches = false;
};

// What one thread needs for its turns. Where `stage` is not empty, a part of a plane is made there and then streamed out.
template <class T>
struct Space {
  std::vector<T> shown, stage;

  explicit Space(const Masking<T>& m)
      : shown(m.plan.slots.empty() ? 0 : m.plan.tile), stage(kStreams && m.past_caches ? m.plan.tile : 0) {}

  T* begin(T* out) {
    return stage.empty() ? out : stage.data();
  }
  void end(T* out, const T* made, int64_t count) const {
    if (!stage.empty()) {
      stream(out, made, count * sizeof(T));
    }
  }
};

template <class T>
void copy_runs(const Masking<T>& m, int64_t tile, uint64_t bits, T* out, Space<T>& space) {
  const Run* const end = m.plan.runs.data() + m.plan.starts[tile + 1];
  const int64_t start = m.plan.first(tile);
  for (int64_t plane = 0; plane < m.plan.planes; ++plane) {
    const int64_t at = plane * m.plan.length;
    T* const to = space.begin(out + at + start);
    for (const Run* run = m.plan.runs.data() + m.plan.starts[tile]; run < end;) {
      const int64_t first = run->first;
      const bool shown = shows(bits, run->slot);
      while (run + 1 < end && shows(bits, run[1].slot) == shown) {
        ++run;
      }
      const T* const from = shown ? m.x : m.baseline;
      std::memcpy(to + first - start, from + at + first, (run->last - first) * sizeof(T));
      ++run;
    }
    space.end(out + at + start, to, m.plan.count(tile));
  }
}

template <class T>
PYI_HD void blend_tile(const Masking<T>& m, int64_t tile, uint64_t bits, T* out, Space<T>& space) {
  const int64_t first = m.plan.first(tile), count = m.plan.count(tile);
  T* const shown = space.shown.data();
  const uint32_t low = static_cast<uint32_t>(bits), high = static_cast<uint32_t>(bits >> 32);
  const uint8_t* const slots = m.plan.slots.data() + first;
  for (int64_t i = 0; i < count; ++i) {  // shows(bits, slots[i]) in halves: AVX2 shifts eight 32-bit words at once
    const uint32_t slot = slots[i], half = (slot & 32) != 0 ? high : low;
    shown[i] = static_cast<T>(-static_cast<int32_t>(half >> (slot & 31) & 1));
  }
  for (int64_t plane = 0; plane < m.plan.planes; ++plane) {
    const int64_t at = plane * m.plan.length + first;
    const T* __restrict const x = m.x + at;
    const T* __restrict const baseline = m.baseline + at;
    T* __restrict const to = space.begin(out + at);
    for (int64_t i = 0; i < count; ++i) {
      to[i] = static_cast<T>((x[i] & shown[i]) | (baseline[i] & static_cast<T>(~shown[i])));
    }
    space.end(out + at, to, count);
  }
}

template <class T>
void blend_baseline(const Masking<T>& m, int64_t tile, uint64_t bits, T* out, Space<T>& space) {
  blend_tile(m, tile, bits, out, space);
}

#ifdef PYI_WIDE
template <class T>
__attribute__((target("avx2"))) void blend_avx2(
    const Masking<T>& m, int64_t tile, uint64_t bits, T* out, Space<T>& space) {
  blend_tile(m, tile, bits, out, space);
}
#endif

// Turns [begin, end) of batch * tiles: the samples of one tile follow each other, so x and baseline stay in the cache.
template <class T>
void mask_turns(const Masking<T>& m, int64_t batch, int64_t begin, int64_t end) {
  const Plan& plan = m.plan;
  const bool blend = !plan.slots.empty();
  Space<T> space(m);
  for (int64_t turn = begin; turn < end; ++turn) {
    const int64_t sample = turn % batch, tile = turn / batch;
    const uint64_t bits = bits_of(m.codes[sample]);
    T* const out = m.out + sample * plan.planes * plan.length;
    if (!blend) {
      copy_runs(m, tile, bits, out, space);
#ifdef PYI_WIDE
    } else if (best_isa() >= Isa::avx2) {
      blend_avx2(m, tile, bits, out, space);
#endif
    } else {
      blend_baseline(m, tile, bits, out, space);
    }
  }
#ifdef PYI_WIDE
  _mm_sfence();
#endif
}

}  // namespace pyinterp::cpu
