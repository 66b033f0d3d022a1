// softmax_residual_ straight from its definition, in double.
#pragma once

#include <initializer_list>
#include <random>
#include <utility>
#include <vector>

#include "check.h"

namespace pyinterp::test {

template <class S>
struct Problem {
  int64_t rows, classes;
  std::vector<S> logits, weights;
  std::vector<int64_t> labels;
  std::vector<double> residuals, losses;

  Problem(int64_t rows_, int64_t classes_, bool weighed, S shift) : rows(rows_), classes(classes_) {
    std::mt19937 random(static_cast<unsigned>(rows * 1000 + classes));
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < rows * classes; ++i) {
      logits.push_back(static_cast<S>(4 * normal(random)) + shift);
    }
    for (int64_t i = 0; i < rows; ++i) {
      labels.push_back(i + 1 == rows ? classes - 1 : (i * (2 * classes / 3 + 1) + 3) % classes);
      if (weighed) {
        weights.push_back(static_cast<S>(0.25 + i % 3));
      }
    }
    logits.shrink_to_fit();  // a read past the end is one past the allocation
    labels.shrink_to_fit();
    weights.shrink_to_fit();
    define();
  }

  // The same with other logits at some places: NaN and infinities make what torch makes of them.
  Problem with(std::initializer_list<std::pair<int64_t, S>> places) const {
    Problem other(*this);
    for (const auto& [place, value] : places) {
      other.logits.at(place) = value;
    }
    other.define();
    return other;
  }

  void define() {
    residuals.clear();
    losses.clear();
    for (int64_t i = 0; i < rows; ++i) {
      const double weight = weights.empty() ? 1 : weights[i];
      double most = -1e300, total = 0;
      for (int64_t j = 0; j < classes; ++j) {
        most = std::fmax(most, at(i, j));
      }
      for (int64_t j = 0; j < classes; ++j) {
        total += std::exp(at(i, j) - most);
      }
      for (int64_t j = 0; j < classes; ++j) {
        residuals.push_back(weight * (std::exp(at(i, j) - most) / total - (j == labels[i])));
      }
      losses.push_back(weight * (std::log(total) + (most - at(i, labels[i]))));
    }
  }

  double at(int64_t i, int64_t j) const { return logits[i * classes + j]; }

  const S* weight() const { return weights.empty() ? nullptr : weights.data(); }

  // run(logits, losses) does it in place.
  template <class Run>
  void check(const std::string& side, const Run& run) const {
    std::vector<S> x(logits), found(rows, S{99});
    run(x.data(), found.data());
    compare(side, x, found);
  }

  void compare(const std::string& side, const std::vector<S>& x, const std::vector<S>& found) const {
    const double unit = sizeof(S) == 8 ? 1e-14 : 1e-6;
    const auto name = [&](const char* what, size_t i) {
      return side + " " + what + " (" + std::to_string(rows) + ", " + std::to_string(classes) + ") at " +
          std::to_string(i);
    };
    for (size_t i = 0; i < x.size(); ++i) {
      const bool at_label = static_cast<int64_t>(i) % classes == labels[i / classes];  // there 1 is subtracted
      const double size = std::fabs(residuals[i]) + (at_label ? 1 : 0.01);
      close([&] { return name("residual", i); }, x[i], residuals[i], unit * size);
    }
    for (size_t i = 0; i < found.size(); ++i) {
      close([&] { return name("loss", i); }, found[i], losses[i], unit * (1 + std::fabs(losses[i])));
    }
  }
};

}  // namespace pyinterp::test
