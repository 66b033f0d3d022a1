// elastic_prox: the loops of every instruction set and the body of the CUDA kernel, against the definition.
#include "host_cuda.h"
// After it: the kernel needs its words.
#include <random>
#include <vector>

#include "check.h"
#include "cpu/for_each_isa.h"
#include "cuda/elastic_kernel.cuh"

namespace pyinterp::test {

template <class S>
struct Problem {
  std::vector<S> point, gradient, previous;
  double step, l1, l2, momentum;

  Problem(int64_t count, double step_, double l1_, double l2_, double momentum_)
      : step(step_), l1(l1_), l2(l2_), momentum(momentum_) {
    std::mt19937 random(static_cast<unsigned>(count));
    std::normal_distribution<double> normal;
    for (auto* numbers : {&point, &gradient, &previous}) {
      for (int64_t i = 0; i < count; ++i) {
        numbers->push_back(static_cast<S>(normal(random)));
      }
    }
  }

  // run(pass) fills the weights and the points of the next step.
  template <class Run>
  void check(const std::string& side, const Run& run) const {
    const int64_t count = static_cast<int64_t>(point.size());
    std::vector<S> weights(count, S{99}), next(count, S{99});
    run(ProxPass<S>{point.data(), gradient.data(), previous.data(), weights.data(), next.data(), count,
                    ProxNumbers<S>(step, l1, l2, momentum)});
    const double unit = sizeof(S) == 8 ? 1e-15 : 5e-7;
    for (int64_t i = 0; i < count; ++i) {
      const double u = point[i] - step * gradient[i];
      const double size = std::fmax(std::fabs(u) - step * l1, 0) / (1 + step * l2);
      const double w = u < 0 ? -size : size;
      const auto name = [&] { return side + " " + std::to_string(count) + " at " + std::to_string(i); };
      close([&] { return name() + " weight"; }, weights[i], w, 4 * unit * (1 + std::fabs(u)));
      close([&] { return name() + " next"; }, next[i], w + momentum * (w - previous[i]), 8 * unit * (1 + std::fabs(u)));
      close([&] { return name() + " zero"; }, weights[i] == 0 && std::signbit(weights[i]), false, 0);
    }
  }
};

#define PYI_CHECK_ISA(isa)                                    \
  template <class S>                                          \
  void isa##_check(const Problem<S>& p) {                     \
    p.check(#isa, [](const ProxPass<S>& pass) {               \
      isa::prox_steps(pass, 0, pass.count / 3);               \
      isa::prox_steps(pass, pass.count / 3, pass.count);      \
    });                                                       \
  }

PYI_CHECK_ISA(baseline)
#ifdef PYI_WIDE
PYI_CHECK_ISA(avx2)
PYI_CHECK_ISA(avx512)
#endif

template <class S>
void check_all() {
  for (const int64_t count : {0, 1, 3, 16, 77, 500}) {
    for (const Problem<S>& p : {Problem<S>(count, 0.7, 0.5, 0.3, 0.9), Problem<S>(count, 0.1, 0, 0, 0),
                                Problem<S>(count, 1, 100, 1, -1)}) {
      baseline_check(p);
#ifdef PYI_WIDE
      if (best_isa() >= Isa::avx2) {
        avx2_check(p);
      }
      if (best_isa() >= Isa::avx512) {
        avx512_check(p);
      }
#endif
      p.check("cuda", [](const ProxPass<S>& pass) {
        host_cuda::launch(cuda::prox_kernel<S>, 2, dim3(32), pass);  // fewer threads than numbers
      });
    }
  }
}

}  // namespace pyinterp::test

int main() {
  using namespace pyinterp::test;
  check_all<float>();
  check_all<double>();
  return report("elastic_prox");
}
