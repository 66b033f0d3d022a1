// The CUDA kernel of subset_sum, run by on_cuda.h, against the sums straight from their definition.
#include "on_cuda.h"
// After it: the kernel needs its words.
#include "cuda/subset_kernel.cuh"
#include "subset_oracle.h"

namespace pyinterp::test {

template <class Shape, class S, class From, class To>
void run(bool inverse, const cuda::SubsetPass<From, To>& p) {
  const auto kernel =
      inverse ? cuda::subset_kernel<Shape, true, From, To, S> : cuda::subset_kernel<Shape, false, From, To, S>;
  on_cuda::launch(kernel, {cuda::tiles_in<Shape>(p), dim3(Shape::kThreads)}, p);
}

// As subset_sum.cu does it.
template <class Shape, class T>
void check_rows(int n, int64_t rows, bool inverse, bool superset) {
  using S = Wide<T>;
  const std::vector<T> x = some_rows<T>(rows << n);
  std::vector<T> y(x.size());
  std::vector<S> sums(x.size());
  const int64_t count = x.size();
  cuda::Part parts[cuda::kMaxParts];
  const int passes = cuda::parts_of<Shape>(n, parts);
  const bool same = same_in_any_order(
      [&] {
        if (passes == 1) {
          return run<Shape, S>(inverse, cuda::SubsetPass<T, T>{x.data(), y.data(), count, parts[0], superset});
        }
        run<Shape, S>(inverse, cuda::SubsetPass<T, S>{x.data(), sums.data(), count, parts[0], superset});
        for (int i = 1; i + 1 < passes; ++i) {
          run<Shape, S>(inverse, cuda::SubsetPass<S, S>{sums.data(), sums.data(), count, parts[i], superset});
        }
        run<Shape, S>(inverse, cuda::SubsetPass<S, T>{sums.data(), y.data(), count, parts[passes - 1], superset});
      },
      y, sums);
  close([&] { return "in any order n=" + std::to_string(n); }, same, true, 0);
  compare("kernel", n, inverse, superset, y, definition(x, n, inverse, superset));
}

template <class Shape, class T>
void check_ways(int n) {
  const int64_t rows = n < Shape::kPlayers ? (Shape::kSize >> n) + 1 : 1;  // no whole number of tiles
  for (int way = 0; way < 4; ++way) {
    if (Shape::kHeld == 1 || way == n % 4) {  // the smallest blocks show all ways
      check_rows<Shape, T>(n, rows, way % 2, way / 2);
    }
  }
}

template <class Shape>
void check_shape(int most) {
  for (int n = 0; n <= most; ++n) {
    check_ways<Shape, float>(n);
    check_ways<Shape, double>(n);
    if (!kThreadSanitizer) {  // 16-bit numbers go the way of float
      check_ways<Shape, c10::Half>(n);
      check_ways<Shape, c10::BFloat16>(n);
    }
  }
}

// The tiles of a call, of 2^13 numbers: around the players of a thread, of a warp, of a tile.
void check_calls() {
  check_rows<cuda::Shape, float>(14, 1, false, true);
  check_rows<cuda::Shape, double>(13, 1, true, false);
  if (!kThreadSanitizer) {
    check_rows<cuda::Shape, float>(9, 17, true, false);
    check_rows<cuda::Shape, double>(10, 1, false, true);
    check_rows<cuda::Shape, c10::Half>(5, 1, false, false);
    check_rows<cuda::Shape, c10::BFloat16>(4, 1, true, true);
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
  check_parts();
  check_shape<TileShape<1>>(10);  // up to three passes, tiles of 2^7
  check_shape<TileShape<2>>(11);  // tiles of 2^9
  check_calls();
  return report("subset_sum kernel");
}
