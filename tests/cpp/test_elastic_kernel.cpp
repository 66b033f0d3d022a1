// The CUDA kernel of elastic_prox, run by on_cuda.h, against the definition.
#include "on_cuda.h"
// After it: the kernel needs its words.
#include "cuda/elastic_kernel.cuh"
#include "elastic_problem.h"

namespace pyinterp::test {

template <class S>
void check_all(int64_t grid, unsigned threads) {
  for (const int64_t count : {1, 31, 32, 33, 63, 64, 65, 500}) {
    for (const Problem<S>& p : {Problem<S>(count, 0.7, 0.5, 0.3, 0.9), Problem<S>(count, 1, 100, 1, -1)}) {
      std::vector<S> weights(count, S{99}), next(count, S{99});
      const ProxPass<S> pass = p.pass(weights, next);
      const auto run = [&] { on_cuda::launch(cuda::prox_kernel<S>, {grid, dim3(threads)}, pass); };
      close([&] { return std::string("in any order"); }, same_in_any_order(run, weights, next), true, 0);
      p.compare("kernel", weights, next);
    }
  }
}

}  // namespace pyinterp::test

int main() {
  using namespace pyinterp::test;
  check_all<float>(2, 32);  // fewer threads than numbers
  check_all<double>(2, 32);
  check_all<float>(2, pyinterp::cuda::kProxThreads);
  return report("elastic_prox kernel");
}
