// The CUDA kernels of softmax_residual_, run by on_cuda.h, against the definition.
#include <limits>

#include "on_cuda.h"
// After it: the kernel needs its words.
#include "cuda/softmax_kernel.cuh"
#include "softmax_problem.h"

namespace pyinterp::test {

// Two blocks, so that they take several turns where rows are many.
template <int warps, int items, class S>
void check_team(const Problem<S>& p, unsigned rows_at_once) {
  const std::string side = "kernel " + std::to_string(warps) + " x " + std::to_string(items);
  std::vector<S> x(p.logits), losses(p.rows, S{99});
  const cuda::SoftmaxPass<S> pass{x.data(), p.labels.data(), p.weight(), losses.data(), p.rows, p.classes};
  const auto run = [&] {
    on_cuda::launch(cuda::softmax_kernel<S, warps, items>, {2, dim3(32 * warps, rows_at_once)}, pass);
  };
  close([&] { return side + " in any order"; }, same_in_any_order(run, x, losses), true, 0);
  p.compare(side, x, losses);
}

// In the shape of a call.
template <class S>
void check_call(int64_t rows, int64_t classes) {
  const Problem<S> p(rows, classes, classes % 2 == 0, S{20});
  cuda::with_team(classes, [&](auto team) {
    using Team = decltype(team);
    check_team<Team::kWarps, Team::kItems>(p, Team::kRows);
  });
}

template <class S>
void check_all() {
  for (const int64_t classes : {1, 2, 31, 32, 33, 64, 65, 127, 200}) {  // within and beyond what the threads hold
    const Problem<S> p(5, classes, classes % 2 == 1, S{20});
    check_team<1, 1>(p, 2);
    check_team<1, 4>(p, 1);
    check_team<2, 2>(p, 1);
  }
  const S none = std::numeric_limits<S>::quiet_NaN(), infinite = std::numeric_limits<S>::infinity();
  for (const int64_t classes : {3, 65, 200}) {  // in registers, and beyond what the threads hold
    const int64_t last = classes - 1, second = classes, third = 2 * classes;
    const Problem<S> plain(5, classes, true, S{0});
    const Problem<S> p = plain.with({{0, none}, {second + last, infinite}, {third + last, -infinite}, {third, -infinite}});
    check_team<1, 1>(p, 2);
    check_team<1, 4>(p, 1);
    check_team<2, 2>(p, 1);
  }
  for (const int64_t classes : {1, 32, 33, 128, 129, 512, 513, 2048, 2049}) {
    check_call<S>(classes < 513 ? 17 : 3, classes);
  }
}

}  // namespace pyinterp::test

int main() {
  using namespace pyinterp::test;
  check_all<float>();
  check_all<double>();
  return report("softmax_residual_ kernel");
}
