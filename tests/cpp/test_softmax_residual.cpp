// softmax_residual_: the loops of every instruction set and the bodies of the CUDA kernels, against the definition.
#include "host_cuda.h"
// After it: the kernel needs its words.
#include <random>
#include <vector>

#include "check.h"
#include "cpu/for_each_isa.h"
#include "cuda/softmax_kernel.cuh"

namespace pyinterp::test {

template <class S>
struct Problem {
  int64_t rows, classes;
  std::vector<S> logits, weights;
  std::vector<int64_t> labels;
  std::vector<double> residuals, losses;

  Problem(int64_t rows_, int64_t classes_, bool weighed, S shift) : rows(rows_), classes(classes_) {
    std::mt19937 random(static_cast<unsigned>(rows * 1000 + classes));
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < rows * classes; ++i) {
      logits.push_back(static_cast<S>(4 * normal(random)) + shift);
    }
    for (int64_t i = 0; i < rows; ++i) {
      labels.push_back((i * 7 + 3) % classes);
      if (weighed) {
        weights.push_back(static_cast<S>(0.25 + i % 3));
      }
      const double weight = weighed ? weights[i] : 1;
      double most = -1e300, total = 0;
      for (int64_t j = 0; j < classes; ++j) {
        most = std::fmax(most, at(i, j));
      }
      for (int64_t j = 0; j < classes; ++j) {
        total += std::exp(at(i, j) - most);
      }
      for (int64_t j = 0; j < classes; ++j) {
        residuals.push_back(weight * (std::exp(at(i, j) - most) / total - (j == labels[i])));
      }
      losses.push_back(weight * (std::log(total) + (most - at(i, labels[i]))));
    }
  }

  double at(int64_t i, int64_t j) const { return logits[i * classes + j]; }

  const S* weight() const { return weights.empty() ? nullptr : weights.data(); }

  // run(logits, losses) does it in place.
  template <class Run>
  void check(const std::string& side, const Run& run) const {
    std::vector<S> x(logits), found(rows, S{99});
    run(x.data(), found.data());
    const double unit = sizeof(S) == 8 ? 1e-14 : 1e-6;
    const auto name = [&](const char* what, size_t i) {
      return side + " " + what + " (" + std::to_string(rows) + ", " + std::to_string(classes) + ") at " +
          std::to_string(i);
    };
    for (size_t i = 0; i < x.size(); ++i) {
      const bool at_label = static_cast<int64_t>(i) % classes == labels[i / classes];  // there 1 is subtracted
      const double size = std::fabs(residuals[i]) + (at_label ? 1 : 0.01);
      close([&] { return name("residual", i); }, x[i], residuals[i], unit * size);
    }
    for (size_t i = 0; i < found.size(); ++i) {
      close([&] { return name("loss", i); }, found[i], losses[i], unit * (1 + std::fabs(losses[i])));
    }
  }
};

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

template <int warps, int items, class S>
void check_cuda(const Problem<S>& p, unsigned at_once) {
  p.check("cuda " + std::to_string(warps) + " x " + std::to_string(items), [&](S* x, S* losses) {
    const cuda::SoftmaxPass<S> pass{x, p.labels.data(), p.weight(), losses, p.rows, p.classes};
    host_cuda::launch(cuda::softmax_kernel<S, warps, items>, 2, dim3(32 * warps, at_once), pass);
  });
}

template <class S>
void check_all() {
  for (const bool weighed : {false, true}) {
    for (const S shift : {S{0}, S{500}, S{-500}}) {
      for (const int64_t classes : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 100}) {
        check_cpu(Problem<S>(21, classes, weighed, shift));
      }
    }
    for (const int64_t classes : {1, 2, 31, 32, 33, 64, 65, 200}) {  // within and beyond what the threads hold
      const Problem<S> p(5, classes, weighed, S{20});
      check_cuda<1, 1>(p, 2);
      check_cuda<1, 4>(p, 1);
      check_cuda<2, 2>(p, 1);
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
