// Runs kernels: on the host where g++ compiles a test, by host_cuda.h, and on a GPU where nvcc does, by device_cuda.h.
#pragma once

#if defined(__CUDACC__)
#include "device_cuda.h"
namespace on_cuda = device_cuda;
#else
#include "host_cuda.h"
namespace on_cuda = host_cuda;
#endif

#include <cstring>
#include <tuple>
#include <vector>

namespace pyinterp::test {

// Whether run(), which fills `outputs`, gives the same bits in whatever order the blocks run and whatever shared memory
// held before.
template <class Run, class... T>
bool same_in_any_order(const Run& run, std::vector<T>&... outputs) {
  const std::tuple before(outputs...);
  run();
  const std::tuple first(outputs...);
  std::tie(outputs...) = before;
  on_cuda::in_other_order(run);
  return std::apply(
      [&](const auto&... wanted) {
        return ((std::memcmp(wanted.data(), outputs.data(), wanted.size() * sizeof(T)) == 0) && ...);
      },
      first);
}

}  // namespace pyinterp::test
