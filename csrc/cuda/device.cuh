// The device and the stream of a call, and what the CUDA runtime complains about.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

// A CPU-only torch does not have this symbol; a strong reference would keep the library from loading there.
#pragma weak aoti_torch_get_current_cuda_stream

namespace pyinterp::cuda {

inline void check(cudaError_t status, const char* what) {
  STD_TORCH_CHECK(status == cudaSuccess, what, ": ", cudaGetErrorString(status));
}

// Makes a tensor's device current, for torch and for the runtime that is linked into this library.
class DeviceScope {
 public:
  explicit DeviceScope(const torch::stable::Tensor& x) : guard_(x.get_device_index()) {
    check(cudaGetDevice(&previous_), "cudaGetDevice");
    check(cudaSetDevice(x.get_device_index()), "cudaSetDevice");
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }
  ~DeviceScope() {
    cudaSetDevice(previous_);
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

  cudaStream_t stream() const {
    return stream_;
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  int previous_ = 0;
  cudaStream_t stream_ = nullptr;
};

}  // namespace pyinterp::cuda
