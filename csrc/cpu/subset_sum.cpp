// subset_sum on the CPU: the rows among the threads, or the parts of a long row.
#include <algorithm>
#include <memory>

#include "../subset_tensors.h"
#include "for_each_isa.h"

namespace pyinterp::cpu {
namespace {

constexpr int64_t kCacheBytes = 1 << 19;  // half of an L2 cache: what fits is finished there
constexpr int64_t kTileNumbers = 8192;    // a tile, or a bundle of short rows, fits an L1 cache
constexpr int64_t kGrainNumbers = 32768;  // with fewer numbers a second thread costs more than it saves
constexpr int kSharedPlayers = 5;         // a row that threads share is cut into 2^5 parts,
constexpr int kLeastPlayers = 12;         // but not into parts of fewer players than this
constexpr int kMostPlayers = 8;           // of one pass over memory: 2^8 lines of kTileNumbers / 2^8 numbers

int log2_of(int64_t count) {
  int n = 0;
  while (int64_t{1} << n < count) {
    ++n;
  }
  return n;
}

template <bool inverse, bool superset, class S>
struct Sums {
  const S* in;
  S* out;
  int64_t rows;
  int n;

  void run() const {
    const int64_t threads = torch::stable::get_num_threads();
    const bool shared = rows < threads && int64_t{1} << n >= kGrainNumbers;
    if (!shared && int64_t{1} << n <= kCacheBytes / static_cast<int64_t>(sizeof(S))) {
      return bundles();
    }
    if (shared) {
      for (int64_t row = 0; row < rows; ++row) {
        long_row(row, [](int64_t count, const auto& f) { torch::stable::parallel_for(0, count, 1, f); });
      }
      return;
    }
    torch::stable::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        long_row(row, [](int64_t count, const auto& f) { f(0, count); });
      }
    });
  }

  // Rows that fit a cache, several short ones at a time.
  void bundles() const {
    const int64_t bundle = std::max<int64_t>(1, kTileNumbers >> n);
    const int64_t grain = ceil_div(kGrainNumbers, bundle << n);
    torch::stable::parallel_for(0, ceil_div(rows, bundle), grain, [&](int64_t begin, int64_t end) {
      const int64_t first = begin * bundle, some = std::min(end * bundle, rows) - first;
      PYI_ON_BEST_ISA((sum_rows<Direction<inverse, superset>>(in + (first << n), out + (first << n), n, some)))
    });
  }

  // A row beyond the caches, or shared by the threads: the last players first, some in one pass over memory, until its
  // parts fit a cache. `for_units(count, f)` covers 0 ... count by calls of f(begin, end).
  template <class F>
  void long_row(int64_t row, const F& for_units) const {
    const int fitting = log2_of(kCacheBytes / sizeof(S));
    const int part = std::min(fitting, std::max(kLeastPlayers, n - kSharedPlayers));
    const S* given = in + (row << n);
    S* sums = out + (row << n);
    int left = n;
    while (left > part) {
      const int passes = static_cast<int>(ceil_div(left - part, kMostPlayers));
      const int t = static_cast<int>(ceil_div(left - part, passes));
      pass(given, sums, left, t, for_units);
      given = sums;
      left -= t;
    }
    for_units(int64_t{1} << (n - left), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        S* numbers = sums + (i << left);
        PYI_ON_BEST_ISA((sum_row<Direction<inverse, superset>>(numbers, numbers, left)))
      }
    });
  }

  // The last t players of every part of 2^left numbers.
  template <class F>
  void pass(const S* given, S* sums, int left, int t, const F& for_units) const {
    const int64_t line = int64_t{1} << (left - t), columns = std::min(kTileNumbers >> t, line);
    const int64_t units = line / columns;
    for_units(units << (n - left), [&](int64_t begin, int64_t end) {
      const std::unique_ptr<S[]> tile(new S[kTileNumbers]);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t start = (i / units) << left, first = i % units * columns;
        PYI_ON_BEST_ISA((sum_lines<Direction<inverse, superset>>(
            given + start, sums + start, tile.get(), left, t, first, columns)))
      }
    });
  }
};

template <class S>
void sum(const S* in, S* out, int64_t rows, int n, bool inverse, bool superset) {
  if (inverse) {
    superset ? Sums<true, true, S>{in, out, rows, n}.run() : Sums<true, false, S>{in, out, rows, n}.run();
  } else {
    superset ? Sums<false, true, S>{in, out, rows, n}.run() : Sums<false, false, S>{in, out, rows, n}.run();
  }
}

template <class From, class To>
void convert_all(const From* in, To* out, int64_t count) {
  torch::stable::parallel_for(0, count, kGrainNumbers, [&](int64_t begin, int64_t end) {
    PYI_ON_BEST_ISA((convert(in + begin, out + begin, end - begin)))
  });
}

Tensor subset_sum(const Tensor& values, bool inverse, bool superset) {
  SubsetRows call(values);
  const int64_t rows = call.rows;
  const int n = call.n;
  for_each_dtype(call.x, [&](auto number) {
    using T = decltype(number);
    const T* in = call.x.const_data_ptr<T>();
    T* out = call.y.mutable_data_ptr<T>();
    if constexpr (std::is_same_v<T, Wide<T>>) {
      sum(in, out, rows, n, inverse, superset);
    } else {  // as many float32 rows at a time as the caches take
      const int64_t fitting = kCacheBytes / 4 * torch::stable::get_num_threads() >> n;
      const int64_t bundle = std::clamp<int64_t>(fitting, 1, std::max<int64_t>(rows, 1));
      const std::unique_ptr<float[]> wide(new float[bundle << n]);
      for (int64_t row = 0; row < rows; row += bundle) {
        const int64_t some = std::min(bundle, rows - row);
        convert_all(in + (row << n), wide.get(), some << n);
        sum<float>(wide.get(), wide.get(), some, n, inverse, superset);
        convert_all(wide.get(), out + (row << n), some << n);
      }
    }
  });
  return call.y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyinterp, CPU, m) {
  m.impl("subset_sum", TORCH_BOX(&subset_sum));
}

}  // namespace pyinterp::cpu
