// subset_sum on CUDA: one pass over memory for rows up to 2^13 numbers, two up to 2^21, three up to 2^29.
#include "../subset_tensors.h"
#include "device.cuh"
#include "subset_kernel.cuh"

namespace pyinterp::cuda {
namespace {

template <class S, class From, class To>
void launch(const SubsetPass<From, To>& p, bool inverse, cudaStream_t stream) {
  const int64_t grid = tiles_in<Shape>(p);
  if (inverse) {
    subset_kernel<Shape, true, From, To, S><<<grid, Shape::kThreads, 0, stream>>>(p);
  } else {
    subset_kernel<Shape, false, From, To, S><<<grid, Shape::kThreads, 0, stream>>>(p);
  }
  check(cudaGetLastError(), "subset_sum launch");
}

Tensor subset_sum(const Tensor& values, bool inverse, bool superset) {
  const DeviceScope device(values);
  SubsetRows call(values);
  const int64_t count = call.x.numel();
  if (count == 0) {
    return call.y;
  }
  Part parts[kMaxParts];
  const int passes = parts_of<Shape>(call.n, parts);
  for_each_dtype(call.x, [&](auto number) {
    using T = decltype(number);
    using S = Wide<T>;
    const T* in = call.x.template const_data_ptr<T>();
    T* out = call.y.template mutable_data_ptr<T>();
    if (passes == 1) {
      return launch<S>(SubsetPass<T, T>{in, out, count, parts[0], superset}, inverse, device.stream());
    }
    // Between passes 16-bit numbers are float32.
    Tensor wide = call.y;
    if constexpr (!std::is_same_v<T, S>) {
      wide = torch::stable::new_empty(call.y, {&count, 1}, ScalarType::Float);
    }
    S* sums = wide.template mutable_data_ptr<S>();
    launch<S>(SubsetPass<T, S>{in, sums, count, parts[0], superset}, inverse, device.stream());
    for (int i = 1; i + 1 < passes; ++i) {
      launch<S>(SubsetPass<S, S>{sums, sums, count, parts[i], superset}, inverse, device.stream());
    }
    launch<S>(SubsetPass<S, T>{sums, out, count, parts[passes - 1], superset}, inverse, device.stream());
  });
  return call.y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyinterp, CUDA, m) {
  m.impl("subset_sum", TORCH_BOX(&subset_sum));
}

}  // namespace pyinterp::cuda
