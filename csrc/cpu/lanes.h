// A vector of PYI_LANES floats: load, store, sum, exp and the normal distribution; and one of half as many doubles.
//
// No include guard: for_each_isa.h includes this once per instruction set, inside that set's namespace.

typedef float Vec __attribute__((vector_size(PYI_LANES * 4)));
typedef int32_t IntVec __attribute__((vector_size(PYI_LANES * 4)));
typedef uint32_t BitVec __attribute__((vector_size(PYI_LANES * 4)));
typedef uint16_t ShortVec __attribute__((vector_size(PYI_LANES * 2)));
typedef double DoubleVec __attribute__((vector_size(PYI_LANES * 4)));
typedef int64_t LongVec __attribute__((vector_size(PYI_LANES * 4)));

// A lane type: the numbers a kernel computes with, and how memory becomes them. Here double has one lane: in the gates
// it serves gradcheck alone. Kernels that work with double themselves take DoubleVec.
template <class T>
struct Lanes {
  using V = Vec;
  using Scalar = float;
  static constexpr int kWidth = PYI_LANES;
};
template <>
struct Lanes<double> {
  using V = double;
  using Scalar = double;
  static constexpr int kWidth = 1;
};

template <class V>
PYI_HD V number(double value);
template <>
PYI_HD Vec number<Vec>(double value) {
  return Vec{} + static_cast<float>(value);
}
template <>
PYI_HD double number<double>(double value) {
  return value;
}

PYI_HD Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

PYI_HD double load(const double* p) {
  return *p;
}

PYI_HD void store(float* p, Vec v) {
  __builtin_memcpy(p, &v, sizeof(v));
}

PYI_HD void store(double* p, double v) {
  *p = v;
}

PYI_HD Vec load(const c10::BFloat16* p) {
  ShortVec half;
  __builtin_memcpy(&half, p, sizeof(half));
  return (Vec)(__builtin_convertvector(half, BitVec) << 16);
}

PYI_HD void store(c10::BFloat16* p, Vec v) {
  const BitVec bits = (BitVec)v;
  const BitVec even = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const BitVec nan = (bits >> 16) | 0x40u;  // rounding up could carry a NaN over to zero
  const ShortVec half = __builtin_convertvector(v != v ? nan : even, ShortVec);
  __builtin_memcpy(p, &half, sizeof(half));
}

#if PYI_LANES == 16
PYI_HD Vec load(const c10::Half* p) {
  return (Vec)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

PYI_HD void store(c10::Half* p, Vec v) {
  const __m256i half = _mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), half);
}
#elif PYI_LANES == 8
PYI_HD Vec load(const c10::Half* p) {
  return (Vec)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

PYI_HD void store(c10::Half* p, Vec v) {
  const __m128i half = _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), half);
}
#else
PYI_HD Vec load(const c10::Half* p) {
  Vec v;
  for (int i = 0; i < PYI_LANES; ++i) {
    v[i] = static_cast<float>(p[i]);
  }
  return v;
}

PYI_HD void store(c10::Half* p, Vec v) {
  for (int i = 0; i < PYI_LANES; ++i) {
    p[i] = static_cast<c10::Half>(static_cast<float>(v[i]));
  }
}
#endif

PYI_HD float sum(Vec v) {
  float total = 0;
  for (int i = 0; i < PYI_LANES; ++i) {
    total += v[i];
  }
  return total;
}

PYI_HD double sum(double v) {
  return v;
}

// The last `count` lanes keep their value, the others become zero.
PYI_HD Vec keep_last(Vec v, int64_t count) {
  IntVec index;
  for (int i = 0; i < PYI_LANES; ++i) {
    index[i] = i;
  }
  return index >= PYI_LANES - static_cast<int32_t>(count) ? v : Vec{};
}

PYI_HD double keep_last(double v, int64_t) {
  return v;
}

// exp within 2 units in the last place: 2^n e^r with |r| <= ln(2)/2 and the Taylor series of e^r.
PYI_HD Vec exp_of(Vec x) {
  const float lowest = -87.33654f, highest = 88.37626f;
  const Vec zero{};
  Vec z = x < lowest ? zero + lowest : x;
  z = z > highest ? zero + highest : z;
  const float to_integer = 12582912.0f;  // 1.5 * 2^23: adding it leaves no room for a fraction
  const Vec n = (z * 1.44269504f + to_integer) - to_integer;
  const Vec r = (z - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  Vec p = zero + 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const Vec power = (Vec)((__builtin_convertvector(n, IntVec) + 127) << 23);
  const Vec e = x < lowest ? zero : p * power;
  return x > highest ? zero + __builtin_inff() : e;
}

// The same in double, for kernels that take DoubleVec.
PYI_HD DoubleVec exp_of(DoubleVec x) {
  const double lowest = -708.39, highest = 709.08;
  const DoubleVec zero{};
  DoubleVec z = x < lowest ? zero + lowest : x;
  z = z > highest ? zero + highest : z;
  const double to_integer = 6755399441055744.0;  // 1.5 * 2^52
  const DoubleVec shifted = z * 1.4426950408889634 + to_integer, n = shifted - to_integer;
  const DoubleVec r = (z - n * 0.693145751953125) - n * 1.4286068203094173e-6;
  double factorial = 6227020800.0;  // 13!
  DoubleVec p = zero + 1 / factorial;
  PYI_UNROLL
  for (int k = 13; k > 0; --k) {
    factorial /= k;
    p = p * r + 1 / factorial;
  }
  const DoubleVec power = (DoubleVec)(((LongVec)shifted + 1023) << 52);  // its last bits are those of n
  const DoubleVec e = x < lowest ? zero : p * power;
  return x > highest ? zero + __builtin_inf() : e;
}

PYI_HD double exp_of(double x) {
  return std::exp(x);
}

// Phi(z), and its density. Phi(-a) = exp(-a^2/2) t q(t), t = 1/(1 + 0.3 a/sqrt 2), q fitted to erfcx for a <= 14
// (relative error 2e-8 before rounding), so the tail keeps its digits.
PYI_HD Vec normal_cdf(Vec z, Vec& pdf) {
  const Vec zero{};
  const Vec a = z < zero ? -z : z;
  const Vec e = exp_of(Vec(-0.5f * z * z));
  const Vec t = 1.0f / (1.0f + 0.21213203f * a);
  Vec q = zero - 0.064761984f;
  q = q * t + 0.24278428f;
  q = q * t - 0.25614462f;
  q = q * t + 0.27386654f;
  q = q * t - 0.047329977f;
  q = q * t + 0.10746504f;
  q = q * t + 0.074169058f;
  q = q * t + 0.085357689f;
  q = q * t + 0.084593998f;
  pdf = e * 0.3989422804f;
  const Vec tail = e * t * q;
  return z > zero ? 1.0f - tail : tail;
}

PYI_HD double normal_cdf(double z, double& pdf) {
  pdf = 0.3989422804014327 * std::exp(-0.5 * z * z);
  return 0.5 * std::erfc(-z * 0.7071067811865476);
}
