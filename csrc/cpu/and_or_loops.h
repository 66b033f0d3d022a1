// A team of one thread, and the games that it solves one after the other.
//
// No include guard: for_each_isa.h includes this once per instruction set, inside that set's namespace.

struct Serial {
  static constexpr int kLanes = 8;

  template <class F>
  PYI_HD void each(int64_t count, const F& f) const {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      f(i);
    }
  }

  template <class F>
  PYI_HD void rows(int64_t count, int shift, const F& f) const {
    const int64_t length = int64_t{1} << shift;
    for (int64_t i = 0; i < count; ++i) {
#pragma GCC ivdep
      for (int64_t j = 0; j < length; ++j) {
        f(i, j);
      }
    }
  }

  // Several partial sums, so that no addition waits for the one before.
  template <int k, class F>
  PYI_HD void total(int64_t count, const F& f, double* out) const {
    constexpr int64_t kParts = 4;
    double part[kParts][k] = {};
    int64_t i = 0;
    for (; i + kParts <= count; i += kParts) {
      for (int64_t p = 0; p < kParts; ++p) {
        f(i + p, part[p]);
      }
    }
    for (; i < count; ++i) {
      f(i, part[0]);
    }
    for (int j = 0; j < k; ++j) {
      out[j] = (part[0][j] + part[1][j]) + (part[2][j] + part[3][j]);
    }
  }

  template <class F>
  PYI_HD double largest(int64_t count, const F& f) const {
    double most = 0;
    for (int64_t i = 0; i < count; ++i) {
      const double value = f(i);
      most = value > most ? value : most;
    }
    return most;
  }

  void sum_subsets(double* x, int n) const { sum_row<Direction<false, false>>(x, x, n); }
  void sum_supersets(double* x, int n) const { sum_row<Direction<false, true>>(x, x, n); }
};

inline void solve_games(const AndOrPass& pass, int64_t begin, int64_t end) {
  const std::unique_ptr<double[]> space(new double[int64_t{kAndOrArrays} << pass.n]);
  double* fast = space.get() + (int64_t{kAndOrArrays - kFastArrays} << pass.n);
  const Serial team;
  for (int64_t i = begin; i < end; ++i) {
    AndOrSolver<Serial>(team, pass, i, space.get(), fast).solve(pass, i);
  }
}
