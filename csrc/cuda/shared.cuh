// How kernels declare shared memory. tests/cpp/host_cuda.h has the same words for the host.
#pragma once

#if defined(__CUDACC__)
#define PYI_SHARED(type, name, extent) __shared__ type name extent
#define PYI_DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif
