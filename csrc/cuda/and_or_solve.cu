// and_or_solve on CUDA: the games among the blocks, each solved by one of them from the first iteration to the last.
#include <algorithm>

#include "../and_or_tensors.h"
#include "and_or_kernel.cuh"
#include "device.cuh"

namespace pyinterp::cuda {
namespace {

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

std::tuple<Tensor, Tensor, Tensor> and_or_solve(
    const Tensor& values, const Tensor& bound, const Tensor& pairs, const Tensor& angles, const Tensor& rounds,
    const Tensor& paths, const Tensor& kinds, const Tensor& inverse, const Tensor& exact, double slack,
    double tolerance, int64_t max_iterations, int64_t check_every) {
  const DeviceScope device(values);
  Games g(values, bound, pairs, angles, rounds, paths, kinds, inverse, exact);
  if (g.games > 0) {
    const int index = values.get_device_index();
    const int64_t fast = kFastArrays * static_cast<int64_t>(sizeof(double)) << g.n;
    const bool fits = fast <= attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, index) - 1024;
    const int bytes = fits ? static_cast<int>(fast) : 0;
    check(
        cudaFuncSetAttribute(and_or_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "cudaFuncSetAttribute");
    const int64_t grid = std::min<int64_t>(g.games, 2 * attribute(cudaDevAttrMultiProcessorCount, index));
    const int64_t numbers = grid * kAndOrArrays << g.n;
    Tensor space = torch::stable::new_empty(g.values, {&numbers, 1});
    and_or_kernel<<<static_cast<unsigned>(grid), kTeamThreads, bytes, device.stream()>>>(
        g.pass(slack, tolerance, max_iterations, check_every), g.games, space.mutable_data_ptr<double>(), fits);
    check(cudaGetLastError(), "and_or_solve launch");
  }
  return {g.and_, g.or_, g.report};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyinterp, CUDA, m) {
  m.impl("and_or_solve", TORCH_BOX(&and_or_solve));
}

}  // namespace pyinterp::cuda
