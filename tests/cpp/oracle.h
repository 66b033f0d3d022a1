// gate and gated_affine straight from their definition, in double, one number at a time.
#pragma once

#include <cmath>
#include <random>
#include <vector>

#include "check.h"
#include "site.h"

namespace pyinterp::test {

constexpr int kGate = -1;  // stands for gate where the others are activations of gated_affine
inline const char* const kActNames[] = {"gate", "none", "relu", "relu6", "silu", "hardswish", "gelu", "gelu_tanh"};

inline double activate(int act, double z) {
  switch (act) {
    case 1:
      return std::max(z, 0.0);
    case 2:
      return std::min(std::max(z, 0.0), 6.0);
    case 3:
      return z / (1 + std::exp(-z));
    case 4:
      return z * std::min(std::max(z + 3, 0.0), 6.0) / 6;
    case 5:
      return z * 0.5 * std::erfc(-z / std::sqrt(2.0));
    case 6:
      return 0.5 * z * (1 + std::tanh(std::sqrt(2 / M_PI) * (z + 0.044715 * z * z * z)));
    default:
      return z;
  }
}

// A central difference knows nothing of the formulas under test; inputs keep away from kinks.
inline double slope(int act, double z) {
  const double h = 1e-5;
  return (activate(act, z + h) - activate(act, z - h)) / (2 * h);
}

inline bool near_kink(int act, double z) {
  const double reach = 1e-3;
  switch (act) {
    case 1:
      return std::fabs(z) < reach;
    case 2:
      return std::fabs(z) < reach || std::fabs(z - 6) < reach;
    case 4:
      return std::fabs(z - 3) < reach || std::fabs(z + 3) < reach;
    default:
      return false;
  }
}

// One random problem: inputs in dtype T and the expected results in double.
template <class T>
struct Problem {
  Site site;
  int act;
  bool grouped, sigmoid;
  static constexpr int64_t kGroups = 3;
  Wide<T> temperature = static_cast<Wide<T>>(0.7);
  std::vector<T> x, dy;
  std::vector<Wide<T>> scores, scale, shift;
  std::vector<int64_t> group;
  std::vector<double> y, dx, grad_scores, size;  // size: the sum of magnitudes behind each entry of grad_scores

  int64_t groups() const {
    return grouped ? kGroups : 1;
  }

  Problem(Site given, int activation, bool use_group, bool use_sigmoid)
      : site(given), act(activation), grouped(use_group), sigmoid(use_sigmoid) {
    std::mt19937 random(static_cast<unsigned>(site.numel() * 31 + act * 7 + grouped * 3 + sigmoid));
    std::normal_distribution<double> normal;
    const auto fill = [&](auto& values, int64_t count, double spread) {
      values.resize(count);
      for (auto& value : values) {
        value = static_cast<std::decay_t<decltype(value)>>(static_cast<Wide<T>>(spread * normal(random)));
      }
    };
    fill(x, site.numel(), 3);
    fill(dy, site.numel(), 1);
    fill(scores, groups() * site.channels, 1);
    fill(scale, site.channels, 1);
    fill(shift, site.channels, 1);
    for (int64_t n = 0; grouped && n < site.segments; ++n) {
      group.push_back((n * 2 + 1) % kGroups);
    }
    group.shrink_to_fit();  // a read past the end is one past the allocation
    solve();
  }

  void solve() {
    y.resize(site.numel());
    dx.resize(site.numel());
    grad_scores.assign(scores.size(), 0);
    size.assign(scores.size(), 1e-30);
    for (int64_t i = 0; i < site.numel(); ++i) {
      const int64_t channel = i / site.inner % site.channels;
      const int64_t segment = i / (site.inner * site.channels * site.middle);
      const int64_t at = (grouped ? group[segment] * site.channels : 0) + channel;
      const double score = scores[at], t = temperature;
      const double g = sigmoid ? 1 / (1 + std::exp(-score / t)) : score;
      const double dg = sigmoid ? g * (1 - g) / t : 1;
      const double a = act == kGate ? 1 : scale[channel], b = act == kGate ? 0 : shift[channel];
      double value = static_cast<Wide<T>>(x[i]);
      while (near_kink(act, g * (a * value + b))) {
        x[i] = static_cast<T>(static_cast<Wide<T>>(value + 0.5));
        value = static_cast<Wide<T>>(x[i]);
      }
      const double affine = a * value + b;
      const double dz = static_cast<double>(static_cast<Wide<T>>(dy[i])) * slope(act, g * affine);
      y[i] = activate(act, g * affine);
      dx[i] = dz * g * a;
      grad_scores[at] += dz * affine * dg;
      size[at] += std::fabs(dz * affine * dg);
    }
  }

  std::string name(const char* what, int64_t i) const {
    return std::string(kActNames[act + 1]) + " (" + std::to_string(site.segments) + "," +
        std::to_string(site.middle) + "," + std::to_string(site.channels) + "," + std::to_string(site.inner) + ")" +
        (grouped ? " grouped" : "") + (sigmoid ? " sigmoid " : " ") + what + "[" + std::to_string(i) + "]";
  }

  // Half a unit of T in the last place of the result, and a few of the sums behind it.
  static double unit() {
    return sizeof(T) == 8 ? 1e-9 : sizeof(T) == 4 ? 4e-6 : std::is_same_v<T, c10::Half> ? 1e-3 : 8e-3;
  }

  void compare(const char* what, const std::vector<T>& got, const std::vector<double>& wanted) const {
    for (size_t i = 0; i < wanted.size(); ++i) {
      close([&] { return name(what, i); }, static_cast<Wide<T>>(got[i]), wanted[i], unit() * (1 + std::fabs(wanted[i])));
    }
  }

  void compare_scores(const std::vector<Wide<T>>& got) const {
    const double tolerance = sizeof(T) == 8 ? 1e-8 : 4e-6;  // sums are float32 for every smaller T
    for (size_t i = 0; i < grad_scores.size(); ++i) {
      close([&] { return name("grad_scores", i); }, got[i], grad_scores[i], tolerance * (1 + size[i]));
    }
  }
};

inline std::vector<Site> sites() {
  return {
      {1, 1, 1, 1}, {1, 2, 5, 49}, {1, 3, 3, 64}, {3, 2, 4, 8}, {2, 3, 7, 5}, {1, 1, 3, 5000}, {2, 1, 2, 1104},
      {1, 7, 33, 1}, {2, 70, 40, 1}, {1, 5, 3, 1}, {3, 1, 20, 1}, {1, 9, 16, 1}, {1, 65, 70, 1},
      {2, 300, 13, 1}, {3, 41, 1, 1}, {1, 17, 7, 1}};
}

// Calls f(problem) for every site, op and way to give the scores.
template <class T, class F>
void for_each_problem(const F& f) {
  for (const Site& site : sites()) {
    for (int act = kGate; act < 7; ++act) {
      for (const bool grouped : {false, true}) {
        f(Problem<T>(site, act, grouped, !grouped == (act % 2 == 0)));
      }
    }
  }
}

}  // namespace pyinterp::test
