// subset_sum straight from its definition.
#pragma once

#include <random>
#include <vector>

#include "check.h"

namespace pyinterp::test {

// Whole numbers: every sum is exact, in whatever order.
template <class T>
std::vector<T> some_rows(int64_t count) {
  std::mt19937 random(1);
  std::uniform_int_distribution<int> numbers(-2, 2);
  std::vector<T> x(count);
  for (T& number : x) {
    number = static_cast<T>(static_cast<float>(numbers(random)));
  }
  return x;
}

// Sums over the subsets or supersets of every set, up to 2^8 of them one number at a time; beyond that, one player after
// another, the first one first, in double.
template <class T>
std::vector<double> definition(const std::vector<T>& x, int n, bool inverse, bool superset) {
  const size_t length = size_t{1} << n;
  std::vector<double> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    y[i] = static_cast<double>(x[i]);
  }
  if (n > 8) {
    for (size_t half = 1; half < length; half *= 2) {
      for (size_t i = 0; i < y.size(); ++i) {
        const bool target = ((i & half) == 0) == superset;
        y[i] += target ? (inverse ? -1 : 1) * y[i ^ half] : 0;
      }
    }
    return y;
  }
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t row = i / length * length, s = i % length;
    y[i] = 0;
    for (size_t t = 0; t < length; ++t) {
      if ((superset ? s : t) == (s & t)) {
        const bool odd = __builtin_popcountll(s ^ t) % 2 == 1;
        y[i] += (inverse && odd ? -1.0 : 1.0) * static_cast<double>(x[row + t]);
      }
    }
  }
  return y;
}

template <class T>
void compare(const char* side, int n, bool inverse, bool superset, const std::vector<T>& got,
             const std::vector<double>& wanted) {
  for (size_t i = 0; i < got.size(); ++i) {
    const auto name = [&] {
      return std::string(side) + " n=" + std::to_string(n) + (inverse ? " inverse" : "") +
          (superset ? " superset" : "") + " at " + std::to_string(i);
    };
    // 16-bit numbers round once, at the end.
    close(name, static_cast<double>(got[i]), static_cast<double>(static_cast<T>(wanted[i])), 0);
  }
}

}  // namespace pyinterp::test
