// The bodies of the CUDA kernels, run on the host by host_cuda.h, against the definition.
#include "host_cuda.h"
// After it: the kernels need its words.
#include "cuda/gate_kernel.cuh"
#include "oracle.h"

namespace pyinterp::test {

template <int act>
struct OpOf {
  using type = cuda::GatedAffine<static_cast<cuda::Act>(act)>;
};
template <>
struct OpOf<kGate> {
  using type = cuda::Gate;
};

template <int act, bool backward, class T>
void run(const cuda::Pass<T>& p, const cuda::Launch& launch) {
  using Op = typename OpOf<act>::type;
  const dim3 block(launch.team, launch.lines);
  const auto kernel = launch.across ? cuda::across_kernel<Op, backward, T> : cuda::along_kernel<Op, backward, T>;
  host_cuda::launch(kernel, launch.grid, block, p);
}

template <class T>
void check_problem(const Problem<T>& problem, int64_t max_grid) {
  using RunFn = void (*)(const cuda::Pass<T>&, const cuda::Launch&);
  constexpr RunFn kForward[] = {
      run<-1, false, T>, run<0, false, T>, run<1, false, T>, run<2, false, T>,
      run<3, false, T>, run<4, false, T>, run<5, false, T>, run<6, false, T>};
  constexpr RunFn kBackward[] = {
      run<-1, true, T>, run<0, true, T>, run<1, true, T>, run<2, true, T>,
      run<3, true, T>, run<4, true, T>, run<5, true, T>, run<6, true, T>};
  std::vector<T> out(problem.x.size());
  cuda::Pass<T> p;
  p.x = problem.x.data();
  p.out = out.data();
  p.scores = problem.scores.data();
  p.scale = problem.scale.data();
  p.shift = problem.shift.data();
  p.group = problem.grouped ? problem.group.data() : nullptr;
  p.groups = problem.groups();
  p.site = problem.site;
  p.sigmoid = problem.sigmoid;
  p.temperature = problem.temperature;
  cuda::Launch launch = cuda::plan(p);
  launch.grid = std::min(launch.grid, max_grid);  // fewer blocks than work: every block takes several turns
  kForward[problem.act + 1](p, launch);
  problem.compare("y", out, problem.y);

  p.dy = problem.dy.data();
  std::vector<Wide<T>> partial(p.site.segments * p.tiles.blocks * p.site.channels, -1);
  std::vector<Wide<T>> grad_scores(problem.scores.size(), -1);
  p.partial = partial.data();
  p.grad_scores = grad_scores.data();
  launch = cuda::plan(p);
  launch.grid = std::min(launch.grid, max_grid);
  kBackward[problem.act + 1](p, launch);
  problem.compare("dx", out, problem.dx);
  host_cuda::launch(cuda::finish_kernel<T>, 2, dim3(cuda::kWarp, cuda::kWarps), p);
  problem.compare_scores(grad_scores);
}

// Threads of the host are slow: every op at a few sites, gate and silu everywhere.
template <class T>
void check_dtype(bool everywhere) {
  int64_t turn = 0;
  for_each_problem<T>([&](const Problem<T>& problem) {
    ++turn;
    const bool chosen = problem.act == kGate || problem.act == 3;
    if ((everywhere && chosen) || turn % 11 == 0) {
      check_problem(problem, 3);
    }
  });
}

}  // namespace pyinterp::test

int main() {
  using namespace pyinterp::test;
  check_dtype<float>(true);
  check_dtype<c10::BFloat16>(false);
  check_dtype<c10::Half>(false);
  check_dtype<double>(false);
  return report("cuda kernels");
}
