// The loops of every instruction set and the CUDA kernel's body, against the sums straight from their definition.
#include "host_cuda.h"
// After it: the kernel needs its words.
#include <random>
#include <vector>

#include "check.h"
#include "cpu/for_each_isa.h"
#include "cuda/subset_kernel.cuh"

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

// Threads of the host are slow, so most tiles are small.
template <class Shape, class S, class From, class To>
void run(bool inverse, const cuda::SubsetPass<From, To>& p) {
  const auto kernel =
      inverse ? cuda::subset_kernel<Shape, true, From, To, S> : cuda::subset_kernel<Shape, false, From, To, S>;
  host_cuda::launch(kernel, cuda::tiles_in<Shape>(p), dim3(Shape::kThreads), p);
}

// As subset_sum.cu does it.
template <class Shape, class T>
void check_cuda(int n, int64_t rows, bool inverse, bool superset) {
  using S = Wide<T>;
  const std::vector<T> x = some_rows<T>(rows << n);
  std::vector<T> y(x.size());
  std::vector<S> sums(x.size());
  const int64_t count = x.size();
  cuda::Part parts[cuda::kMaxParts];
  const int passes = cuda::parts_of<Shape>(n, parts);
  if (passes == 1) {
    run<Shape, S>(inverse, cuda::SubsetPass<T, T>{x.data(), y.data(), count, parts[0], superset});
  } else {
    run<Shape, S>(inverse, cuda::SubsetPass<T, S>{x.data(), sums.data(), count, parts[0], superset});
    for (int i = 1; i + 1 < passes; ++i) {
      run<Shape, S>(inverse, cuda::SubsetPass<S, S>{sums.data(), sums.data(), count, parts[i], superset});
    }
    run<Shape, S>(inverse, cuda::SubsetPass<S, T>{sums.data(), y.data(), count, parts[passes - 1], superset});
  }
  compare("cuda", n, inverse, superset, y, definition(x, n, inverse, superset));
}

template <class Shape>
void check_shape(int most) {
  for (int n = 0; n <= most; ++n) {
    const int64_t rows = n < Shape::kPlayers ? (Shape::kSize >> n) + 1 : 1;  // no whole number of tiles
    const bool inverse = n % 2, superset = n / 2 % 2;
    check_cuda<Shape, float>(n, rows, inverse, superset);
    check_cuda<Shape, double>(n, rows, !inverse, superset);
    check_cuda<Shape, c10::Half>(n, rows, inverse, !superset);
    check_cuda<Shape, c10::BFloat16>(n, rows, !inverse, !superset);
  }
}

// The parts of a row cover its players once, from the last to the first, in tiles that fit.
void check_parts() {
  for (int n = 0; n <= 28; ++n) {
    cuda::Part parts[cuda::kMaxParts];
    const int count = cuda::parts_of<cuda::Shape>(n, parts);
    int left = n;
    for (int i = 0; i + 1 < count; ++i) {
      const int lines = parts[i].last - parts[i].first;
      close([&] { return "lines of " + std::to_string(n); }, parts[i].apart, left - lines, 0);
      close([&] { return "wide lines of " + std::to_string(n); }, parts[i].first >= 5 && parts[i].last == 13, 1, 0);
      left -= lines;
    }
    close([&] { return "last part of " + std::to_string(n); }, parts[count - 1].last, left, 0);
    close([&] { return "passes of " + std::to_string(n); }, count, n <= 13 ? 1 : n <= 21 ? 2 : 3, 0);
  }
}

}  // namespace pyinterp::test

int main() {
  using namespace pyinterp::test;
  using pyinterp::cuda::TileShape;
  check_cpu_rows<float>();
  check_cpu_rows<double>();
  check_parts();
  check_shape<TileShape<1>>(10);  // up to three passes, tiles of 2^7
  check_shape<TileShape<2>>(11);  // tiles of 2^9
  check_cuda<TileShape<4>, float>(13, 1, true, false);
  check_cuda<TileShape<4>, double>(13, 1, false, true);
  return report("subset_sum");
}
