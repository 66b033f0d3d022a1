// gram_descent: the loops of every instruction set against the conditions of an optimum, and against each step of the
// definition, one number at a time.
#include <random>
#include <vector>

#include "check.h"
#include "cpu/for_each_isa.h"

namespace pyinterp::test {

template <class S>
struct Problem {
  int64_t rows, size;
  double l1, l2;
  std::vector<S> linear, gram, start, diagonal, curvature, inverse;

  Problem(int64_t rows_, int64_t size_, double l1_, double l2_) : rows(rows_), size(size_), l1(l1_), l2(l2_) {
    std::mt19937 random(static_cast<unsigned>(rows * 10000 + size));
    std::normal_distribution<double> normal;
    const int64_t samples = 3 * size + 20;
    std::vector<double> x(samples * size);
    for (double& number : x) {
      number = normal(random);
    }
    for (int64_t i = 0; i < samples; ++i) {
      for (int64_t j = 0; j < size; ++j) {
        x[i * size + j] = j % 7 == 3 ? 0 : x[i * size + j] + 0.2 * x[i * size];  // correlated; some always zero
      }
    }
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = 0; j < size; ++j) {
        double total = 0;
        for (int64_t s = 0; s < samples; ++s) {
          total += x[s * size + i] * x[s * size + j];
        }
        gram.push_back(static_cast<S>(total / samples));
      }
    }
    for (int64_t i = 0; i < rows * size; ++i) {
      const bool flat = i % size % 7 == 3;
      linear.push_back(flat ? S{0} : static_cast<S>(normal(random)));
      start.push_back(i % 5 == 0 ? static_cast<S>(normal(random)) : S{0});
    }
    for (int64_t j = 0; j < size; ++j) {
      diagonal.push_back(gram[j * size + j]);
      curvature.push_back(diagonal[j] + static_cast<S>(l2));
      inverse.push_back(1 / curvature[j]);
    }
  }

  std::string name(const char* side, const char* what, int64_t row, int64_t j) const {
    return std::string(side) + " " + what + " (" + std::to_string(rows) + ", " + std::to_string(size) + ") at " +
        std::to_string(row) + ", " + std::to_string(j);
  }

  // run(pass) solves all rows.
  template <class Run>
  std::pair<std::vector<S>, std::vector<int64_t>> solved(double tolerance, int64_t most, const Run& run) const {
    std::vector<S> w(start);
    std::vector<int64_t> sweeps(rows, -1);
    run(DescentPass<S>{linear.data(), gram.data(), diagonal.data(), curvature.data(), inverse.data(), w.data(),
                       sweeps.data(), size, static_cast<S>(l1), static_cast<S>(l2), static_cast<S>(tolerance), most});
    return {w, sweeps};
  }

  template <class Run>
  void check_optimum(const char* side, const Run& run) const {
    const double tolerance = sizeof(S) == 8 ? 1e-11 : 1e-5;
    const auto [w, sweeps] = solved(tolerance, 5000, run);
    for (int64_t row = 0; row < rows; ++row) {
      close([&, row] { return name(side, "converged", row, 0); }, sweeps[row] > 0 && sweeps[row] < 5000, true, 0);
      for (int64_t j = 0; j < size; ++j) {
        const double own = w[row * size + j];
        double slope = linear[row * size + j] - l2 * own;
        for (int64_t i = 0; i < size; ++i) {
          slope -= static_cast<double>(w[row * size + i]) * gram[i * size + j];
        }
        const double away = own == 0 ? std::fmax(std::fabs(slope) - l1, 0) : std::fabs(slope - std::copysign(l1, own));
        close([&, row, j] { return name(side, "optimum", row, j); }, away, 0, 30 * tolerance);
      }
    }
  }

  // The first sweeps, in double: over all coordinates, then over those that are not zero.
  template <class Run>
  void check_steps(const char* side, int64_t most, const Run& run) const {
    if (size < 16) {
      return;  // done after one
    }
    const auto [w, sweeps] = solved(0, most, run);
    for (int64_t row = 0; row < rows; ++row) {
      close([&, row] { return name(side, "sweeps", row, most); }, sweeps[row], most, 0);
      std::vector<double> v(start.begin() + row * size, start.begin() + (row + 1) * size);
      std::vector<bool> active(size, true);
      for (int64_t sweep = 0; sweep < most; ++sweep) {
        for (int64_t j = 0; j < size; ++j) {
          if (curvature[j] == 0) {
            v[j] = 0;
          } else if (active[j]) {
            double aim = linear[row * size + j];
            for (int64_t i = 0; i < size; ++i) {
              aim -= i == j ? 0 : gram[j * size + i] * v[i];
            }
            v[j] = std::copysign(std::fmax(std::fabs(aim) - l1, 0), aim) / (diagonal[j] + l2);
          }
        }
        for (int64_t j = 0; sweep == 0 && j < size; ++j) {
          active[j] = v[j] != 0;
        }
      }
      for (int64_t j = 0; j < size; ++j) {
        const double unit = sizeof(S) == 8 ? 1e-12 : 2e-4;
        close([&, row, j] { return name(side, "step", row, j); }, w[row * size + j], v[j], unit);
      }
    }
  }
};

#define PYI_CHECK_ISA(isa)                                                      \
  template <class S>                                                            \
  void isa##_check(const Problem<S>& p) {                                       \
    const auto run = [&](const DescentPass<S>& pass) {                          \
      std::atomic<int64_t> next{0};                                             \
      isa::descend(pass, next, p.rows);                                         \
    };                                                                          \
    p.check_optimum(#isa, run);                                                 \
    for (const int64_t most : {1, 2}) {                                         \
      p.check_steps(#isa, most, run);                                           \
    }                                                                           \
  }

PYI_CHECK_ISA(baseline)
#ifdef PYI_WIDE
PYI_CHECK_ISA(avx2)
PYI_CHECK_ISA(avx512)
#endif

template <class S>
void check_all() {
  for (const int64_t size : {1, 2, 5, 16, 33, 130, 259, 300}) {  // within and beyond vectors, tiles and blocks
    for (const Problem<S>& p : {Problem<S>(size < 100 ? 3 : 1, size, 0.3, 0.1), Problem<S>(1, size, 0.8, 0)}) {
      baseline_check(p);
#ifdef PYI_WIDE
      if (best_isa() >= Isa::avx2) {
        avx2_check(p);
      }
      if (best_isa() >= Isa::avx512) {
        avx512_check(p);
      }
#endif
    }
  }
}

}  // namespace pyinterp::test

int main() {
  using namespace pyinterp::test;
  check_all<float>();
  check_all<double>();
  return report("gram_descent");
}
