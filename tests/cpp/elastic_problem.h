// elastic_prox straight from its definition, one number at a time.
#pragma once

#include <random>
#include <vector>

#include "check.h"
#include "elastic_pass.h"

namespace pyinterp::test {

template <class S>
struct Problem {
  std::vector<S> point, gradient, previous;
  double step, l1, l2, momentum;

  Problem(int64_t count, double step_, double l1_, double l2_, double momentum_)
      : step(step_), l1(l1_), l2(l2_), momentum(momentum_) {
    std::mt19937 random(static_cast<unsigned>(count));
    std::normal_distribution<double> normal;
    for (auto* numbers : {&point, &gradient, &previous}) {
      for (int64_t i = 0; i < count; ++i) {
        numbers->push_back(static_cast<S>(normal(random)));
      }
      numbers->shrink_to_fit();  // a read past the end is one past the allocation
    }
  }

  ProxPass<S> pass(std::vector<S>& weights, std::vector<S>& next) const {
    return {point.data(), gradient.data(), previous.data(), weights.data(), next.data(),
            static_cast<int64_t>(point.size()), ProxNumbers<S>(step, l1, l2, momentum)};
  }

  void compare(const std::string& side, const std::vector<S>& weights, const std::vector<S>& next) const {
    const int64_t count = static_cast<int64_t>(point.size());
    const double unit = sizeof(S) == 8 ? 1e-15 : 5e-7;
    for (int64_t i = 0; i < count; ++i) {
      const double u = point[i] - step * gradient[i];
      const double size = std::fmax(std::fabs(u) - step * l1, 0) / (1 + step * l2);
      const double w = u < 0 ? -size : size;
      const auto name = [&] { return side + " " + std::to_string(count) + " at " + std::to_string(i); };
      close([&] { return name() + " weight"; }, weights[i], w, 4 * unit * (1 + std::fabs(u)));
      close([&] { return name() + " next"; }, next[i], w + momentum * (w - previous[i]), 8 * unit * (1 + std::fabs(u)));
      close([&] { return name() + " zero"; }, weights[i] == 0 && std::signbit(weights[i]), false, 0);
    }
  }
};

}  // namespace pyinterp::test
