// mask_inputs, CPU loops and the body of the CUDA kernel, against the definition: every element of a batch is x where
// its player is present or always kept, else the baseline.
#include "host_cuda.h"
// After it: the kernel needs its words.
#include "cuda/mask_kernel.cuh"
// The CPU's part.
#include "check.h"
#include "cpu/mask_loops.h"

namespace pyinterp::test {

template <class T>
struct Problem {
  Frame frame;
  std::vector<int64_t> players, codes;
  std::vector<T> x, baseline, wanted;

  std::string name(const char* side, size_t i) const {
    return std::string("mask_inputs ") + side + " " + std::to_string(sizeof(T)) + " bytes, (" +
        std::to_string(frame.batch) + ", " + std::to_string(frame.channels) + ", " + std::to_string(frame.positions) +
        (frame.channels_last ? ") channels-last [" : ") [") + std::to_string(i) + "]";
  }

  void compare(const char* side, const std::vector<T>& got) const {
    for (size_t i = 0; i < wanted.size(); ++i) {
      close([&] { return name(side, i); }, static_cast<double>(got[i]), static_cast<double>(wanted[i]), 0);
    }
  }
};

// Element `i` of a batch in memory order, straight from the definition.
template <class T>
T masked(const Problem<T>& p, int64_t i) {
  const Frame& f = p.frame;
  const int64_t inside = i % (f.channels * f.positions), sample = i / (f.channels * f.positions);
  const int64_t channel = f.channels_last ? inside % f.channels : inside / f.positions;
  const int64_t position = f.channels_last ? inside / f.channels : inside % f.positions;
  const int64_t player = p.players[position];
  bool shown = player == -1;
  if (player >= 0) {
    shown = (p.codes[sample] / (int64_t{1} << player)) % 2 != 0;
  }
  return (shown ? p.x : p.baseline)[channel * f.positions + position];
}

template <class T>
Problem<T> problem_of(Frame frame, int64_t run) {
  Problem<T> p{frame, {}, {}, {}, {}, {}};
  const int64_t ids[] = {0, 5, -1, 61, 31, -2, 32, 1};
  for (int64_t i = 0; i < frame.positions; ++i) {
    p.players.push_back(ids[i / run * 3 % 8]);
  }
  uint64_t state = 1;
  for (int64_t b = 0; b < frame.batch; ++b) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    p.codes.push_back(static_cast<int64_t>(state >> 2));
  }
  for (int64_t i = 0; i < frame.sample(); ++i) {
    p.x.push_back(static_cast<T>(i * 2 % 254));
    p.baseline.push_back(static_cast<T>(i * 2 % 254 + 1));
  }
  for (int64_t i = 0; i < frame.batch * frame.sample(); ++i) {
    p.wanted.push_back(masked(p, i));
  }
  return p;
}

template <class T>
std::vector<T> in_order(const std::vector<T>& from, const Frame& f) {
  std::vector<T> to(from);
  for (int64_t i = 0; f.channels_last && i < f.sample(); ++i) {
    to[i] = from[i % f.channels * f.positions + i / f.channels];
  }
  return to;
}

template <class T>
void check_cpu(const Problem<T>& p, int64_t tile_bytes) {
  const std::vector<T> x = in_order(p.x, p.frame), baseline = in_order(p.baseline, p.frame);
  const cpu::Plan plan = cpu::plan_of(p.frame, p.players.data(), tile_bytes, sizeof(T));
  std::vector<T> out(p.wanted.size(), 255), shown(plan.tile);
  const cpu::Masking<T> m{x.data(), baseline.data(), p.codes.data(), out.data(), plan};
  const int64_t turns = p.frame.batch * plan.tiles();
  cpu::mask_turns(m, p.frame.batch, 0, turns / 3);  // as two threads would
  cpu::mask_turns(m, p.frame.batch, turns / 3, turns);
  p.compare("in turns", out);
  const auto every = [&](const char* side, auto way) {
    std::fill(out.begin(), out.end(), T{255});
    for (int64_t turn = 0; turn < turns; ++turn) {
      const int64_t sample = turn % p.frame.batch;
      way(turn / p.frame.batch, bits_of(p.codes[sample]), out.data() + sample * p.frame.sample());
    }
    p.compare(side, out);
  };
  every("copied", [&](int64_t t, uint64_t bits, T* to) { cpu::copy_runs(m, t, bits, to); });
  if (plan.slots.empty()) {
    return;
  }
  every("blended", [&](int64_t t, uint64_t bits, T* to) { cpu::blend_baseline(m, t, bits, to, shown.data()); });
#ifdef PYI_WIDE
  if (best_isa() >= Isa::avx2) {
    every("avx2", [&](int64_t t, uint64_t bits, T* to) { cpu::blend_avx2(m, t, bits, to, shown.data()); });
  }
#endif
}

template <class T>
void check_cuda(const Problem<T>& p, int64_t share) {
  struct alignas(16) Line {
    T item[16 / sizeof(T)];
  };
  std::vector<Line> memory(p.wanted.size() * sizeof(T) / 16 + 1);  // 16-byte stores need it aligned
  const std::vector<T> x = in_order(p.x, p.frame), baseline = in_order(p.baseline, p.frame);
  cuda::Masking<T> m;
  m.x = x.data();
  m.baseline = baseline.data();
  m.players = p.players.data();
  m.codes = p.codes.data();
  m.out = memory[0].item;
  m.frame = p.frame;
  const int64_t grid = std::min<int64_t>(cuda::plan(m), 2);  // fewer threads than work: each takes several turns
  m.share = share;
  const bool can = p.frame.sample() * sizeof(T) % 16 == 0;
  close([&] { return p.name("packed", 0); }, m.packed, can, 0);
  const auto run = [&](const char* side, auto kernel) {
    std::fill(m.out, m.out + p.wanted.size(), T{255});
    host_cuda::launch(kernel, grid, dim3(32), m);
    p.compare(side, std::vector<T>(m.out, m.out + p.wanted.size()));
  };
  run("one by one", cuda::mask_kernel<T, 1>);
  if (m.packed) {
    run("packed", cuda::mask_kernel<T, 16 / sizeof(T)>);
  }
}

template <class T>
void check_width() {
  for (const bool channels_last : {false, true}) {
    for (const Frame& frame : {Frame{7, 3, 80, channels_last}, Frame{1, 1, 1, channels_last},
                               Frame{5, 2, 35, channels_last}, Frame{3, 4, 64, channels_last}}) {
      for (const int64_t run : {1, 5, 32}) {
        const Problem<T> problem = problem_of<T>(frame, run);
        check_cpu(problem, 64);
        check_cpu(problem, 4096);
        check_cuda(problem, run);
      }
    }
  }
}

}  // namespace pyinterp::test

int main() {
  using namespace pyinterp::test;
  check_width<uint8_t>();
  check_width<uint16_t>();
  check_width<uint32_t>();
  check_width<uint64_t>();
  return report("mask_inputs");
}
