// Games for and_or_solve, and a team of one thread that solves them straight from what and_or.h asks of a team.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "and_or_pass.h"
#include "check.h"
#include "host_device.h"

namespace pyinterp::test {

#include "../../csrc/and_or.h"

// The tables of pyinterp/ops/_schur.py, made once more from the definitions there.
struct Tables {
  std::vector<int32_t> pairs, paths;
  std::vector<double> angles, inverse, exact;
  std::vector<int64_t> rounds{0}, kinds;

  Tables(int n, double slack) {
    std::vector<std::vector<int32_t>> blocks{{0}};
    for (int k = 0; k < n; ++k) {
      std::vector<std::vector<int32_t>> coupled;
      for (const auto& rows : blocks) {
        const int d = static_cast<int>(rows.size());
        std::vector<int32_t> more, less;
        for (int t = 0; t < d; ++t) {
          more.push_back(2 * rows[t]);
          if (t > 0) {
            pairs.insert(pairs.end(), {2 * rows[t], 2 * rows[t - 1] + 1});
            angles.insert(angles.end(), {std::sqrt(double(d - t) / d), std::sqrt(double(t) / d)});
            less.push_back(2 * rows[t - 1] + 1);
          }
        }
        more.push_back(2 * rows.back() + 1);
        coupled.push_back(more);
        if (!less.empty()) {
          coupled.push_back(less);
        }
      }
      blocks = coupled;
      rounds.push_back(static_cast<int64_t>(pairs.size() / 2));
    }
    for (int q = 0; q <= n / 2; ++q) {
      const int d = n - 2 * q + 1;
      int64_t count = 0;
      const int64_t first = static_cast<int64_t>(paths.size());
      for (const auto& rows : blocks) {
        if (static_cast<int>(rows.size()) == d) {
          paths.insert(paths.end(), rows.begin(), rows.end());
          ++count;
        }
      }
      kinds.insert(kinds.end(), {d, count, first, static_cast<int64_t>(exact.size())});
      const std::vector<double> gram = gram_of(d - 1, q);
      append(inverse, inverted(gram, d, slack));
      append(exact, inverted(gram, d, 0));
    }
    for (auto* table : {&pairs, &paths}) {
      table->shrink_to_fit();  // a read past the end is one past the allocation
    }
    for (auto* table : {&angles, &inverse, &exact}) {
      table->shrink_to_fit();
    }
    for (auto* table : {&rounds, &kinds}) {
      table->shrink_to_fit();
    }
  }

  static double choose(int n, int k) { return k < 0 || k > n ? 0 : k == 0 ? 1 : choose(n, k - 1) * (n - k + 1) / k; }

  static void append(std::vector<double>& all, const std::vector<double>& some) {
    all.insert(all.end(), some.begin(), some.end());
  }

  static std::vector<double> gram_of(int m, int q) {
    const int d = m + 1;
    std::vector<double> gram(d * d, 0.0), both(2 * d * d, 0.0);
    for (int i = 0; i < d; ++i) {
      for (int j = 0; j < d; ++j) {
        if (q > 0 || (i > 0 && j > 0)) {
          const double ratio = std::sqrt(choose(m, i) / choose(m, j));
          both[i * 2 * d + j] = choose(i, j) * ratio;
          both[i * 2 * d + d + j] = (q == 0 ? std::sqrt(choose(m, i) * choose(m, j)) : 0) -
              (q % 2 ? -1 : 1) * choose(m - i, j) * ratio;
        }
      }
    }
    for (int i = 0; i < d; ++i) {
      for (int j = 0; j < d; ++j) {
        for (int k = 0; k < 2 * d; ++k) {
          gram[i * d + j] += both[i * 2 * d + k] * both[j * 2 * d + k];
        }
      }
    }
    if (q == 0) {
      gram[0] = 1;
    }
    return gram;
  }

  // Gauss and Jordan; the matrices are symmetric and positive definite.
  static std::vector<double> inverted(std::vector<double> a, int d, double slack) {
    std::vector<double> b(d * d, 0.0);
    for (int i = 0; i < d; ++i) {
      a[i * d + i] += slack;
      b[i * d + i] = 1;
    }
    for (int i = 0; i < d; ++i) {
      const double pivot = a[i * d + i];
      for (int j = 0; j < d; ++j) {
        a[i * d + j] /= pivot;
        b[i * d + j] /= pivot;
      }
      for (int row = 0; row < d; ++row) {
        const double factor = a[row * d + i];
        for (int j = 0; row != i && j < d; ++j) {
          a[row * d + j] -= factor * a[i * d + j];
          b[row * d + j] -= factor * b[i * d + j];
        }
      }
    }
    return b;
  }

  SchurTables view() const {
    return {pairs.data(), angles.data(), rounds.data(), paths.data(), kinds.data(), inverse.data(), exact.data()};
  }
};

struct Alone {
  static constexpr int kLanes = 1;

  template <class F>
  void each(int64_t count, const F& f) const {
    for (int64_t i = 0; i < count; ++i) {
      f(i);
    }
  }

  template <class F>
  void rows(int64_t count, int shift, const F& f) const {
    each(count << shift, [&](int64_t i) { f(i >> shift, i % (int64_t{1} << shift)); });
  }

  template <int k, class F>
  void total(int64_t count, const F& f, double* out) const {
    std::fill(out, out + k, 0.0);
    each(count, [&](int64_t i) { f(i, out); });
  }

  template <class F>
  double largest(int64_t count, const F& f) const {
    double most = 0;
    each(count, [&](int64_t i) { most = std::fmax(most, f(i)); });
    return most;
  }

  void sum_subsets(double* x, int n) const { sum(x, n, false); }
  void sum_supersets(double* x, int n) const { sum(x, n, true); }

  static void sum(double* x, int n, bool superset) {
    const int64_t size = int64_t{1} << n;
    const std::vector<double> was(x, x + size);
    for (int64_t s = 0; s < size; ++s) {
      x[s] = 0;
      for (int64_t t = 0; t < size; ++t) {
        x[s] += (s & t) == (superset ? s : t) ? was[t] : 0;
      }
    }
  }
};

struct Found {
  std::vector<double> and_, or_, report;

  Found(size_t values, size_t games) : and_(values), or_(values), report(3 * games) {}
};

struct Games {
  int n;
  std::vector<double> values, bound;
  int64_t max_iterations, check;
  double slack = 1;
  Tables tables{n, slack};

  int64_t count() const { return static_cast<int64_t>(bound.size()); }

  AndOrPass pass(Found& found) const {
    return {values.data(), bound.data(), found.and_.data(), found.or_.data(), found.report.data(),
            tables.view(), n, slack, 1e-3, max_iterations, check};
  }

  Found alone() const {
    Found found(values.size(), bound.size());
    const AndOrPass all = pass(found);
    std::vector<double> space(kAndOrArrays << n);
    for (int64_t game = 0; game < count(); ++game) {
      const Alone team;
      double* fast = space.data() + ((kAndOrArrays - kFastArrays) << n);
      AndOrSolver<Alone>(team, all, game, space.data(), fast).solve(all, game);
    }
    return found;
  }

  // Of several equally good points, rounding decides which is kept: so effects are compared where there is one check.
  void compare(const std::string& side, const Found& found) const {
    const Found wanted = alone();
    const auto all = [&](const char* what, const std::vector<double>& got, const std::vector<double>& expected) {
      for (size_t i = 0; i < expected.size(); ++i) {
        const auto name = [&] { return side + " n=" + std::to_string(n) + " " + what + " " + std::to_string(i); };
        close(name, got[i], expected[i], 1e-9);
      }
    };
    if (max_iterations <= check) {
      all("and", found.and_, wanted.and_);
      all("or", found.or_, wanted.or_);
    }
    all("report", found.report, wanted.report);
  }
};

// Games whose values are between -1 and 1, one for each bound.
inline Games some_games(int n, std::vector<double> bound, int64_t max_iterations, int64_t check) {
  std::vector<double> values;
  for (size_t game = 0; game < bound.size(); ++game) {
    for (int i = 0; i < 1 << n; ++i) {
      values.push_back(std::sin(7.0 * i * i + 3.0 * game));
    }
  }
  values.shrink_to_fit();
  return {n, values, bound, max_iterations, check};
}

}  // namespace pyinterp::test
