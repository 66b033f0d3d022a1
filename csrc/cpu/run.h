// Everything around the loops of gate and gated_affine: gates from scores, threads, the second stage of the sum.
#pragma once

#include <memory>

#include "../tensors.h"
#include "for_each_isa.h"

namespace pyinterp::cpu {

// About as many numbers as stay in the L1 and L2 caches while they are read, written and summed.
constexpr int64_t kTileElements = 16384;
// Below this many numbers a second thread costs more than it saves.
constexpr int64_t kGrainElements = 32768;

// The tables of a call, alive as long as its pass.
template <class T>
struct Call {
  Pass<T> pass;
  std::unique_ptr<Wide<T>[]> gates;
  std::unique_ptr<Wide<T>[]> partial;

  Call(const Gated& gated, const Scores& scores, std::optional<double> temperature) {
    pass.x = gated.x.template const_data_ptr<T>();
    pass.site = gated.site;
    pass.tiles = tiles_of(gated.site, kTileElements);
    pass.group = scores.rows();
    for (int64_t n = 0; pass.group && n < gated.site.segments; ++n) {
      STD_TORCH_CHECK(
          pass.group[n] >= 0 && pass.group[n] < scores.groups,
          "group must hold rows of scores, 0 <= row < ", scores.groups, ", got ", pass.group[n]);
    }
    const Wide<T>* given = scores.scores.template const_data_ptr<Wide<T>>();
    pass.tables[0] = pass.tables[1] = pass.tables[2] = given;
    if (temperature) {
      const int64_t count = scores.groups * gated.site.channels;
      gates.reset(new Wide<T>[count]);
      open<false>(given, gates.get(), count, *temperature);
      pass.tables[0] = gates.get();
    }
  }

  template <bool slopes>
  static void open(const Wide<T>* scores, Wide<T>* out, int64_t count, double temperature) {
    const Wide<T> t = static_cast<Wide<T>>(temperature);
    PYI_WITH_ISA(T, (open_gates<slopes, Wide<T>>(scores, out, count, t)));
  }

  template <class F>
  void for_tiles(const F& f) const {
    const int64_t count = pass.tiles.blocks * pass.tiles.strips * pass.site.segments;
    if (pass.site.numel() > 0) {
      const int64_t size = pass.tiles.rows * pass.tiles.columns * pass.site.inner;
      torch::stable::parallel_for(0, count, ceil_div(kGrainElements, size), f);
    }
  }

  void make_partial() {
    partial.reset(new Wide<T>[pass.site.segments * pass.tiles.blocks * pass.site.channels]);
    pass.partial = partial.get();
  }

  // Sums the partials in their order, times the derivative of the gate by its score.
  void finish(Wide<T>* grad_scores, const Scores& scores, std::optional<double> temperature) const {
    const int64_t channels = pass.site.channels, groups = scores.groups;
    std::unique_ptr<double[]> total(new double[groups * channels]());
    for (int64_t segment = 0; pass.site.numel() > 0 && segment < pass.site.segments; ++segment) {
      double* row = total.get() + (pass.group ? pass.group[segment] : 0) * channels;
      for (int64_t block = 0; block < pass.tiles.blocks; ++block) {
        const Wide<T>* part = pass.partial + (segment * pass.tiles.blocks + block) * channels;
        for (int64_t channel = 0; channel < channels; ++channel) {
          row[channel] += part[channel];
        }
      }
    }
    if (temperature) {
      const Wide<T>* given = scores.scores.template const_data_ptr<Wide<T>>();
      open<true>(given, grad_scores, groups * channels, *temperature);
    }
    for (int64_t i = 0; i < groups * channels; ++i) {
      grad_scores[i] = static_cast<Wide<T>>(temperature ? total[i] * grad_scores[i] : total[i]);
    }
  }
};

}  // namespace pyinterp::cpu
