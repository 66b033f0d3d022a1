// host_cuda.h finds what it is there for: each kernel below passes as it should be, and fails with the fault planted. A
// fault ends the process, so this program runs itself, once per kernel.
#include "on_cuda.h"

#include <sys/wait.h>

#include <numeric>
#include <string>

#include "check.h"
#include "cuda/shared.cuh"

namespace pyinterp::test {

constexpr unsigned kThreads = 64;
constexpr int64_t kBlocks = 3;

template <bool planted>
__global__ void race(const int64_t* x, int64_t* out) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (planted) {
    out[x[i] % 4] += 1;
  } else {
    atomicAdd(&out[x[i] % 4], int64_t{1});
  }
}

// Every block writes where the others do; its own barriers do not make that right.
template <bool planted>
__global__ void race_of_blocks(const int64_t* x, int64_t* out) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  __syncthreads();
  out[planted ? threadIdx.x : i] = x[i];
  __syncthreads();
}

// The first block and the third add to the same numbers.
template <bool planted>
__global__ void race_two_blocks_apart(const int64_t* x, int64_t* out) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (blockIdx.x != 1) {
    if (planted) {
      out[threadIdx.x] += x[threadIdx.x];
    } else {
      atomicAdd(&out[threadIdx.x], x[threadIdx.x]);
    }
  } else {
    out[i] = x[i];
  }
}

template <bool planted>
__global__ void missing_syncthreads(const int64_t* x, int64_t* out) {
  PYI_SHARED(int64_t, line, [kThreads]);
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  line[threadIdx.x] = x[i];
  if (!planted) {
    __syncthreads();
  }
  out[i] = line[kThreads - 1 - threadIdx.x];
}

// The last thread of a warp reads what the first wrote: a shuffle between them lets no thread see the writes of others.
template <bool planted>
__global__ void shuffle_for_a_barrier(const int64_t* x, int64_t* out) {
  PYI_SHARED(int64_t, line, [kThreads]);
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  line[threadIdx.x] = x[i];
  const int64_t other = __shfl_xor_sync(0xffffffffu, x[i], 1);
  if (!planted) {
    __syncthreads();
  }
  out[i] = line[threadIdx.x ^ 1] + other;
}

template <bool planted>
__global__ void read_past_global(const int64_t* x, int64_t* out) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = x[planted || i + 1 < gridDim.x * blockDim.x ? i + 1 : i];
}

// Through a pointer, as in over_team: no type says where the array ends.
template <bool planted>
__global__ void read_past_shared(const int64_t* x, int64_t* out) {
  PYI_SHARED(int64_t, line, [kThreads]);
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  const int64_t* next = line + threadIdx.x + 1;
  line[threadIdx.x] = x[i];
  __syncthreads();
  out[i] = planted || threadIdx.x + 1 < kThreads ? *next : 0;
}

template <bool planted>
__global__ void read_past_dynamic(const int64_t* x, int64_t* out) {
  PYI_DYNAMIC_SHARED(int64_t, line);  // kThreads numbers
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  line[threadIdx.x] = x[i];
  __syncthreads();
  out[i] = planted || threadIdx.x + 1 < kThreads ? line[threadIdx.x + 1] : 0;
}

template <bool planted>
__global__ void wrong_index(const int64_t* x, int64_t* out) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = x[planted ? blockIdx.x + threadIdx.x * gridDim.x : i];
}

// A block finds what the one before it left: on a GPU anything may stand there.
template <bool planted>
__global__ void unwritten_shared(const int64_t* x, int64_t* out) {
  PYI_SHARED(int64_t, line, [kThreads]);
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (!planted || blockIdx.x == 0) {
    line[threadIdx.x] = x[i];
  }
  out[i] = line[threadIdx.x];
}

// A maximum passes over NaN and over -1.
template <bool planted>
__global__ void unwritten_under_maximum(const int64_t* x, int64_t* out) {
  PYI_SHARED(int64_t, line, [kThreads]);
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (!planted || threadIdx.x > 0) {
    line[threadIdx.x] = x[i];
  }
  out[i] = line[threadIdx.x] > x[i] ? line[threadIdx.x] : x[i];
}

template <bool planted>
__global__ void order_of_blocks(const int64_t* x, int64_t* out) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = x[i] + (planted && blockIdx.x > 0 ? out[i - blockDim.x] : 0);
}

template <bool planted>
__global__ void early_return(const int64_t* x, int64_t* out) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = x[i];
  if (planted && threadIdx.x % 2 == 0) {
    return;
  }
  __syncthreads();
}

template <bool planted>
__global__ void two_barriers(const int64_t* x, int64_t* out) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = x[i];
  if (planted && threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

template <bool planted>
__global__ void divergent_shuffle(const int64_t* x, int64_t* out) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = x[i];
  if (!planted || threadIdx.x % 32 < 16) {
    out[i] = __shfl_down_sync(0xffffffffu, x[i], 1);
  }
}

// Runs a kernel; what is wrong with its results is printed by close().
using Kernel = void (*)(const int64_t*, int64_t*);
int run(Kernel kernel, const std::vector<int64_t>& wanted) {
  std::vector<int64_t> x(kBlocks * kThreads), out(x.size());
  std::iota(x.begin(), x.end(), 1000);
  const auto launch = [&] {
    host_cuda::launch(kernel, {kBlocks, dim3(kThreads), kThreads * sizeof(int64_t)}, x.data(), out.data());
  };
  close([] { return std::string("in any order"); }, same_in_any_order(launch, out), true, 0);
  for (size_t i = 0; i < out.size(); ++i) {
    close([&] { return "out[" + std::to_string(i) + "]"; }, out[i], wanted[i], 0);
  }
  return report("kernel");
}

// What out[i] should be, for x[i] = 1000 + i.
template <class F>
std::vector<int64_t> expect(const F& f) {
  std::vector<int64_t> all;
  for (int64_t i = 0; i < kBlocks * kThreads; ++i) {
    all.push_back(f(i, i % kThreads));
  }
  return all;
}

enum class FoundBy { either, address, thread };

struct Case {
  const char* name;
  Kernel sound, planted;
  FoundBy by;         // the sanitizer that finds the fault
  const char* words;  // and what is then printed
  std::vector<int64_t> wanted;
};

#define PYI_CASE(name, by, words, wanted) \
  { #name, name<false>, name<true>, by, words, expect([](int64_t i, int64_t t) -> int64_t { return wanted; }) }

std::vector<Case> cases() {
  using enum FoundBy;
  constexpr int64_t kTotal = kBlocks * kThreads, kLast = kThreads - 1;
  return {
      PYI_CASE(race, thread, "ThreadSanitizer: data race", i < 4 ? kTotal / 4 : t * 0),
      PYI_CASE(race_of_blocks, thread, "ThreadSanitizer: data race", 1000 + i + t * 0),
      PYI_CASE(race_two_blocks_apart, thread, "ThreadSanitizer: data race",
               i < kThreads ? 2 * (1000 + t) : i < 2 * kThreads ? 1000 + i : 0),
      PYI_CASE(missing_syncthreads, thread, "ThreadSanitizer: data race", 1000 + i - t + kLast - t),
      PYI_CASE(shuffle_for_a_barrier, thread, "ThreadSanitizer: data race", 2 * (1000 + (i ^ 1)) + t * 0),
      PYI_CASE(read_past_global, address, "AddressSanitizer: heap-buffer-overflow",
               1000 + (i + 1 < kTotal ? i + 1 : i) + t * 0),
      PYI_CASE(read_past_shared, address, "AddressSanitizer: heap-buffer-overflow", t < kLast ? 1001 + i : 0),
      PYI_CASE(read_past_dynamic, address, "AddressSanitizer: heap-buffer-overflow", t < kLast ? 1001 + i : 0),
      PYI_CASE(wrong_index, either, "FAILED out[1]: expected 1001 +- 0, got 1003", 1000 + i + t * 0),
      PYI_CASE(unwritten_shared, either, "FAILED in any order", 1000 + i + t * 0),
      PYI_CASE(unwritten_under_maximum, either, "FAILED in any order", 1000 + i + t * 0),
      PYI_CASE(order_of_blocks, either, "FAILED in any order", 1000 + i + t * 0),
      PYI_CASE(early_return, either, "32 of 64 threads wait for the others in __syncthreads()", 1000 + i + t * 0),
      PYI_CASE(two_barriers, either, "some threads wait at line", 1000 + i + t * 0),
      PYI_CASE(divergent_shuffle, either, "16 of 32 threads wait for the others in a shuffle",
               1000 + i + (t % 32 < 31 ? 1 : 0)),
  };
}

// Runs this program with a case as its argument; gives all it printed, and whether it failed.
std::string output_of(const std::string& program, const std::string& arguments, bool& failed) {
  std::string printed;
  FILE* pipe = popen(("'" + program + "' " + arguments + " 2>&1").c_str(), "r");
  char line[512];
  while (std::fgets(line, sizeof(line), pipe) != nullptr) {
    printed += line;
  }
  const int status = pclose(pipe);
  failed = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
  return printed;
}

void check_case(const std::string& program, const Case& c) {
  bool failed = false;
  const std::string printed = output_of(program, std::string(c.name) + " sound", failed);
  close([&] { return std::string(c.name) + " as it should be: " + printed; }, failed, false, 0);
  if (c.by == FoundBy::either || (c.by == FoundBy::thread) == kThreadSanitizer) {
    const std::string found = output_of(program, std::string(c.name) + " planted", failed);
    const auto name = [&] { return std::string(c.name) + ", planted: '" + c.words + "' in what follows\n" + found; };
    close(name, failed && found.find(c.words) != std::string::npos, true, 0);
  }
}

}  // namespace pyinterp::test

int main(int count, char** arguments) {
  using namespace pyinterp::test;
  for (const Case& c : cases()) {
    if (count < 3) {
      check_case(arguments[0], c);
    } else if (std::string(arguments[1]) == c.name) {
      return run(std::string(arguments[2]) == "planted" ? c.planted : c.sound, c.wanted);
    }
  }
  return report("host_cuda");
}
