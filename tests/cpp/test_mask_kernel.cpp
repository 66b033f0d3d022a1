// The CUDA kernels of mask_inputs, run by on_cuda.h, against the definition.
#include "on_cuda.h"
// After it: the kernel needs its words.
#include "cuda/mask_kernel.cuh"
#include "mask_problem.h"

namespace pyinterp::test {

// `share` samples per thread; `out` starts `shift` elements after a 16-byte boundary.
template <class T>
void check_masking(const Problem<T>& p, int64_t share, unsigned threads, int64_t shift) {
  const std::vector<T> x = in_order(p.x, p.frame), baseline = in_order(p.baseline, p.frame);
  std::vector<T> memory(shift + p.wanted.size(), T{255});
  cuda::Masking<T> m;
  m.x = x.data();
  m.baseline = baseline.data();
  m.players = p.players.data();
  m.codes = p.codes.data();
  m.out = memory.data() + shift;
  m.frame = p.frame;
  const int64_t grid = std::min<int64_t>(cuda::plan(m), 2);  // fewer threads than work: each takes several turns
  m.share = share;
  const bool fits = p.frame.sample() * sizeof(T) % 16 == 0 && shift == 0;
  close([&] { return p.name("packed", 0); }, m.packed, fits, 0);
  const auto run = [&](const char* side, auto kernel) {
    std::fill(memory.begin(), memory.end(), T{255});
    const bool same = same_in_any_order(
        [&] { on_cuda::launch(kernel, {grid, dim3(threads)}, m); }, memory);
    close([&] { return p.name("in any order", 0); }, same, true, 0);
    p.compare(side, std::vector<T>(m.out, m.out + p.wanted.size()));
    close([&] { return p.name("before out", 0); }, shift == 0 || memory[0] == T{255}, true, 0);
  };
  run("one by one", cuda::mask_kernel<T, 1>);
  if (m.packed) {
    run("packed", cuda::mask_kernel<T, 16 / sizeof(T)>);
  }
}

template <class T>
void check_width() {
  for (const bool channels_last : {false, true}) {
    for (const Frame& frame : {Frame{7, 3, 80, channels_last}, Frame{1, 1, 1, channels_last},
                               Frame{5, 2, 35, channels_last}, Frame{3, 4, 64, channels_last},
                               Frame{1, 1, 16, channels_last}, Frame{33, 1, 8, channels_last}}) {
      for (const int64_t run : {1, 5, 32}) {  // the last share is often a smaller one
        check_masking(problem_of<T>(frame, run), run, 32, 0);
      }
    }
  }
  check_masking(problem_of<T>({2, 1, 257, false}, 3), 1, cuda::kMaskThreads, 0);
  check_masking(problem_of<T>({3, 4, 64, true}, 5), 2, 32, 1);
}

}  // namespace pyinterp::test

int main() {
  using namespace pyinterp::test;
  check_width<uint8_t>();
  check_width<uint16_t>();
  check_width<uint32_t>();
  check_width<uint64_t>();
  return report("mask_inputs kernel");
}
