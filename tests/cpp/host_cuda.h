// Just enough of CUDA to run a kernel on the host: a thread per CUDA thread, one block after another.
//
// It promises no more than CUDA does, so that the sanitizers see what a GPU may do:
//   - __syncthreads() alone orders memory. Shuffles do not, and nothing orders blocks among each other;
//   - shared memory belongs to one block, ends where its declaration says, and is full of `poison` at first;
//   - a barrier or a shuffle that some threads never reach ends the process and says where.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <semaphore>
#include <thread>
#include <type_traits>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)

// As in csrc/cuda/shared.cuh.
#define PYI_SHARED(type, name, extent) auto& name = host_cuda::shared<type extent, __COUNTER__>()
#define PYI_DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(host_cuda::block->dynamic)

// Tests leave out under the thread sanitizer, which is slow, what differs in arithmetic alone.
#if defined(PYI_THREAD_SANITIZER)
constexpr bool kThreadSanitizer = true;
extern "C" {
void AnnotateIgnoreSyncBegin(const char* file, int line);
void AnnotateIgnoreSyncEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#else
constexpr bool kThreadSanitizer = false;
inline void AnnotateIgnoreSyncBegin(const char*, int) {}
inline void AnnotateIgnoreSyncEnd(const char*, int) {}
inline void AnnotateIgnoreWritesBegin(const char*, int) {}
inline void AnnotateIgnoreWritesEnd(const char*, int) {}
#endif

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline thread_local dim3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace host_cuda {

inline bool last_block_first = false;
inline int poison = 0xff;  // of each byte: NaN and -1; 0x7f is large, where a maximum passes over those
constexpr unsigned kWarp = 32;

[[noreturn]] inline void fail(const char* why) {
  std::fprintf(stderr, "host_cuda: %s\n", why);
  std::_Exit(1);
}

// While it lives, what this thread does is ordered with others in truth, and not in the eyes of the thread sanitizer.
struct Unordered {
  Unordered() { AnnotateIgnoreSyncBegin(__FILE__, __LINE__); }
  ~Unordered() { AnnotateIgnoreSyncEnd(__FILE__, __LINE__); }
};

// Yielding is the fastest way to wait for hundreds of threads; but the one awaited may stand in line for another core,
// and leaves it only for an idle one.
template <class Ready>
void wait_until(const Ready& ready) {
  for (int times = 0; !ready(); ++times) {
    if (times < 200) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  }
}

// Where threads wait for each other.
class Barrier {
 public:
  explicit Barrier(unsigned count) : count_(count) {}

  // `running` counts the threads that wait nowhere. Returns false where there is none left: nobody can come any more.
  bool wait(int line, std::atomic<int>& running) {
    using enum std::memory_order;
    int other = 0;
    if (!line_.compare_exchange_strong(other, line, relaxed) && other != line) {
      std::fprintf(stderr, "host_cuda: some threads wait at line %d, others at line %d\n", other, line);
      std::_Exit(1);
    }
    const unsigned turn = turn_.load(relaxed);
    if (arrived_.fetch_add(1, acq_rel) + 1 == count_) {
      line_.store(0, relaxed);
      arrived_.store(0, relaxed);
      running.fetch_add(static_cast<int>(count_) - 1, relaxed);  // it may order nothing: all warps meet there
      turn_.store(turn + 1, release);
    } else {
      if (running.fetch_sub(1, relaxed) == 1) {
        return false;
      }
      wait_until([&] { return turn_.load(acquire) != turn; });
    }
    return true;
  }

  void say_who_waits(const char* where) const {
    if (arrived_ > 0) {
      std::fprintf(
          stderr, "host_cuda: %u of %u threads wait for the others in %s at line %d\n", arrived_.load(), count_, where,
          line_.load());
    }
  }

 private:
  const unsigned count_;
  std::atomic<unsigned> arrived_{0}, turn_{0};
  std::atomic<int> line_{0};
};

inline int shared_variables = 0;

struct Block {
  std::atomic<int> running, inside;  // threads that wait nowhere; threads that have not left the kernel
  Barrier all;
  std::deque<Barrier> warps;
  std::vector<std::atomic<uint64_t>> lanes;  // twice: a fast thread writes the next value while a slow one reads this
  std::vector<std::atomic<void*>> variables;
  void* const dynamic;

  Block(unsigned threads, size_t dynamic_bytes)
      : running(threads), inside(threads), all(threads), lanes(2 * threads), variables(shared_variables),
        dynamic(std::memset(std::malloc(dynamic_bytes), poison, dynamic_bytes)) {
    for (unsigned i = 0; i < threads / kWarp; ++i) {
      warps.emplace_back(kWarp);
    }
  }
  ~Block() {
    for (auto& variable : variables) {
      std::free(variable);
    }
    std::free(dynamic);
  }

  void wait(Barrier& barrier, int line) {
    if (!barrier.wait(line, running)) {
      stuck();
    }
  }

  void leave() {
    const Unordered scope;
    --inside;
    if (--running == 0 && inside > 0) {
      stuck();
    }
  }

  [[noreturn]] void stuck() const {
    all.say_who_waits("__syncthreads()");
    for (const auto& warp : warps) {
      warp.say_who_waits("a shuffle");
    }
    fail("the others left the kernel, or wait elsewhere");
  }
};

inline thread_local Block* block;
inline thread_local unsigned shuffles;

inline unsigned flat_thread() {
  return threadIdx.y * blockDim.x + threadIdx.x;
}

template <class T, int id>
struct Variable {
  static inline const int index = shared_variables++;
};

// The block's variable: whoever comes first makes it, which orders nothing and is nobody's write.
template <class T, int id>
T& shared() {
  const Unordered scope;
  std::atomic<void*>& variable = block->variables[Variable<T, id>::index];
  void* memory = variable;
  if (memory == nullptr) {
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    void* fresh = std::memset(std::malloc(sizeof(T)), poison, sizeof(T));
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    if (variable.compare_exchange_strong(memory, fresh)) {
      memory = fresh;
    } else {
      std::free(fresh);
    }
  }
  return *static_cast<T*>(memory);
}

// Threads that live as long as the process: under the thread sanitizer a new one takes a millisecond.
class Pool {
 public:
  ~Pool() {
    job_ = nullptr;
    for (Worker& worker : workers_) {
      worker.ready.release();
      worker.thread.join();
    }
  }

  using Job = std::function<void(int64_t turn, unsigned thread)>;

  // job(turn, i) for i < count, all at the same time, by the workers from `first` on. What they did is ordered before
  // what the caller does after join(), and not before its next run().
  void run(const Job& job, int64_t turn, unsigned first, unsigned count) {
    while (workers_.size() < first + count) {
      Worker& worker = workers_.emplace_back();
      worker.thread = std::thread([this, &worker, i = static_cast<unsigned>(workers_.size() - 1)] { work(worker, i); });
    }
    first_.store(first, std::memory_order_relaxed);
    turn_.store(turn, std::memory_order_relaxed);
    job_.store(&job, std::memory_order_release);
    const Unordered scope;
    for (unsigned i = first; i < first + count; ++i) {
      workers_[i].ready.release();
    }
    wanted_ += count;
    wait_until([this] { return done_ == wanted_; });
  }

  void join() { (void)done_.load(std::memory_order_acquire); }

 private:
  struct Worker {
    std::binary_semaphore ready{0};
    std::thread thread;
  };

  void work(Worker& worker, unsigned i) {
    while (true) {
      {
        const Unordered scope;
        worker.ready.acquire();
      }
      const Job* job = job_.load(std::memory_order_acquire);
      if (job == nullptr) {
        return;
      }
      (*job)(turn_.load(std::memory_order_relaxed), i - first_.load(std::memory_order_relaxed));
      done_.fetch_add(1, std::memory_order_release);
    }
  }

  std::deque<Worker> workers_;
  std::atomic<const Job*> job_ = nullptr;
  std::atomic<int64_t> turn_ = 0;
  std::atomic<unsigned> first_ = 0;
  uint64_t wanted_ = 0;
  std::atomic<uint64_t> done_ = 0;
};

inline Pool pool;

struct Config {
  int64_t grid;
  dim3 block;
  size_t dynamic_bytes = 0;
};

// kernel(args...) for every thread of every block.
template <class Kernel, class... Args>
void launch(Kernel kernel, const Config& config, const Args&... args) {
  blockDim = config.block;
  gridDim = dim3(static_cast<unsigned>(config.grid));
  const unsigned count = blockDim.x * blockDim.y;
  std::deque<Block> blocks;
  for (int64_t turn = 0; turn < config.grid; ++turn) {
    blocks.emplace_back(count, config.dynamic_bytes);
  }
  const Pool::Job job = [&](int64_t turn, unsigned worker) {
    // The order within a worker would hide what blocks do to each other: every block has other workers than the one
    // before, and of the one before that, a thread has another thread's.
    const unsigned thread = static_cast<unsigned>((worker + turn / 2) % count);
    threadIdx = dim3(thread % blockDim.x, thread / blockDim.x);
    blockIdx = dim3(static_cast<unsigned>(last_block_first ? config.grid - 1 - turn : turn));
    block = &blocks[turn];
    shuffles = 0;
    kernel(args...);
    block->leave();
  };
  for (int64_t turn = 0; turn < config.grid; ++turn) {
    pool.run(job, turn, turn % 2 * count, count);
  }
  pool.join();
}

// Kernels find this vector full of `poison`.
template <class T>
void scratch(std::vector<T>& space) {
  std::memset(space.data(), poison, space.size() * sizeof(T));
}

// run(), with the last block first and other numbers in shared memory.
template <class Run>
void in_other_order(const Run& run) {
  last_block_first = true;
  poison = 0x7f;
  run();
  last_block_first = false;
  poison = 0xff;
}

// Hands `value` to the warp and takes that of thread `from`.
template <class T>
T exchange(T value, unsigned mask, unsigned from, int line) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  const unsigned thread = flat_thread(), warp = thread / kWarp;
  if (mask != 0xffffffffu || from / kWarp != warp || warp >= block->warps.size()) {
    fail("a shuffle needs a full warp, and a lane of it");
  }
  const Unordered scope;
  std::atomic<uint64_t>* const lanes = block->lanes.data() + (shuffles++ % 2) * block->lanes.size() / 2;
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  lanes[thread] = bits;
  block->wait(block->warps[warp], line);
  bits = lanes[from];
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace host_cuda

inline void __syncthreads(int line = __builtin_LINE()) {
  host_cuda::block->wait(host_cuda::block->all, line);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned offset, int line = __builtin_LINE()) {
  const unsigned thread = host_cuda::flat_thread();
  const bool inside = thread % host_cuda::kWarp + offset < host_cuda::kWarp;
  return host_cuda::exchange(value, mask, inside ? thread + offset : thread, line);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, unsigned lanes, int line = __builtin_LINE()) {
  return host_cuda::exchange(value, mask, host_cuda::flat_thread() ^ lanes, line);
}

template <class T>
T atomicAdd(T* address, T value) {
  return std::atomic_ref<T>(*address).fetch_add(value, std::memory_order_relaxed);
}
