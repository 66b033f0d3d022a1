// The vector arithmetic under the CPU loops: exp and the normal distribution to float32 accuracy, and the
// conversions of 16-bit numbers bit by bit against torch's own.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstring>
#include <limits>

#include "check.h"
#include "cpu/for_each_isa.h"

namespace pyinterp::test {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

#define PYI_CHECK_LANES(isa, target, lanes)                                                                \
  target void isa##_values(const float* in, float* exp, float* cdf, float* pdf) {                          \
    const isa::Vec v = isa::load(in);                                                                      \
    isa::Vec density;                                                                                      \
    isa::store(exp, isa::exp_of(v));                                                                       \
    isa::store(cdf, isa::normal_cdf(v, density));                                                          \
    isa::store(pdf, density);                                                                              \
  }                                                                                                        \
  target void isa##_double_exp(const double* in, double* out) {                                            \
    isa::store_vector(out, isa::exp_of(isa::load_vector(in)));                                             \
  }                                                                                                        \
  template <class T>                                                                                       \
  target void isa##_convert(const float* in, T* out, float* back) {                                        \
    isa::store(out, isa::load(in));                                                                        \
    isa::store(back, isa::load(out));                                                                      \
  }                                                                                                        \
  struct isa##_lanes {                                                                                     \
    static constexpr int kWidth = lanes;                                                                   \
    static constexpr const char* kName = #isa;                                                             \
    static void values(const float* in, float* exp, float* cdf, float* pdf) {                              \
      isa##_values(in, exp, cdf, pdf);                                                                     \
    }                                                                                                      \
    static void double_exp(const double* in, double* out) {                                                \
      isa##_double_exp(in, out);                                                                           \
    }                                                                                                      \
    template <class T>                                                                                     \
    static void convert(const float* in, T* out, float* back) {                                            \
      isa##_convert<T>(in, out, back);                                                                     \
    }                                                                                                      \
  };

PYI_CHECK_LANES(baseline, , 4)
#ifdef PYI_WIDE
PYI_CHECK_LANES(avx2, __attribute__((target("avx2,fma,f16c"))), 8)
PYI_CHECK_LANES(avx512, __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq"))), 16)
#endif

// Relative error of at most `units` units of float32, away from numbers that float32 cannot hold in full.
template <class Name>
void check_relative(const Name& name, float got, double wanted, double units) {
  close(name, got, wanted, wanted == 0 ? 0 : units * 1.2e-7 * std::fabs(wanted) + 1.2e-38);
}

template <class Lanes>
void check_functions() {
  float in[16], exp[16], cdf[16], pdf[16];
  for (int i = -100000; i <= 100000; i += Lanes::kWidth) {
    for (int k = 0; k < Lanes::kWidth; ++k) {
      in[k] = static_cast<float>(i + k) * 1.1e-3f;
    }
    Lanes::values(in, exp, cdf, pdf);
    for (int k = 0; k < Lanes::kWidth; ++k) {
      const auto name = [&] { return std::string(Lanes::kName) + " at " + std::to_string(in[k]); };
      const double x = in[k];
      if (x > -87 && x < 88) {
        check_relative([&] { return "exp " + name(); }, exp[k], std::exp(x), 2);
      }
      if (std::fabs(x) < 12) {
        // Rounding x^2/2 costs x^2/2 units of exp(-x^2/2).
        check_relative([&] { return "cdf " + name(); }, cdf[k], 0.5 * std::erfc(-x / std::sqrt(2.0)), 6 + x * x);
        check_relative([&] { return "pdf " + name(); }, pdf[k], std::exp(-0.5 * x * x) / std::sqrt(2 * M_PI), 3 + x * x);
      }
    }
  }
  const float special[16] = {kInfinity, -kInfinity, kNan, 0, 89, -104, 1e30f, -1e30f};
  const double wanted_exp[16] = {kInfinity, 0, kNan, 1, kInfinity, 0, kInfinity, 0, 1, 1, 1, 1, 1, 1, 1, 1};
  const double wanted_cdf[16] = {1, 0, kNan, 0.5, 1, 0, 1, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5};
  for (int i = 0; i < 16; i += Lanes::kWidth) {
    Lanes::values(special + i, exp, cdf, pdf);
    for (int k = 0; k < Lanes::kWidth; ++k) {
      const auto name = [&] { return std::string(Lanes::kName) + " special " + std::to_string(i + k); };
      close([&] { return "exp " + name(); }, exp[k], wanted_exp[i + k], 1e-7);
      close([&] { return "cdf " + name(); }, cdf[k], wanted_cdf[i + k], 1e-6);
    }
  }
}

template <class Lanes>
void check_double_exp() {
  constexpr int kWidth = Lanes::kWidth / 2;
  double in[8], out[8];
  const auto compare = [&](double units) {
    Lanes::double_exp(in, out);
    for (int k = 0; k < kWidth; ++k) {
      const auto name = [&] { return std::string(Lanes::kName) + " exp in double at " + std::to_string(in[k]); };
      const double wanted = in[k] > 709.08 ? kInfinity : in[k] < -708.39 ? 0 : std::exp(in[k]);
      close(name, out[k], wanted, units * 2.3e-16 * wanted);
    }
  };
  for (int i = -100000; i <= 100000; i += kWidth) {
    for (int k = 0; k < kWidth; ++k) {
      in[k] = (i + k) * 7.05e-3;
    }
    compare(2);
  }
  const double special[8] = {kInfinity, -kInfinity, kNan, 0, 710, -709, 1e300, -1e300};
  for (int i = 0; i < 8; i += kWidth) {
    std::memcpy(in, special + i, sizeof(double) * kWidth);
    compare(0);
  }
}

// Every 16-bit pattern, every midpoint between two of them, and a step to either side.
template <class Lanes, class T>
void check_conversions() {
  float in[16], back[16];
  T out[16];
  int k = 0;
  const auto flush = [&] {
    Lanes::template convert<T>(in, out, back);
    for (int i = 0; i < Lanes::kWidth; ++i) {
      const T wanted = static_cast<T>(in[i]);
      const bool nan = std::isnan(in[i]);
      const auto name = [&] { return std::string(Lanes::kName) + " convert " + std::to_string(in[i]); };
      close(name, out[i].x, nan ? out[i].x : wanted.x, 0);
      close([&] { return name() + " back"; }, back[i], nan ? kNan : static_cast<float>(wanted), 0);
    }
    k = 0;
  };
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const T number(static_cast<uint16_t>(bits), T::from_bits());
    const T next(static_cast<uint16_t>(bits + 1), T::from_bits());
    const float value = static_cast<float>(number);
    const float middle = 0.5f * value + 0.5f * static_cast<float>(next);
    for (const float x : {value, middle, std::nextafter(middle, kInfinity), std::nextafter(middle, -kInfinity)}) {
      in[k++] = x;
      if (k == Lanes::kWidth) {
        flush();
      }
    }
  }
  in[0] = 3e38f;
  in[1] = float_of(0x7fffffffu);
  in[2] = float_of(0x7f800001u);
  in[3] = -65520;
  for (int i = 4; i < Lanes::kWidth; ++i) {
    in[i] = 0;
  }
  flush();
}

template <class Lanes>
void check_all() {
  check_functions<Lanes>();
  check_double_exp<Lanes>();
  check_conversions<Lanes, c10::BFloat16>();
  check_conversions<Lanes, c10::Half>();
}

}  // namespace pyinterp::test

int main() {
  using namespace pyinterp::test;
  check_all<baseline_lanes>();
#ifdef PYI_WIDE
  if (pyinterp::best_isa() >= pyinterp::Isa::avx2) {
    check_all<avx2_lanes>();
  }
  if (pyinterp::best_isa() >= pyinterp::Isa::avx512) {
    check_all<avx512_lanes>();
  }
#endif
  return report("lanes");
}
