// mask_inputs on the CPU: every byte of the batch is written once, from x or from the baseline.
#include "../mask_tensors.h"
#include "mask_loops.h"

namespace pyinterp::cpu {
namespace {

// The bytes of x and of the baseline that stay in the L1 cache while all samples are written.
constexpr int64_t kTileBytes = 8192;
// A batch of more bytes is written past the caches: who reads it comes too late to find it there.
constexpr int64_t kCacheBytes = 4 << 20;
// Below this many bytes a second thread costs more than it saves.
constexpr int64_t kGrainBytes = 131072;

Tensor mask_inputs(const Tensor& x, const Tensor& baseline, const Tensor& players, const Tensor& codes, bool last) {
  MaskedBatch call(x, baseline, players, codes, last);
  const Frame& frame = call.frame;
  const int64_t* const map = call.players.const_data_ptr<int64_t>();
  for (int64_t p = 0; p < frame.positions; ++p) {
    STD_TORCH_CHECK(
        is_player(map[p]), "players must be ", kMasked, " (masked), ", kKept, " (kept) or 0 to ", kMostPlayers - 1,
        ", got ", map[p]);
  }
  if (frame.batch * frame.sample() == 0) {
    return call.out;
  }
  for_each_width(x, [&](auto number) {
    using T = decltype(number);
    const Plan plan = plan_of(frame, map, kTileBytes, sizeof(T));
    const Masking<T> m{
        static_cast<const T*>(call.x.const_data_ptr()), static_cast<const T*>(call.baseline.const_data_ptr()),
        call.codes.const_data_ptr<int64_t>(), static_cast<T*>(call.out.mutable_data_ptr()), plan,
        frame.batch * frame.sample() * static_cast<int64_t>(sizeof(T)) > kCacheBytes};
    const int64_t grain = kGrainBytes / (kTileBytes * plan.planes) + 1;
    torch::stable::parallel_for(0, frame.batch * plan.tiles(), grain, [&](int64_t begin, int64_t end) {
      mask_turns(m, frame.batch, begin, end);
    });
  });
  return call.out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyinterp, CPU, m) {
  m.impl("mask_inputs", TORCH_BOX(&mask_inputs));
}

}  // namespace pyinterp::cpu
