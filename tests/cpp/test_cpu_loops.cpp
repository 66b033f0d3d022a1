// The CPU loops of every instruction set that this machine has, against the definition.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cpu/for_each_isa.h"
#include "oracle.h"

namespace pyinterp::test {

#define PYI_CHECK_ISA(isa)                                                                                    \
  template <class T>                                                                                          \
  struct isa##_loops {                                                                                        \
    template <int act>                                                                                        \
    static void run(const Problem<T>& problem, Pass<T> p, bool backward, int64_t tiles) {                     \
      if constexpr (act == kGate) {                                                                           \
        backward ? isa::backward_tiles<isa::Gate>(p, 0, tiles) : isa::forward_tiles<isa::Gate>(p, 0, tiles);  \
      } else {                                                                                                \
        using Op = isa::GatedAffine<static_cast<isa::Act>(act < 0 ? 0 : act)>;                                \
        backward ? isa::backward_tiles<Op>(p, 0, tiles) : isa::forward_tiles<Op>(p, 0, tiles);                \
      }                                                                                                       \
      (void)problem;                                                                                          \
    }                                                                                                         \
    template <bool slopes>                                                                                    \
    static void open(const Problem<T>& problem, std::vector<Wide<T>>& out) {                                  \
      isa::open_gates<slopes, Wide<T>>(problem.scores.data(), out.data(), out.size(), problem.temperature);   \
    }                                                                                                         \
  };

PYI_CHECK_ISA(baseline)
#ifdef PYI_WIDE
PYI_CHECK_ISA(avx2)
PYI_CHECK_ISA(avx512)
#endif

// Every op in float; the other dtypes differ in load and store alone, so two ops stand for all (and compile sooner).
template <class T>
constexpr bool covered(int act) {
  return std::is_same_v<T, float> || act == kGate || act == 3;
}

template <class Loops, class T, int act>
constexpr auto run_or_null() {
  if constexpr (covered<T>(act)) {
    return &Loops::template run<act>;
  } else {
    return nullptr;
  }
}

template <class Loops, class T>
void check_problem(const Problem<T>& problem, int64_t tile_elements) {
  if (!covered<T>(problem.act)) {
    return;
  }
  using RunFn = void (*)(const Problem<T>&, Pass<T>, bool, int64_t);
  constexpr RunFn kRun[] = {
      run_or_null<Loops, T, -1>(), run_or_null<Loops, T, 0>(), run_or_null<Loops, T, 1>(),
      run_or_null<Loops, T, 2>(),  run_or_null<Loops, T, 3>(), run_or_null<Loops, T, 4>(),
      run_or_null<Loops, T, 5>(),  run_or_null<Loops, T, 6>()};
  std::vector<Wide<T>> gates(problem.scores), slopes(problem.scores.size(), 1);
  if (problem.sigmoid) {
    Loops::template open<false>(problem, gates);
    Loops::template open<true>(problem, slopes);
  }
  Pass<T> p;
  p.x = problem.x.data();
  p.dy = problem.dy.data();
  p.tables[0] = gates.data();
  p.tables[1] = problem.scale.data();
  p.tables[2] = problem.shift.data();
  p.group = problem.grouped ? problem.group.data() : nullptr;
  p.site = problem.site;
  p.tiles = tiles_of(p.site, tile_elements);
  const int64_t tiles = p.site.segments * p.tiles.blocks * p.tiles.strips;
  std::vector<T> out(problem.x.size());
  p.out = out.data();
  std::vector<Wide<T>> partial(p.site.segments * p.tiles.blocks * p.site.channels);
  p.partial = partial.data();

  kRun[problem.act + 1](problem, p, false, tiles);
  problem.compare("y", out, problem.y);
  kRun[problem.act + 1](problem, p, true, tiles);
  problem.compare("dx", out, problem.dx);
  const std::vector<Wide<T>> with_dx = partial;
  p.out = nullptr;
  kRun[problem.act + 1](problem, p, true, tiles);
  std::vector<Wide<T>> sums(problem.scores.size());
  for (size_t i = 0; i < partial.size(); ++i) {
    close([&] { return problem.name("partial without dx", i); }, partial[i], with_dx[i], 0);
    const int64_t channel = i % p.site.channels, segment = i / p.site.channels / p.tiles.blocks;
    sums[(problem.grouped ? problem.group[segment] * p.site.channels : 0) + channel] += partial[i];
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    sums[i] *= slopes[i];
  }
  problem.compare_scores(sums);
}

template <template <class> class Loops>
void check_lanes() {
  for (const int64_t tile_elements : {64, 16384}) {  // many tiles, and one
    for_each_problem<float>([&](const auto& problem) { check_problem<Loops<float>>(problem, tile_elements); });
    for_each_problem<c10::BFloat16>(
        [&](const auto& problem) { check_problem<Loops<c10::BFloat16>>(problem, tile_elements); });
    for_each_problem<c10::Half>([&](const auto& problem) { check_problem<Loops<c10::Half>>(problem, tile_elements); });
  }
}

}  // namespace pyinterp::test

int main() {
  using namespace pyinterp::test;
  check_lanes<baseline_loops>();
  for_each_problem<double>([](const auto& problem) { check_problem<baseline_loops<double>>(problem, 64); });
#ifdef PYI_WIDE
  if (pyinterp::best_isa() >= pyinterp::Isa::avx2) {
    check_lanes<avx2_loops>();
  }
  if (pyinterp::best_isa() >= pyinterp::Isa::avx512) {
    check_lanes<avx512_loops>();
  }
#endif
  return report("cpu loops");
}
