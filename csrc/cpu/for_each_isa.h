// The CPU loops, compiled for every instruction set that is worth it; chosen when they run, so one build serves all.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <memory>

#include "../and_or_pass.h"
#include "../descent_pass.h"
#include "../elastic_pass.h"
#include "../host_device.h"
#include "pass.h"

// GCC alone: it takes the target by pragma for every function that follows.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define PYI_WIDE 1
#include <immintrin.h>
#endif

#pragma GCC diagnostic push
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // wide vectors never cross a real call: every function here is inlined
#endif

namespace pyinterp::baseline {
#define PYI_LANES 4
#include "lanes.h"

#include "../gate.h"
#include "../subset.h"
#include "../and_or.h"
#include "../elastic.h"
#include "gate_loops.h"
#include "subset_loops.h"
#include "and_or_loops.h"
#include "softmax_loops.h"
#include "elastic_loops.h"
#include "descent_loops.h"
#undef PYI_LANES
}  // namespace pyinterp::baseline

#ifdef PYI_WIDE
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace pyinterp::avx2 {
#define PYI_LANES 8
#include "lanes.h"

#include "../gate.h"
#include "../subset.h"
#include "../and_or.h"
#include "../elastic.h"
#include "gate_loops.h"
#include "subset_loops.h"
#include "and_or_loops.h"
#include "softmax_loops.h"
#include "elastic_loops.h"
#include "descent_loops.h"
#undef PYI_LANES
}  // namespace pyinterp::avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")
namespace pyinterp::avx512 {
#define PYI_LANES 16
#include "lanes.h"

#include "../gate.h"
#include "../subset.h"
#include "../and_or.h"
#include "../elastic.h"
#include "gate_loops.h"
#include "subset_loops.h"
#include "and_or_loops.h"
#include "softmax_loops.h"
#include "elastic_loops.h"
#include "descent_loops.h"
#undef PYI_LANES
}  // namespace pyinterp::avx512
#pragma GCC pop_options
#endif

#pragma GCC diagnostic pop

namespace pyinterp {

enum class Isa { baseline, avx2, avx512 };

// The widest instruction set of this machine.
inline Isa best_isa() {
#ifdef PYI_WIDE
  static const Isa best = [] {
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) {
      return Isa::baseline;
    }
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    return wide ? Isa::avx512 : Isa::avx2;
  }();
  return best;
#else
  return Isa::baseline;
#endif
}

}  // namespace pyinterp

// Runs `call` in the namespace of this machine's widest instruction set.
#ifdef PYI_WIDE
#define PYI_ON_BEST_ISA(call)                                                      \
  {                                                                                \
    if (::pyinterp::best_isa() == ::pyinterp::Isa::avx512) {                       \
      using namespace ::pyinterp::avx512;                                          \
      call;                                                                        \
    } else if (::pyinterp::best_isa() == ::pyinterp::Isa::avx2) {                  \
      using namespace ::pyinterp::avx2;                                            \
      call;                                                                        \
    } else {                                                                       \
      using namespace ::pyinterp::baseline;                                        \
      call;                                                                        \
    }                                                                              \
  }
#else
#define PYI_ON_BEST_ISA(call)             \
  {                                       \
    using namespace ::pyinterp::baseline; \
    call;                                 \
  }
#endif

// The same for a kernel in which double has one lane and serves gradcheck alone: there the baseline is enough.
#define PYI_WITH_ISA(T, call)               \
  if constexpr (std::is_same_v<T, double>) { \
    using namespace ::pyinterp::baseline;   \
    call;                                   \
  } else                                    \
    PYI_ON_BEST_ISA(call)
