// The CUDA kernel of and_or_solve, run by on_cuda.h, against a team of one thread.
#include "on_cuda.h"
// After it: the kernel needs its words.
#include "and_or_problem.h"
#include "cuda/and_or_kernel.cuh"

namespace pyinterp::test {

// `grid` blocks: with fewer than games, a block takes several turns.
void check_games(const Games& games, int64_t grid, unsigned threads, bool fast_in_shared) {
  Found found(games.values.size(), games.bound.size());
  const AndOrPass pass = games.pass(found);
  std::vector<double> space(grid * kAndOrArrays << games.n);
  const on_cuda::Config config{grid, dim3(threads), fast_in_shared ? kFastArrays * sizeof(double) << games.n : 0};
  const auto run = [&] {
    on_cuda::scratch(space);
    on_cuda::launch(cuda::and_or_kernel, config, pass, games.count(), space.data(), fast_in_shared);
  };
  const bool same = same_in_any_order(run, found.and_, found.or_, found.report);
  const std::string side = "block of " + std::to_string(threads);
  close([&] { return side + " in any order"; }, same, true, 0);
  games.compare(side, found);
}

}  // namespace pyinterp::test

int main() {
  using namespace pyinterp::test;
  for (int n = 0; n <= 7; ++n) {  // fewer numbers than threads, as many, more
    check_games(some_games(n, {0.0, 0.1, 100.0}, 4, 4), 2, n % 2 == 0 ? 64 : 96, n % 3 > 0);
  }
  check_games(some_games(3, {0.05, 0.0}, 50, kThreadSanitizer ? 50 : 7), 3, 32, false);  // restarts; an idle block
  check_games(some_games(4, {0.1}, 2, 1), 1, pyinterp::cuda::kTeamThreads, true);
  return report("and_or kernel");
}
