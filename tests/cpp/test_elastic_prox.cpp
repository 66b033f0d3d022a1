// elastic_prox: the loops of every instruction set against the definition.
#include "cpu/for_each_isa.h"
#include "elastic_problem.h"

namespace pyinterp::test {

#define PYI_CHECK_ISA(isa)                                           \
  template <class S>                                                 \
  void isa##_check(const Problem<S>& p) {                            \
    std::vector<S> weights(p.point.size(), S{99}), next(weights);    \
    const ProxPass<S> pass = p.pass(weights, next);                  \
    isa::prox_steps(pass, 0, pass.count / 3);                        \
    isa::prox_steps(pass, pass.count / 3, pass.count);               \
    p.compare(#isa, weights, next);                                  \
  }

PYI_CHECK_ISA(baseline)
#ifdef PYI_WIDE
PYI_CHECK_ISA(avx2)
PYI_CHECK_ISA(avx512)
#endif

template <class S>
void check_all() {
  for (const int64_t count : {0, 1, 3, 16, 77, 500}) {
    for (const Problem<S>& p : {Problem<S>(count, 0.7, 0.5, 0.3, 0.9), Problem<S>(count, 0.1, 0, 0, 0),
                                Problem<S>(count, 1, 100, 1, -1)}) {
      baseline_check(p);
#ifdef PYI_WIDE
      if (best_isa() >= Isa::avx2) {
        avx2_check(p);
      }
      if (best_isa() >= Isa::avx512) {
        avx512_check(p);
      }
#endif
    }
  }
}

}  // namespace pyinterp::test

int main() {
  using namespace pyinterp::test;
  check_all<float>();
  check_all<double>();
  return report("elastic_prox");
}
