// The only file that knows Python: the importable module _C, which says how it was built.
// The ops are not here: each registers itself with torch's dispatcher when this library loads.
#include <pybind11/pybind11.h>

#include <string>

#ifndef PYI_VERSION
#define PYI_VERSION "unknown"
#endif
#ifndef PYI_TORCH_VERSION
#define PYI_TORCH_VERSION "unknown"
#endif
#ifndef PYI_WITH_CUDA
#define PYI_WITH_CUDA 0
#endif
#ifndef PYI_NVCC_VERSION
#define PYI_NVCC_VERSION ""
#endif
#ifndef PYI_BUILD_REASON
#define PYI_BUILD_REASON ""
#endif
#ifndef PYI_CUDA_ARCHS
#define PYI_CUDA_ARCHS ""
#endif

static pybind11::dict build_info() {
  pybind11::dict info;
  info["version"] = PYI_VERSION;
  info["built_with_torch"] = PYI_TORCH_VERSION;
  // The oldest torch that this library runs under; the macro holds major and minor in its upper two bytes.
  const unsigned long long target = TORCH_TARGET_VERSION;
  info["torch_target"] = std::to_string(target >> 56) + "." + std::to_string((target >> 48) & 0xff);
  info["cuda"] = static_cast<bool>(PYI_WITH_CUDA);
  info["reason"] = PYI_BUILD_REASON;
  info["nvcc"] = PYI_NVCC_VERSION;
  info["cuda_archs"] = PYI_CUDA_ARCHS;
  info["compiler"] = __VERSION__;
  return info;
}

PYBIND11_MODULE(_C, m) {
  m.doc() = "pyinterp's compiled kernels; importing it registers them with torch";
  m.def("build_info", &build_info, "Say how this library was built.");
}
