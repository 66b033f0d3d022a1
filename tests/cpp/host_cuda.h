// Just enough of CUDA to run a kernel body on the host: one thread per CUDA thread, blocks one after another.
#pragma once

#include <barrier>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __shared__ static  // blocks run one after another, so one copy is enough
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline thread_local dim3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace host_cuda {

inline std::unique_ptr<std::barrier<>> block_barrier;
inline std::vector<std::unique_ptr<std::barrier<>>> warp_barriers;
inline double lanes[1024];  // wide enough for float and double

inline unsigned flat_thread() {
  return threadIdx.y * blockDim.x + threadIdx.x;
}

// Runs kernel(args...) for every thread of every block.
template <class Kernel, class... Args>
void launch(Kernel kernel, int64_t grid, dim3 block, const Args&... args) {
  blockDim = block;
  gridDim = dim3(static_cast<unsigned>(grid));
  const unsigned count = block.x * block.y;
  block_barrier = std::make_unique<std::barrier<>>(count);
  warp_barriers.clear();
  for (unsigned i = 0; i < count / 32; ++i) {
    warp_barriers.push_back(std::make_unique<std::barrier<>>(32));
  }
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      threadIdx = dim3(i % block.x, i / block.x);
      for (int64_t b = 0; b < grid; ++b) {
        blockIdx = dim3(static_cast<unsigned>(b));
        kernel(args...);
        block_barrier->arrive_and_wait();
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace host_cuda

inline void __syncthreads() {
  host_cuda::block_barrier->arrive_and_wait();
}

namespace host_cuda {

// Hands `value` to the warp and takes that of thread `from`.
template <class T>
T exchange(T value, unsigned from) {
  std::barrier<>& warp = *warp_barriers[flat_thread() / 32];
  lanes[flat_thread()] = value;
  warp.arrive_and_wait();
  const T other = static_cast<T>(lanes[from]);
  warp.arrive_and_wait();
  return other;
}

}  // namespace host_cuda

template <class T>
T __shfl_down_sync(unsigned, T value, unsigned offset) {
  const unsigned thread = host_cuda::flat_thread();
  return host_cuda::exchange(value, thread % 32 + offset < 32 ? thread + offset : thread);
}

template <class T>
T __shfl_xor_sync(unsigned, T value, unsigned mask) {
  return host_cuda::exchange(value, host_cuda::flat_thread() ^ mask);
}
