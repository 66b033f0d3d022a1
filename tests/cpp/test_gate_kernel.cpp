// The CUDA kernels of gate and gated_affine, run by on_cuda.h, against the definition.
#include "on_cuda.h"
// After it: the kernels need its words.
#include <set>

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
  const auto kernel = launch.across ? cuda::across_kernel<Op, backward, T> : cuda::along_kernel<Op, backward, T>;
  on_cuda::launch(kernel, {launch.grid, dim3(launch.team, launch.lines)}, p);
}

// Calls f with the op as a constant. What threads do to each other is the same for every op: two are enough for the
// thread sanitizer, which is slow.
template <class F>
void with_act(int act, const F& f) {
  switch (act) {
    case kGate:
      return f(std::integral_constant<int, kGate>{});
    case 3:
      return f(std::integral_constant<int, 3>{});
#if !defined(PYI_THREAD_SANITIZER)
    case 0:
      return f(std::integral_constant<int, 0>{});
    case 1:
      return f(std::integral_constant<int, 1>{});
    case 2:
      return f(std::integral_constant<int, 2>{});
    case 4:
      return f(std::integral_constant<int, 4>{});
    case 5:
      return f(std::integral_constant<int, 5>{});
    case 6:
      return f(std::integral_constant<int, 6>{});
#endif
  }
}

// What a problem leaves open: whether dx is wanted, and which tensor starts one element after a 16-byte boundary.
enum class Shift { none, x, dy, out };
struct Way {
  bool need_x;
  Shift shift;

  int64_t of(Shift tensor) const { return shift == tensor ? 1 : 0; }
};

template <class T>
std::vector<T> shifted(const std::vector<T>& values, int64_t shift) {
  std::vector<T> all(shift);
  all.insert(all.end(), values.begin(), values.end());
  all.shrink_to_fit();  // a read past the end is one past the allocation
  return all;
}

template <int act, class T>
void check_problem(const Problem<T>& problem, const Way& way) {
  constexpr int64_t kMostBlocks = 3;  // fewer than work: every block takes several turns
  const std::vector<T> x = shifted(problem.x, way.of(Shift::x)), dy = shifted(problem.dy, way.of(Shift::dy));
  std::vector<T> out(problem.y.size() + way.of(Shift::out));
  const auto result = [&] { return std::vector<T>(out.begin() + way.of(Shift::out), out.end()); };
  const auto in_any_order = [&](const char* what, bool same) {
    close([&] { return problem.name(what, 0) + " in any order"; }, same, true, 0);
  };
  cuda::Pass<T> p;
  p.x = x.data() + way.of(Shift::x);
  p.out = out.data() + way.of(Shift::out);
  p.scores = problem.scores.data();
  p.scale = problem.scale.data();
  p.shift = problem.shift.data();
  p.group = problem.grouped ? problem.group.data() : nullptr;
  p.groups = problem.groups();
  p.site = problem.site;
  p.sigmoid = problem.sigmoid;
  p.temperature = problem.temperature;
  cuda::Launch launch = cuda::plan(p);
  launch.grid = std::min(launch.grid, kMostBlocks);
  in_any_order("y", same_in_any_order([&] { run<act, false>(p, launch); }, out));
  problem.compare("y", result(), problem.y);

  p.dy = dy.data() + way.of(Shift::dy);
  p.out = way.need_x ? p.out : nullptr;
  std::vector<Wide<T>> partial(p.site.segments * p.tiles.blocks * p.site.channels, -1);
  std::vector<Wide<T>> grad_scores(problem.scores.size(), -1);
  p.partial = partial.data();
  p.grad_scores = grad_scores.data();
  launch = cuda::plan(p);
  launch.grid = std::min(launch.grid, kMostBlocks);
  in_any_order("dx", same_in_any_order([&] { run<act, true>(p, launch); }, out, partial));
  problem.compare(way.need_x ? "dx" : "y", result(), way.need_x ? problem.dx : problem.y);
  const auto finish = [&] { on_cuda::launch(cuda::finish_kernel<T>, {2, dim3(cuda::kWarp, cuda::kWarps)}, p); };
  in_any_order("grad_scores", same_in_any_order(finish, grad_scores));
  problem.compare_scores(grad_scores);
}

// On either side of every border: of packs, warps, teams, chunks, and of the tiles of rows and of channels.
const std::vector<Site> kAlong = {
    {1, 1, 1, 2}, {1, 2, 3, 31}, {1, 2, 3, 32}, {2, 1, 2, 33}, {3, 2, 4, 8}, {2, 3, 7, 5}, {1, 3, 3, 64},
    {1, 2, 5, 49}, {1, 1, 2, 1024}, {1, 1, 2, 1025}, {2, 1, 2, 1104}, {1, 1, 2, 4096}, {1, 1, 1, 4097},
    {1, 2, 1, 8200}, {2, 19, 3, 6}};  // 19 partial sums: more than the warps that add them up
const std::vector<Site> kAcross = {
    {1, 1, 1, 1}, {1, 7, 33, 1}, {2, 63, 31, 1}, {2, 64, 32, 1}, {1, 65, 65, 1}, {3, 129, 5, 1}, {2, 300, 13, 1},
    {3, 41, 1, 1}, {1, 5, 64, 1}, {1, 1100, 3, 1}};

// Every op and dtype at some sites of both kinds; the chosen ones everywhere.
template <class T>
void check_dtype(const std::set<int>& everywhere) {
  for (const std::vector<Site>& sites : {kAlong, kAcross}) {
    for (int act = kGate; act < 7; ++act) {
      for (size_t i = 0; i < sites.size(); ++i) {
        if ((i + act) % 7 != 0 && everywhere.count(act) == 0) {
          continue;
        }
        const bool grouped = (i + act) % 2, sigmoid = i / 2 % 2;
        with_act(act, [&](auto op) {
          check_problem<op>(Problem<T>(sites[i], act, grouped, sigmoid), {i % 4 != 0, static_cast<Shift>(i % 5 % 4)});
        });
      }
    }
  }
}

}  // namespace pyinterp::test

int main() {
  using namespace pyinterp::test;
  check_dtype<float>({kGate, 3});
  check_dtype<double>({});
  if constexpr (!kThreadSanitizer) {
    check_dtype<c10::BFloat16>({kGate});
    check_dtype<c10::Half>({3});
  }
  return report("gate kernels");
}
