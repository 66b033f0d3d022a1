// Runs the tests of kernels on a GPU, for compute-sanitizer to look at. They are written for host_cuda.h, so kernels get
// pointers into vectors of the host: a launch finds those in the arguments, gives the kernel a copy of each vector,
// no larger than the vector is, in memory of the device, and brings back what the kernel left there.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

constexpr bool kThreadSanitizer = false;

namespace device_cuda {

constexpr int kNoGpu = 77;  // CMakeLists.txt: ctest calls it skipped

template <class T>
struct Malloc {
  using value_type = T;

  Malloc() = default;
  template <class U>
  Malloc(const Malloc<U>&) {}
  T* allocate(size_t count) { return static_cast<T*>(std::malloc(count * sizeof(T))); }
  void deallocate(T* memory, size_t) { std::free(memory); }
  bool operator==(const Malloc&) const = default;
};

struct Block {
  size_t size;
  bool scratch = false;  // what it holds stays where it is
};

// What operator new gave and has not got back, by where it starts.
using Blocks = std::map<uintptr_t, Block, std::less<>, Malloc<std::pair<const uintptr_t, Block>>>;
inline Blocks& blocks() {
  static Blocks& all = *::new (std::malloc(sizeof(Blocks))) Blocks;  // outlives every vector
  return all;
}

inline std::mutex& guard() {  // the driver has threads of its own
  static std::mutex one;
  return one;
}

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    std::fprintf(stderr, "device_cuda: %s: %s\n", what, cudaGetErrorString(status));
    std::_Exit(status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver ? kNoGpu : 1);
  }
}

using Copies = std::map<uintptr_t, char*>;

// Turns every pointer in `argument` that leads into a block into one that leads to the same place in its copy.
template <class T>
void to_device(T& argument, Copies& copies) {
  static_assert(std::is_trivially_copyable_v<T>);
  char* const bytes = reinterpret_cast<char*>(&argument);
  for (size_t at = 0; at + sizeof(uintptr_t) <= sizeof(T); at += alignof(uintptr_t)) {
    uintptr_t word = 0;
    std::memcpy(&word, bytes + at, sizeof(word));
    auto block = blocks().upper_bound(word);
    if (block == blocks().begin() || word >= (--block)->first + block->second.size) {
      continue;
    }
    const uintptr_t start = block->first;
    const auto [size, scratch] = block->second;
    char*& copy = copies[start];
    if (copy == nullptr) {
      check(cudaMalloc(&copy, size), "cudaMalloc");
      if (!scratch) {
        check(cudaMemcpy(copy, reinterpret_cast<void*>(start), size, cudaMemcpyHostToDevice), "copy to the device");
      }
    }
    const char* const there = copy + (word - start);
    std::memcpy(bytes + at, &there, sizeof(there));
  }
}

struct Config {
  int64_t grid;
  dim3 block;
  size_t dynamic_bytes = 0;
};

template <class... Parameters, class... Args>
void launch(void (*kernel)(Parameters...), const Config& config, const Args&... args) {
  std::tuple<std::remove_const_t<Parameters>...> values(args...);
  Copies copies;
  std::apply([&](auto&... value) { (to_device(value, copies), ...); }, values);
  std::apply(
      [&](auto&... value) {
        void* pointers[] = {&value...};
        const dim3 grid(static_cast<unsigned>(config.grid));
        const auto* function = reinterpret_cast<const void*>(kernel);
        check(cudaLaunchKernel(function, grid, config.block, pointers, config.dynamic_bytes, nullptr), "launch");
      },
      values);
  check(cudaDeviceSynchronize(), "kernel");
  for (const auto& [start, copy] : copies) {
    const auto [size, scratch] = blocks().at(start);
    if (!scratch) {
      check(cudaMemcpy(reinterpret_cast<void*>(start), copy, size, cudaMemcpyDeviceToHost), "copy back");
    }
    check(cudaFree(copy), "cudaFree");
  }
}

// Kernels find this vector as cudaMalloc gave it, for initcheck to see who reads it too early.
template <class T>
void scratch(std::vector<T>& space) {
  blocks().at(reinterpret_cast<uintptr_t>(space.data())).scratch = true;
}

// A GPU takes blocks in an order of its own every time.
template <class Run>
void in_other_order(const Run& run) {
  run();
}

}  // namespace device_cuda

#if !defined(__CUDA_ARCH__)  // nvcc would compile them for the device too
void* operator new(size_t size) {
  void* const memory = std::malloc(size);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  const std::lock_guard lock(device_cuda::guard());
  device_cuda::blocks()[reinterpret_cast<uintptr_t>(memory)] = {size};
  return memory;
}

void operator delete(void* memory) noexcept {
  const std::lock_guard lock(device_cuda::guard());
  device_cuda::blocks().erase(reinterpret_cast<uintptr_t>(memory));
  std::free(memory);
}

void operator delete(void* memory, size_t) noexcept {
  operator delete(memory);
}
#endif
