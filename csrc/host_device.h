// Marks a function, or a loop to unroll, for both sides: the same formulas run in CPU loops and in CUDA kernels.
#pragma once

#if defined(__CUDACC__)
#define PYI_HD __host__ __device__ __forceinline__
#define PYI_UNROLL _Pragma("unroll")
#else
#define PYI_HD inline __attribute__((always_inline))
#define PYI_UNROLL _Pragma("GCC unroll 16")
#endif
