// mask_inputs: the CPU loops against the definition.
#include "cpu/mask_loops.h"
#include "mask_problem.h"

namespace pyinterp::test {

template <class T>
void check_cpu(const Problem<T>& p, int64_t tile_bytes, bool past_caches) {
  const std::vector<T> x = in_order(p.x, p.frame), baseline = in_order(p.baseline, p.frame);
  const cpu::Plan plan = cpu::plan_of(p.frame, p.players.data(), tile_bytes, sizeof(T));
  std::vector<T> out(p.wanted.size(), 255);
  const cpu::Masking<T> m{x.data(), baseline.data(), p.codes.data(), out.data(), plan, past_caches};
  cpu::Space<T> space(m);
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
  every("copied", [&](int64_t t, uint64_t bits, T* to) { cpu::copy_runs(m, t, bits, to, space); });
  if (plan.slots.empty()) {
    return;
  }
  every("blended", [&](int64_t t, uint64_t bits, T* to) { cpu::blend_baseline(m, t, bits, to, space); });
#ifdef PYI_WIDE
  if (best_isa() >= Isa::avx2) {
    every("avx2", [&](int64_t t, uint64_t bits, T* to) { cpu::blend_avx2(m, t, bits, to, space); });
  }
#endif
}

template <class T>
void check_width() {
  for (const bool channels_last : {false, true}) {
    for (const Frame& frame : {Frame{7, 3, 80, channels_last}, Frame{1, 1, 1, channels_last},
                               Frame{5, 2, 35, channels_last}, Frame{3, 4, 64, channels_last}}) {
      for (const int64_t run : {1, 5, 32}) {
        const Problem<T> problem = problem_of<T>(frame, run);
        for (const bool past_caches : {false, true}) {
          check_cpu(problem, 64, past_caches);
          check_cpu(problem, 4096, past_caches);
        }
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
