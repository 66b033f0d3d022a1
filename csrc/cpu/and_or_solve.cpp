// and_or_solve on the CPU: the games among the threads, each solved by one of them.
#include "../and_or_tensors.h"
#include "for_each_isa.h"

namespace pyinterp::cpu {
namespace {

std::tuple<Tensor, Tensor, Tensor> and_or_solve(
    const Tensor& values, const Tensor& bound, const Tensor& pairs, const Tensor& angles, const Tensor& rounds,
    const Tensor& paths, const Tensor& kinds, const Tensor& inverse, const Tensor& exact, double slack,
    double tolerance, int64_t max_iterations, int64_t check) {
  Games g(values, bound, pairs, angles, rounds, paths, kinds, inverse, exact);
  const AndOrPass pass = g.pass(slack, tolerance, max_iterations, check);
  torch::stable::parallel_for(0, g.games, 1, [&](int64_t begin, int64_t end) {
    PYI_ON_BEST_ISA(solve_games(pass, begin, end))
  });
  return {g.and_, g.or_, g.report};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyinterp, CPU, m) {
  m.impl("and_or_solve", TORCH_BOX(&and_or_solve));
}

}  // namespace pyinterp::cpu
