// softmax_residual_: the loops of every instruction set against the definition.
#include "cpu/for_each_isa.h"
#include "softmax_problem.h"

namespace pyinterp::test {

#define PYI_CHECK_ISA(isa)                                                                           \
  template <class S>                                                                                 \
  void isa##_check(const Problem<S>& p) {                                                            \
    p.check(#isa, [&](S* x, S* losses) {                                                             \
      const int64_t middle = p.rows / 3; /* as two threads would */                                  \
      isa::softmax_rows(x, p.classes, p.labels.data(), p.weight(), losses, 0, middle);               \
      isa::softmax_rows(x, p.classes, p.labels.data(), p.weight(), losses, middle, p.rows);          \
    });                                                                                              \
  }

PYI_CHECK_ISA(baseline)
#ifdef PYI_WIDE
PYI_CHECK_ISA(avx2)
PYI_CHECK_ISA(avx512)
#endif

template <class S>
void check_cpu(const Problem<S>& p) {
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

template <class S>
void check_all() {
  for (const bool weighed : {false, true}) {
    for (const S shift : {S{0}, S{500}, S{-500}}) {
      for (const int64_t classes : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 100}) {
        check_cpu(Problem<S>(21, classes, weighed, shift));
      }
    }
  }
}

}  // namespace pyinterp::test

int main() {
  using namespace pyinterp::test;
  check_all<float>();
  check_all<double>();
  return report("softmax_residual_");
}
