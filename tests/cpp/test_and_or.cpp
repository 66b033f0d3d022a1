// and_or_solve for one thread of a CPU: a game whose least sum of effects is known, and others step by step.
#include "and_or_problem.h"
#include "cpu/for_each_isa.h"

namespace pyinterp::test {

Found solve(const Games& games) {
  Found found(games.values.size(), games.bound.size());
  const AndOrPass pass = games.pass(found);
  PYI_ON_BEST_ISA(solve_games(pass, 0, games.count()))
  return found;
}

void check_planted() {
  // v = 5 + [player 0 or 1 is there] + 2 [all three are]: one OR and one AND effect.
  const Found found = solve({3, {5, 6, 6, 6, 5, 6, 6, 8}, {0.0}, 100, 25});
  const auto same = [](const char* name, double got, double wanted, double tolerance) {
    close([&] { return std::string(name); }, got, wanted, tolerance);
  };
  same("report[0]", found.report[0], 3, 3e-3);
  same("report[1]", found.report[1], 3, 3e-3);
  same("and_[0]", found.and_[0], 5, 1e-12);
  same("or_[3]", found.or_[3], 1, 1e-2);
  same("and_[7]", found.and_[7], 2, 1e-2);
}

}  // namespace pyinterp::test

int main() {
  using namespace pyinterp::test;
  check_planted();
  for (int n = 0; n <= 5; ++n) {
    for (const int64_t check : {9, 60}) {
      const Games games = some_games(n, {0.0, 0.1, 100.0}, 60, check);
      games.compare("cpu", solve(games));
    }
  }
  return report("and_or");
}
