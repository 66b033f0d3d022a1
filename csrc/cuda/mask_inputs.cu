// mask_inputs on CUDA: one pass that writes every byte of the batch once.
#include "../mask_tensors.h"
#include "device.cuh"
#include "mask_kernel.cuh"

namespace pyinterp::cuda {
namespace {

Tensor mask_inputs(const Tensor& x, const Tensor& baseline, const Tensor& players, const Tensor& codes, bool last) {
  const DeviceScope device(x);
  MaskedBatch call(x, baseline, players, codes, last);
  if (call.frame.batch * call.frame.sample() == 0) {
    return call.out;
  }
  for_each_width(x, [&](auto number) {
    using T = decltype(number);
    Masking<T> m;
    m.x = static_cast<const T*>(call.x.const_data_ptr());
    m.baseline = static_cast<const T*>(call.baseline.const_data_ptr());
    m.players = call.players.const_data_ptr<int64_t>();
    m.codes = call.codes.const_data_ptr<int64_t>();
    m.out = static_cast<T*>(call.out.mutable_data_ptr());
    m.frame = call.frame;
    const int64_t grid = plan(m);
    if (m.packed) {
      mask_kernel<T, 16 / sizeof(T)><<<grid, kMaskThreads, 0, device.stream()>>>(m);
    } else {
      mask_kernel<T, 1><<<grid, kMaskThreads, 0, device.stream()>>>(m);
    }
    check(cudaGetLastError(), "mask_inputs launch");
  });
  return call.out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyinterp, CUDA, m) {
  m.impl("mask_inputs", TORCH_BOX(&mask_inputs));
}

}  // namespace pyinterp::cuda
