// The formulas of gate and gated_affine, for one number or for a vector of lanes.
//
// No include guard: CPU code includes this once per instruction set, inside that set's namespace, because GCC
// splits wide vectors in any function that is parsed under a narrower target. Whoever includes it has declared, for
// its own V (float, double or a vector of floats), number<V>(double), exp_of(V) and normal_cdf(V, V& pdf).

enum class Act : long { none, relu, relu6, silu, hardswish, gelu, gelu_tanh };

// sigmoid and its derivative, which keeps its digits where s is almost 1; s (1 - s) does not.
template <class V>
PYI_HD V sigmoid(V z, V& derivative) {
  const V zero{};
  const V e = exp_of(V(z < zero ? z : -z));
  const V r = 1.0f / (1.0f + e);
  derivative = e * r * r;
  return z < zero ? e * r : r;
}

template <Act act, class V>
PYI_HD V activate(V z) {
  const V zero{};
  if constexpr (act == Act::none) {
    return z;
  } else if constexpr (act == Act::relu) {
    return z < zero ? zero : z;  // this way round NaN stays NaN
  } else if constexpr (act == Act::relu6) {
    const V low = z < zero ? zero : z;
    return low > zero + 6.0f ? zero + 6.0f : low;
  } else if constexpr (act == Act::silu) {
    return z / (1.0f + exp_of(V(-z)));
  } else if constexpr (act == Act::hardswish) {
    const V inner = z * (z + 3.0f) / 6.0f;
    const V low = z < zero - 3.0f ? zero : inner;
    return z > zero + 3.0f ? z : low;
  } else if constexpr (act == Act::gelu) {
    V pdf;
    return z * normal_cdf(z, pdf);
  } else {
    // 0.5 (1 + tanh u) = sigmoid(2u)
    const V u2 = z * (number<V>(1.5957691216057308) + number<V>(0.07135481627260025) * z * z);
    return z / (1.0f + exp_of(V(-u2)));
  }
}

// The derivative of activate by z.
template <Act act, class V>
PYI_HD V slope(V z) {
  const V zero{};
  const V one = zero + 1.0f;
  if constexpr (act == Act::none) {
    return one;
  } else if constexpr (act == Act::relu) {
    return z > zero ? one : zero;
  } else if constexpr (act == Act::relu6) {
    const V low = z > zero ? one : zero;
    return z < zero + 6.0f ? low : zero;
  } else if constexpr (act == Act::silu) {
    V ds;
    const V s = sigmoid(z, ds);
    return s + z * ds;
  } else if constexpr (act == Act::hardswish) {
    const V inner = z / 3.0f + 0.5f;
    const V low = z > zero - 3.0f ? inner : zero;
    return z < zero + 3.0f ? low : one;
  } else if constexpr (act == Act::gelu) {
    V pdf;
    const V cdf = normal_cdf(z, pdf);
    return cdf + z * pdf;
  } else {
    const V zz = z * z;
    V ds;
    const V s = sigmoid(V(z * (number<V>(1.5957691216057308) + number<V>(0.07135481627260025) * zz)), ds);
    return s + z * ds * (number<V>(1.5957691216057308) + number<V>(0.21406444881780076) * zz);
  }
}

// y = g x
struct Gate {
  static constexpr int kTables = 1;  // g

  template <class V>
  static PYI_HD V forward(V x, const V* c) {
    return x * c[0];
  }

  // dx; `term` is what dy adds to the gradient of g.
  template <class V>
  static PYI_HD V backward(V dy, V x, const V* c, V& term) {
    term = dy * x;
    return dy * c[0];
  }
};

// y = act(g (scale x + shift))
template <Act act>
struct GatedAffine {
  static constexpr int kTables = 3;  // g, scale, shift

  template <class V>
  static PYI_HD V forward(V x, const V* c) {
    return activate<act>(V(c[0] * (c[1] * x + c[2])));
  }

  template <class V>
  static PYI_HD V backward(V dy, V x, const V* c, V& term) {
    const V affine = c[1] * x + c[2];
    const V dz = dy * slope<act>(V(c[0] * affine));
    term = dz * affine;
    return dz * (c[0] * c[1]);
  }
};
