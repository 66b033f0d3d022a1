// Sparse AND and OR effects of one game: the iteration of pyinterp/ops/_and_or.py, for any team of threads.
//
// No include guard, as in gate.h: CPU code includes this once per instruction set, inside that set's namespace.
//
// A Team shares the work of one game. It gives
//   each(count, f)         f(i) for i < count, in any order; all of it is done before each returns
//   rows(count, shift, f)  f(i, j) for i < count, j < 2^shift, likewise; no two calls touch the same numbers
//   kLanes                 how many blocks of the Schur basis one thread multiplies side by side
//   total<k>(count, f, out)  out[0..k) = sums over i < count of what f(i, part) adds to part[0..k)
//   largest(count, f)      the largest f(i)
//   sum_subsets(x, n), sum_supersets(x, n)   in place, for 2^n numbers
// and every thread of the team gets the same results.

// The near point: what the sizes of effects (kinds 0, AND, and 1, OR) and the bound of the noise term (kind 2, in units
// of 1 / root) make of a number.
struct Near {
  double step, width;

  template <int kind>
  PYI_HD double of(double value) const {
    return kind < 2 ? (value > step ? value - step : (value < -step ? value + step : 0)) : clip(value, width);
  }

  static PYI_HD double clip(double value, double most) { return value > most ? most : (value < -most ? -most : value); }
};

template <class Team>
struct AndOrSolver {
  const Team& team;
  const SchurTables& tables;
  int n;
  int64_t size;
  double bound, slack, root;
  Near near;
  double *goal, *multiplier, *x, *y;  // x and y: where transforms happen
  double *state[3], *anchor[3], *trial[2];

  // `space` holds kAndOrArrays - kFastArrays arrays, `fast` the others.
  PYI_HD AndOrSolver(const Team& with, const AndOrPass& pass, int64_t index, double* space, double* fast)
      : team(with), tables(pass.tables), n(pass.n), size(int64_t{1} << pass.n), bound(pass.bound[index]),
        slack(bound > 0 ? pass.slack : 0), root(sqrt(slack)), near{0, 0} {
    goal = space;
    multiplier = space + size;
    for (int k = 0; k < 3; ++k) {
      state[k] = space + (2 + k) * size;
      anchor[k] = space + (5 + k) * size;
    }
    trial[0] = space + 8 * size;
    trial[1] = space + 9 * size;
    x = fast;
    y = fast + size;
  }

  // x <- blocks applied to x, in the Schur basis and back.
  PYI_HD void invert(const double* blocks) const {
    for (int k = 0; k < n; ++k) {
      rotate(k, 1);
    }
    for (int q = 0; q <= n / 2; ++q) {
      const int64_t* kind = tables.kinds + 4 * q;
      const int64_t d = kind[0];
      const int32_t* paths = tables.paths + kind[2];
      const double* matrix = blocks + kind[3];
      double* numbers = x;
      constexpr int kLanes = Team::kLanes;
      const int64_t count = kind[1];
      team.each((count + kLanes - 1) / kLanes, [=](int64_t group) {
        double in[kMaxBlock][kLanes];
        const int64_t first = group * kLanes;
        const int lanes = count - first < kLanes ? static_cast<int>(count - first) : kLanes;
        const int32_t* at = paths + first * d;
        for (int64_t j = 0; j < d; ++j) {
          for (int lane = 0; lane < kLanes; ++lane) {
            in[j][lane] = lane < lanes ? numbers[at[lane * d + j]] : 0;
          }
        }
        for (int64_t i = 0; i < d; ++i) {
          double out[kLanes] = {};
          for (int64_t j = 0; j < d; ++j) {
            for (int lane = 0; lane < kLanes; ++lane) {
              out[lane] += matrix[i * d + j] * in[j][lane];
            }
          }
          for (int lane = 0; lane < lanes; ++lane) {
            numbers[at[lane * d + i]] = out[lane];
          }
        }
      });
    }
    for (int k = n - 1; k >= 0; --k) {
      rotate(k, -1);
    }
    team.each(1, [numbers = x](int64_t) { numbers[0] = 0; });
  }

  PYI_HD void rotate(int k, double sign) const {
    const int64_t first = tables.rounds[k];
    const int32_t* pairs = tables.pairs + 2 * first;
    const double* angles = tables.angles + 2 * first;
    const int shift = n - k - 1;
    double* numbers = x;
    team.rows(tables.rounds[k + 1] - first, shift, [=](int64_t pair, int64_t j) {
      const double cosine = angles[2 * pair], sine = sign * angles[2 * pair + 1];
      double& a = numbers[(int64_t{pairs[2 * pair]} << shift) + j];
      double& b = numbers[(int64_t{pairs[2 * pair + 1]} << shift) + j];
      const double was = a;
      a = cosine * was + sine * b;
      b = cosine * b - sine * was;
    });
  }

  // f(i) for the non-empty subsets. The empty one has no effect: goal, multiplier, state and anchor are 0 there.
  template <class F>
  PYI_HD void others(const F& f) const {
    team.each(size - 1, [&](int64_t i) { f(i + 1); });
  }

  template <int k, class F>
  PYI_HD void total(const F& f, double* out) const {
    team.template total<k>(size - 1, [&](int64_t i, double* part) { f(i + 1, part); }, out);
  }

  // x, y hold AND and OR effects, zero at the empty set; x <- what they give at every subset.
  PYI_HD void fit() const {
    double sum[1];
    double* a = x;
    const double* o = y;
    total<1>([=](int64_t i, double* part) { part[0] += o[i]; }, sum);
    team.sum_subsets(x, n);
    team.sum_subsets(y, n);
    const double all = sum[0];
    const int64_t last = size - 1;
    others([=](int64_t i) { a[i] += all - o[last - i]; });
  }

  // x holds a multiplier, zero at the empty set; slope(k, i, what this returns) is its slope along effect i of kind k.
  PYI_HD double pull() const {
    double sum[1];
    const double* a = x;
    double* o = y;
    total<1>([=](int64_t i, double* part) { part[0] += a[i]; }, sum);
    team.each(size, [=](int64_t i) { o[i] = a[i]; });
    team.sum_supersets(x, n);
    team.sum_subsets(y, n);
    return sum[0];
  }

  template <int kind>
  PYI_HD double slope(int64_t i, double all) const { return kind == 0 ? x[i] : all - y[size - 1 - i]; }

  // How far the state is from where the projection of the reflected near point would have it.
  template <int kind>
  PYI_HD double move(int64_t i, double all) const {
    const double back = near.template of<kind>(state[kind][i]) - state[kind][i];
    return back + (kind < 2 ? slope<kind>(i, all) : -root * multiplier[i]);
  }

  // Adds to the effects in `trial` the smallest change that brings them within the bound of the goal. Twice, because the
  // first projection rounds. Says whether there was anything to change.
  PYI_HD bool repair() const {
    for (int time = 0; time < 2; ++time) {
      team.each(size, [this](int64_t i) {
        x[i] = trial[0][i];
        y[i] = trial[1][i];
      });
      fit();
      others([this](int64_t i) {
        const double off = x[i] - goal[i];
        x[i] = Near::clip(off, bound) - off;
      });
      if (time == 0 && bound > 0 && team.largest(size, [this](int64_t i) { return fabs(x[i]); }) == 0) {
        return false;
      }
      invert(tables.exact);
      const double all = pull();
      others([this, all](int64_t i) {
        trial[0][i] += slope<0>(i, all);
        trial[1][i] += slope<1>(i, all);
      });
    }
    return true;
  }

  PYI_HD double size_of_trial() const {
    double sum[1];
    total<1>([this](int64_t i, double* part) { part[0] += fabs(trial[0][i]) + fabs(trial[1][i]); }, sum);
    return sum[0];
  }

  PYI_HD void keep_trial(double* and_, double* or_) const {
    others([=, this](int64_t i) {
      and_[i] = trial[0][i];
      or_[i] = trial[1][i];
    });
  }

  // Starts where the equations hold with the least sum of squares.
  PYI_HD void start() {
    team.each(size, [this](int64_t i) {
      x[i] = goal[i];
      for (int k = 0; k < 3; ++k) {
        state[k][i] = anchor[k][i] = 0;
      }
    });
    invert(tables.exact);
    const double all = pull();
    double sum[1];
    total<1>(
        [this, all](int64_t i, double* part) { part[0] += fabs(slope<0>(i, all)) + fabs(slope<1>(i, all)); }, sum);
    near.step = sum[0] / (2.0 * static_cast<double>(size));
    others([this, all](int64_t i) {
      state[0][i] = anchor[0][i] = slope<0>(i, all);
      state[1][i] = anchor[1][i] = slope<1>(i, all);
    });
  }

  // The multiplier of the projection of twice the near point less the state; returns what slope() needs.
  PYI_HD double reflect() const {
    double *a = x, *o = y;
    const double *s0 = state[0], *s1 = state[1], *s2 = state[2], *wanted = goal;
    const double scale = root;
    const Near by = near;
    team.each(size, [=](int64_t i) {
      a[i] = 2 * by.template of<0>(s0[i]) - s0[i];
      o[i] = 2 * by.template of<1>(s1[i]) - s1[i];
    });
    fit();
    others([=](int64_t i) { a[i] = wanted[i] - a[i] + scale * (2 * by.template of<2>(s2[i]) - s2[i]); });
    invert(slack > 0 ? tables.inverse : tables.exact);
    double* kept = multiplier;
    team.each(size, [=](int64_t i) { kept[i] = a[i]; });
    return pull();
  }

  PYI_HD double length_of_move(double all) const {
    double sum[1];
    total<1>(
        [this, all](int64_t i, double* part) {
          const double d0 = move<0>(i, all), d1 = move<1>(i, all), d2 = move<2>(i, all);
          part[0] += d0 * d0 + d1 * d1 + d2 * d2;
        },
        sum);
    return sqrt(sum[0]);
  }

  // Twice the move, drawn back towards the anchor by `share`.
  template <int kind>
  PYI_HD void advance(double all, double share) const {
    double* own = state[kind];
    const double *from = anchor[kind], *last = y + (size - 1), *kept = kind == 0 ? x : multiplier;
    const double scale = root;
    const Near by = near;
    others([=](int64_t i) {
      const double given = kind == 0 ? kept[i] : (kind == 1 ? all - last[-i] : -scale * kept[i]);
      const double next = 2 * (by.template of<kind>(own[i]) + given) - own[i];
      own[i] = next + share * (from[i] - next);
    });
  }

  // A lower bound of the objective: the multiplier, scaled to be feasible in the dual problem. It tells what the bound is
  // worth, too, and so how much of it may be left unused.
  PYI_HD double reached(double all, double tolerance) {
    const double steepest = team.largest(size - 1, [this, all](int64_t i) {
      const double a = fabs(slope<0>(i + 1, all)), o = fabs(slope<1>(i + 1, all));
      return a > o ? a : o;
    });
    double sum[2];
    total<2>(
        [this](int64_t i, double* part) {
          part[0] += goal[i] * multiplier[i];
          part[1] += fabs(multiplier[i]);
        },
        sum);
    const double worth = bound * sum[1], gained = sum[0] - worth;
    if (gained > 0 && worth > 0) {
      leave(tolerance * (gained < 2 * worth ? gained / (2 * worth) : 1));
    }
    return gained / (steepest > near.step ? steepest : near.step);
  }

  // Adds the squares of how far the near point (part[0]) and the rest (part[1]) went since the last restart.
  template <int kind>
  PYI_HD void add_way(int64_t i, double* part) const {
    const double z = near.template of<kind>(state[kind][i]), was = near.template of<kind>(anchor[kind][i]);
    const double dual = (state[kind][i] - z) - (anchor[kind][i] - was);
    part[0] += (z - was) * (z - was);
    part[1] += dual * dual;
  }

  template <int kind>
  PYI_HD void scale_dual(int64_t i, double ratio) const {
    const double z = near.template of<kind>(state[kind][i]);
    state[kind][i] = anchor[kind][i] = z + (state[kind][i] - z) * ratio;
  }

  // The iteration keeps off the bound by this share of it: its points, which are sparse, then need no repair at the end.
  PYI_HD void leave(double share) { near.width = slack > 0 ? (1 - fmin(share, 0.1)) * bound / root : 0; }

  // Weighs primal against dual steps anew, by how far each went, and restarts from here.
  PYI_HD void restart(double least, double most) {
    double sum[2];
    total<2>(
        [this](int64_t i, double* part) {
          add_way<0>(i, part);
          add_way<1>(i, part);
          add_way<2>(i, part);
        },
        sum);
    double better = near.step;
    if (sum[0] > 0 && sum[1] > 0) {
      better *= sqrt(sqrt(sum[0] / sum[1]));
      better = better < least ? least : (better > most ? most : better);
    }
    const double ratio = better / near.step;
    others([this, ratio](int64_t i) {
      scale_dual<0>(i, ratio);
      scale_dual<1>(i, ratio);
      scale_dual<2>(i, ratio);
    });
    near.step = better;
  }

  // Writes the effects of game `index` and {objective, lower bound, iterations}.
  PYI_HD void solve(const AndOrPass& pass, int64_t index) {
    const double* values = pass.values + index * size;
    double *and_ = pass.and_ + index * size, *or_ = pass.or_ + index * size, *report = pass.report + 3 * index;
    const double offset = values[0];
    team.each(size, [=, this](int64_t i) {
      goal[i] = values[i] - offset;
      and_[i] = i == 0 ? offset : 0;
      or_[i] = 0;
    });
    double objective = 0, lower = 0;
    int64_t iteration = 0;
    if (team.largest(size, [this](int64_t i) { return fabs(goal[i]); }) > bound) {
      start();
      leave(pass.tolerance / 2);
      const double least = near.step / 30, most = near.step * 30;
      double first = 0, last = 0;
      int64_t since = 0;
      int64_t proven = 0;  // when the tolerance was reached: from then on, as long again may go into a sparse point
      for (iteration = 1; iteration <= pass.max_iterations; ++iteration) {
        const bool checked = iteration % pass.check == 0 || iteration == pass.max_iterations;
        bool repaired = true;
        double now = 0;
        if (checked) {
          team.each(size, [this](int64_t i) {
            trial[0][i] = near.template of<0>(state[0][i]);
            trial[1][i] = near.template of<1>(state[1][i]);
          });
          repaired = repair();
          now = size_of_trial();
          if (iteration <= pass.check || now < objective) {
            objective = now;
            keep_trial(and_, or_);
          }
        }
        const double all = reflect();
        if (checked) {
          lower = fmax(lower, reached(all, pass.tolerance));
          if (!repaired && now - lower <= pass.tolerance * now) {
            objective = now;
            keep_trial(and_, or_);
            break;
          }
          if (objective - lower <= pass.tolerance * objective) {
            proven = proven > 0 ? proven : iteration;
            if (slack == 0 || iteration >= 2 * proven) {
              break;
            }
          }
        }
        const double length = length_of_move(all);  // restarts as in _and_or.py
        if (since == 0) {
          first = length;
        } else if (
            length <= 0.2 * first || (last < length && length <= 0.8 * first) ||
            static_cast<double>(since) > fmax(50.0, 0.36 * static_cast<double>(iteration))) {
          restart(least, most);
          since = 0;
          continue;
        }
        const double share = 1.0 / static_cast<double>(since + 2);
        advance<0>(all, share);
        advance<1>(all, share);
        advance<2>(all, share);
        ++since;
        last = length;
      }
      iteration = iteration > pass.max_iterations ? pass.max_iterations : iteration;
    }
    team.each(1, [=](int64_t) {
      report[0] = objective;
      report[1] = lower;
      report[2] = static_cast<double>(iteration);
    });
  }
};
