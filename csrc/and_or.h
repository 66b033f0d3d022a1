// Sparse AND and OR effects of one game: the iteration of pyinterp/ops/_and_or.py, for any team of threads.
//
// No include guard, as in gate.h: CPU code includes this once per instruction set, inside that set's namespace.
//
// A Team shares the work of one game. It gives
//   each(count, f)         f(i) for i < count, in any order; all of it is done before each returns
//   rows(count, shift, f)  f(i, j) for i < count, j < 2^shift, likewise; no two calls touch the same numbers
//   total<k>(count, f, out)  out[0..k) = sums over i < count of what f(i, part) adds to part[0..k)
//   largest(count, f)      the largest f(i)
//   sum_subsets(x, n), sum_supersets(x, n)   in place, for 2^n numbers
// and every thread of the team gets the same results.

template <class Team>
struct AndOrSolver {
  const Team& team;
  const SchurTables& tables;
  int n;
  int64_t size;
  double bound, slack, root, width, step;
  double *goal, *multiplier, *x, *y;  // x and y: where transforms happen
  double *state[3], *anchor[3], *trial[2];

  // `space` holds kAndOrArrays - kFastArrays arrays, `fast` the others.
  PYI_HD AndOrSolver(const Team& with, const AndOrPass& pass, int64_t index, double* space, double* fast)
      : team(with), tables(pass.tables), n(pass.n), size(int64_t{1} << pass.n), bound(pass.bound[index]),
        slack(bound > 0 ? pass.slack : 0), root(sqrt(slack)), width(slack > 0 ? bound / root : 0), step(0) {
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

  PYI_HD double shrink(double value) const {
    return value > step ? value - step : (value < -step ? value + step : 0);
  }

  PYI_HD double clip(double value, double most) const {
    return value > most ? most : (value < -most ? -most : value);
  }

  // The sparse point: effect i of kind k (0 AND, 1 OR), or the noise term (2) in units of 1 / root.
  PYI_HD double near(double value, int k) const { return k < 2 ? shrink(value) : clip(value, width); }

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
      team.each(kind[1], [=](int64_t path) {
        double in[kMaxBlock];
        const int32_t* at = paths + path * d;
        for (int64_t j = 0; j < d; ++j) {
          in[j] = numbers[at[j]];
        }
        for (int64_t i = 0; i < d; ++i) {
          double out = 0;
          for (int64_t j = 0; j < d; ++j) {
            out += matrix[i * d + j] * in[j];
          }
          numbers[at[i]] = out;
        }
      });
    }
    for (int k = n - 1; k >= 0; --k) {
      rotate(k, -1);
    }
    clear(x);
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

  PYI_HD void clear(double* numbers) const {
    team.each(1, [=](int64_t) { numbers[0] = 0; });
  }

  // x, y hold AND and OR effects, zero at the empty set; x <- what they give at every subset.
  PYI_HD void fit() const {
    double sum[1];
    team.template total<1>(size, [this](int64_t i, double* part) { part[0] += y[i]; }, sum);
    team.sum_subsets(x, n);
    team.sum_subsets(y, n);
    const double all = sum[0];
    team.each(size, [this, all](int64_t i) { x[i] = i == 0 ? 0 : x[i] + (all - y[size - 1 - i]); });
  }

  // x holds a multiplier, zero at the empty set; slope(k, i, what this returns) is its slope along effect i of kind k.
  PYI_HD double pull() const {
    double sum[1];
    double *a = x, *o = y;
    team.template total<1>(size, [=](int64_t i, double* part) { part[0] += a[i]; }, sum);
    team.each(size, [=](int64_t i) { o[i] = a[i]; });
    team.sum_supersets(x, n);
    team.sum_subsets(y, n);
    return sum[0];
  }

  PYI_HD double slope(int k, int64_t i, double all) const {
    return i == 0 ? 0 : (k == 0 ? x[i] : all - y[size - 1 - i]);
  }

  // Adds to the effects in `trial` the smallest change that brings them within the bound of the goal; returns the sum
  // of their sizes. Twice, because the first projection rounds.
  PYI_HD double repair() const {
    for (int time = 0; time < 2; ++time) {
      team.each(size, [this](int64_t i) {
        x[i] = trial[0][i];
        y[i] = trial[1][i];
      });
      fit();
      team.each(size, [this](int64_t i) {
        const double given = x[i];
        x[i] = i == 0 ? 0 : goal[i] + clip(given - goal[i], bound) - given;
      });
      invert(tables.exact);
      const double all = pull();
      team.each(size, [this, all](int64_t i) {
        trial[0][i] += slope(0, i, all);
        trial[1][i] += slope(1, i, all);
      });
    }
    double sum[1];
    team.template total<1>(
        size, [this](int64_t i, double* part) { part[0] += fabs(trial[0][i]) + fabs(trial[1][i]); }, sum);
    return sum[0];
  }

  // Starts where the equations hold with the least sum of squares.
  PYI_HD void start() {
    team.each(size, [this](int64_t i) { x[i] = goal[i]; });
    invert(tables.exact);
    const double all = pull();
    double sum[1];
    team.template total<1>(
        size, [this, all](int64_t i, double* part) { part[0] += fabs(slope(0, i, all)) + fabs(slope(1, i, all)); },
        sum);
    step = sum[0] / (2.0 * static_cast<double>(size));
    team.each(size, [this, all](int64_t i) {
      for (int k = 0; k < 3; ++k) {
        state[k][i] = anchor[k][i] = k < 2 ? slope(k, i, all) : 0;
      }
    });
  }

  // The multiplier of the projection of twice the near point less the state; returns what slope() needs.
  PYI_HD double reflect() const {
    team.each(size, [this](int64_t i) {
      x[i] = 2 * near(state[0][i], 0) - state[0][i];
      y[i] = 2 * near(state[1][i], 1) - state[1][i];
    });
    fit();
    team.each(size, [this](int64_t i) {
      const double ahead = 2 * near(state[2][i], 2) - state[2][i];
      x[i] = i == 0 ? 0 : goal[i] - x[i] + root * ahead;
    });
    invert(slack > 0 ? tables.inverse : tables.exact);
    team.each(size, [this](int64_t i) { multiplier[i] = x[i]; });
    return pull();
  }

  PYI_HD double move(int k, int64_t i, double all) const {
    const double back = near(state[k][i], k) - state[k][i];
    return back + (k < 2 ? slope(k, i, all) : -root * multiplier[i]);
  }

  // A lower bound of the objective: the multiplier, scaled to be feasible in the dual problem.
  PYI_HD double reached(double all) const {
    const double steepest = team.largest(size, [this, all](int64_t i) {
      const double a = fabs(slope(0, i, all)), o = fabs(slope(1, i, all));
      return a > o ? a : o;
    });
    double sum[2];
    team.template total<2>(
        size,
        [this](int64_t i, double* part) {
          part[0] += goal[i] * multiplier[i];
          part[1] += fabs(multiplier[i]);
        },
        sum);
    return (sum[0] - bound * sum[1]) / (steepest > step ? steepest : step);
  }

  // Weighs primal against dual steps anew, by how far each went since the last restart, and restarts from here.
  PYI_HD void restart(double least, double most) {
    double sum[2];
    team.template total<2>(
        size,
        [this](int64_t i, double* part) {
          for (int k = 0; k < 3; ++k) {
            const double z = near(state[k][i], k), was = near(anchor[k][i], k);
            const double dual = (state[k][i] - z) - (anchor[k][i] - was);
            part[0] += (z - was) * (z - was);
            part[1] += dual * dual;
          }
        },
        sum);
    double better = step;
    if (sum[0] > 0 && sum[1] > 0) {
      better = step * sqrt(sqrt(sum[0] / sum[1]));
      better = better < least ? least : (better > most ? most : better);
    }
    const double ratio = better / step;
    team.each(size, [this, ratio](int64_t i) {
      for (int k = 0; k < 3; ++k) {
        const double z = near(state[k][i], k);
        state[k][i] = anchor[k][i] = z + (state[k][i] - z) * ratio;
      }
    });
    step = better;
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
      const double least = step / 30, most = step * 30;
      double first = 0, last = 0;
      int64_t since = 0;
      bool found = false;
      for (iteration = 1; iteration <= pass.max_iterations; ++iteration) {
        const bool checked = iteration % pass.check == 0 || iteration == pass.max_iterations;
        if (checked) {
          team.each(size, [this](int64_t i) {
            trial[0][i] = near(state[0][i], 0);
            trial[1][i] = near(state[1][i], 1);
          });
          const double size_of_trial = repair();
          if (!found || size_of_trial < objective) {
            found = true;
            objective = size_of_trial;
            team.each(size, [=, this](int64_t i) {
              and_[i] = i == 0 ? offset : trial[0][i];
              or_[i] = trial[1][i];
            });
          }
        }
        const double all = reflect();
        if (checked) {
          const double bound_now = reached(all);
          lower = bound_now > lower ? bound_now : lower;
          if (objective - lower <= pass.tolerance * objective) {
            break;
          }
        }
        double sum[1];
        team.template total<1>(
            size,
            [this, all](int64_t i, double* part) {
              for (int k = 0; k < 3; ++k) {
                const double d = move(k, i, all);
                part[0] += d * d;
              }
            },
            sum);
        const double length = sqrt(sum[0]);
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
        team.each(size, [this, all, share](int64_t i) {
          for (int k = 0; k < 3; ++k) {
            const double next = state[k][i] + 2 * move(k, i, all);
            state[k][i] = next + share * (anchor[k][i] - next);
          }
        });
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
