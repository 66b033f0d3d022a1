// subset_sum: the loops of every instruction set against the sums straight from their definition.
#include "cpu/for_each_isa.h"
#include "subset_oracle.h"

namespace pyinterp::test {

#define PYI_CHECK_ISA(isa)                                                                                  \
  template <bool inverse, bool superset, class S>                                                           \
  void isa##_check(int n, int64_t rows, const std::vector<S>& x, const std::vector<double>& wanted) {       \
    using D = isa::Direction<inverse, superset>;                                                            \
    std::vector<S> y(x.size(), S{99});                                                                      \
    isa::sum_rows<D>(x.data(), y.data(), n, rows);                                                          \
    compare(#isa " rows", n, inverse, superset, y, wanted);                                                 \
    y = x;                                                                                                  \
    isa::sum_rows<D>(y.data(), y.data(), n, rows);                                                          \
    compare(#isa " in place", n, inverse, superset, y, wanted);                                             \
    std::vector<S> tile(64);                                                                                \
    for (int t = 1; t <= n - 4; ++t) { /* lines of some players, then each line by itself */                \
      const int64_t columns = int64_t{1} << 4, line = int64_t{1} << (n - t);                                \
      tile.resize(columns << t);                                                                            \
      for (int64_t row = 0; row < rows; ++row) {                                                            \
        S* numbers = y.data() + (row << n);                                                                 \
        for (int64_t first = 0; first < line; first += columns) {                                           \
          isa::sum_lines<D>(x.data() + (row << n), numbers, tile.data(), n, t, first, columns);             \
        }                                                                                                   \
        isa::sum_rows<D>(numbers, numbers, n - t, int64_t{1} << t);                                         \
      }                                                                                                     \
      compare(#isa " lines", n, inverse, superset, y, wanted);                                              \
    }                                                                                                       \
  }

PYI_CHECK_ISA(baseline)
#ifdef PYI_WIDE
PYI_CHECK_ISA(avx2)
PYI_CHECK_ISA(avx512)
#endif

template <bool inverse, bool superset, class S>
void check_cpu(int n, int64_t rows) {
  const std::vector<S> x = some_rows<S>(rows << n);
  const std::vector<double> wanted = definition(x, n, inverse, superset);
  baseline_check<inverse, superset>(n, rows, x, wanted);
#ifdef PYI_WIDE
  if (best_isa() >= Isa::avx2) {
    avx2_check<inverse, superset>(n, rows, x, wanted);
  }
  if (best_isa() >= Isa::avx512) {
    avx512_check<inverse, superset>(n, rows, x, wanted);
  }
#endif
}

template <class S>
void check_cpu_rows() {
  for (int n = 0; n <= 13; ++n) {
    for (const int64_t rows : {1, 3}) {
      check_cpu<false, false, S>(n, rows);
      check_cpu<true, false, S>(n, rows);
      check_cpu<false, true, S>(n, rows);
      check_cpu<true, true, S>(n, rows);
    }
  }
}

}  // namespace pyinterp::test

int main() {
  using namespace pyinterp::test;
  check_cpu_rows<float>();
  check_cpu_rows<double>();
  return report("subset_sum");
}
