// and_or_solve for one thread and for a block of threads, on games whose least sum of effects is known.
#include "host_cuda.h"
// After it: the kernels need its words.
#include <cmath>
#include <vector>

#include "check.h"
#include "cpu/for_each_isa.h"
#include "cuda/and_or_kernel.cuh"

namespace pyinterp::test {

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

__global__ void block_of_threads(const AndOrPass& pass, int64_t games, double* space) {
  __shared__ double scratch[2 * cuda::kTeamWarps];
  const int64_t size = int64_t{1} << pass.n;
  double* own = space + blockIdx.x * (kAndOrArrays * size);
  cuda::solve_games(pass, games, own, own + (kAndOrArrays - kFastArrays) * size, scratch);
}

struct Found {
  std::vector<double> and_, or_, report;
};

// Every game by one thread, or by blocks of threads.
Found solve(const std::vector<double>& values, const std::vector<double>& bound, int n, bool blocks) {
  const int64_t games = static_cast<int64_t>(bound.size());
  const double slack = 1;
  const Tables tables(n, slack);
  Found found{std::vector<double>(values.size()), std::vector<double>(values.size()), std::vector<double>(3 * games)};
  const AndOrPass pass{values.data(), bound.data(), found.and_.data(), found.or_.data(), found.report.data(),
                       tables.view(), n, slack, 1e-3, 100, 25};
  if (blocks) {
    const int64_t grid = 2;  // fewer than games: a block takes several turns
    std::vector<double> space(grid * kAndOrArrays << n);
    host_cuda::launch(block_of_threads, grid, dim3(64), pass, games, space.data());
  } else {
    PYI_ON_BEST_ISA(solve_games(pass, 0, games))
  }
  return found;
}

void same(const char* name, double got, double wanted, double tolerance) {
  close([&] { return std::string(name); }, got, wanted, tolerance);
}

void check_games(int n, const std::vector<double>& values, const std::vector<double>& bound) {
  const Found one = solve(values, bound, n, false), block = solve(values, bound, n, true);
  for (size_t i = 0; i < values.size(); ++i) {
    same("one.and_[i]", one.and_[i], block.and_[i], 1e-9);
    same("one.or_[i]", one.or_[i], block.or_[i], 1e-9);
  }
  for (size_t i = 0; i < one.report.size(); ++i) {
    same("one.report[i]", one.report[i], block.report[i], 1e-9);
  }
}

}  // namespace pyinterp::test

int main() {
  using namespace pyinterp::test;
  // v = 5 + [player 0 or 1 is there] + 2 [all three are]: one OR and one AND effect.
  const std::vector<double> planted{5, 6, 6, 6, 5, 6, 6, 8};
  const Found found = solve(planted, {0.0}, 3, false);
  same("found.report[0]", found.report[0], 3, 3e-3);
  same("found.report[1]", found.report[1], 3, 3e-3);
  same("found.and_[0]", found.and_[0], 5, 1e-12);
  same("found.or_[3]", found.or_[3], 1, 1e-2);
  same("found.and_[7]", found.and_[7], 2, 1e-2);

  check_games(0, {2.0}, {0.0});
  check_games(1, {2.0, 3.0}, {0.0});
  std::vector<double> many;
  for (int game = 0; game < 3; ++game) {
    for (int i = 0; i < 8; ++i) {
      many.push_back(std::sin(7.0 * i * i + 3.0 * game));
    }
  }
  check_games(3, many, {0.0, 0.1, 100.0});
  return report("and_or");
}
