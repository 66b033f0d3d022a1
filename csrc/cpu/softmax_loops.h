// Rows of logits become residuals of the cross entropy in place: the loops of softmax_residual_.
//
// No include guard: for_each_isa.h includes this once per instruction set, inside that set's namespace.

// Folds the lanes onto each other: f of all of them, in every lane.
template <class S, class F>
PYI_HD typename Wideness<S>::V fold_lanes(typename Wideness<S>::V v, const F& f) {
  PYI_UNROLL
  for (int half = kVector<S> / 2; half > 0; half /= 2) {
    typename Wideness<S>::Index from;
    for (int i = 0; i < kVector<S>; ++i) {
      from[i] = i ^ half;
    }
    v = f(v, __builtin_shuffle(v, from));
  }
  return v;
}

// A NaN does not count: the sum after it brings it back.
template <class V>
PYI_HD V larger(V a, V b) {
  return a > b ? a : b;
}

// The first `count` lanes come from memory, the others are -infinity, whose exp is 0.
#if PYI_LANES == 16
PYI_HD Vec load_first(const float* p, int64_t count) {
  return (Vec)_mm512_mask_loadu_ps(_mm512_set1_ps(-__builtin_inff()), (1u << count) - 1, p);
}

PYI_HD DoubleVec load_first(const double* p, int64_t count) {
  return (DoubleVec)_mm512_mask_loadu_pd(_mm512_set1_pd(-__builtin_inf()), (1u << count) - 1, p);
}

PYI_HD void store_first(float* p, Vec v, int64_t count) {
  _mm512_mask_storeu_ps(p, (1u << count) - 1, (__m512)v);
}

PYI_HD void store_first(double* p, DoubleVec v, int64_t count) {
  _mm512_mask_storeu_pd(p, (1u << count) - 1, (__m512d)v);
}
#else
template <class S>
PYI_HD typename Wideness<S>::V load_first(const S* p, int64_t count) {
  S buffer[kVector<S>];
  for (int i = 0; i < kVector<S>; ++i) {
    buffer[i] = i < count ? p[i] : -__builtin_inff();
  }
  return load_vector(buffer);
}

template <class S>
PYI_HD void store_first(S* p, typename Wideness<S>::V v, int64_t count) {
  S buffer[kVector<S>];
  store_vector(buffer, v);
  __builtin_memcpy(p, buffer, count * sizeof(S));
}
#endif

constexpr int kRowsTogether = 4;

// Some rows of k numbers, at least one vector: side by side, because the steps of one row wait for each other.
template <int rows, class S>
PYI_HD void softmax_few(S* x, int64_t k, const int64_t* labels, const S* weights, S* losses) {
  using V = typename Wideness<S>::V;
  constexpr int64_t kWidth = kVector<S>;
  const int64_t full = k / kWidth * kWidth, rest = k - full;
  S chosen[rows];
  V most[rows], total[rows], tail[rows], scale[rows];
  PYI_UNROLL
  for (int r = 0; r < rows; ++r) {
    chosen[r] = x[r * k + labels[r]];
    tail[r] = load_first(x + r * k + full, rest);
    most[r] = tail[r];
  }
  for (int64_t i = 0; i < full; i += kWidth) {
    PYI_UNROLL
    for (int r = 0; r < rows; ++r) {
      most[r] = larger(load_vector(x + r * k + i), most[r]);
    }
  }
  PYI_UNROLL
  for (int r = 0; r < rows; ++r) {
    most[r] = fold_lanes<S>(most[r], [](V a, V b) { return larger(a, b); });
    tail[r] = exp_of(V(tail[r] - most[r]));
    total[r] = tail[r];
  }
  for (int64_t i = 0; i < full; i += kWidth) {
    PYI_UNROLL
    for (int r = 0; r < rows; ++r) {
      const V e = exp_of(V(load_vector(x + r * k + i) - most[r]));
      total[r] += e;
      store_vector(x + r * k + i, e);
    }
  }
  PYI_UNROLL
  for (int r = 0; r < rows; ++r) {
    total[r] = fold_lanes<S>(total[r], [](V a, V b) { return a + b; });
    scale[r] = (weights ? weights[r] : S{1}) / total[r];
  }
  for (int64_t i = 0; i < full; i += kWidth) {
    PYI_UNROLL
    for (int r = 0; r < rows; ++r) {
      store_vector(x + r * k + i, V(load_vector(x + r * k + i) * scale[r]));
    }
  }
  PYI_UNROLL
  for (int r = 0; r < rows; ++r) {
    const S weight = weights ? weights[r] : 1;
    store_first(x + r * k + full, V(tail[r] * scale[r]), rest);
    x[r * k + labels[r]] -= weight;
    losses[r] = weight * (std::log(total[r][0]) + (most[r][0] - chosen[r]));
  }
}

// As many rows as a vector has lanes, one in each; fewer numbers than lanes in a row.
template <class S>
PYI_HD void softmax_lanes(S* x, int64_t k, const int64_t* labels, const S* weights, S* losses, int rows) {
  using V = typename Wideness<S>::V;
  constexpr int kWidth = kVector<S>;
  S lanes[kWidth][kWidth];
  S chosen[kWidth] = {}, weight[kWidth] = {}, loss[kWidth];
  V most = V{} - __builtin_inff();
  for (int64_t j = 0; j < k; ++j) {
    for (int i = 0; i < kWidth; ++i) {
      lanes[j][i] = i < rows ? x[i * k + j] : 0;
    }
    most = larger(load_vector(lanes[j]), most);
  }
  for (int i = 0; i < rows; ++i) {
    chosen[i] = x[i * k + labels[i]];
    weight[i] = weights ? weights[i] : 1;
  }
  V total{};
  for (int64_t j = 0; j < k; ++j) {
    const V e = exp_of(V(load_vector(lanes[j]) - most));
    total += e;
    store_vector(lanes[j], e);
  }
  const V scale = load_vector(weight) / total;
  for (int64_t j = 0; j < k; ++j) {
    store_vector(lanes[j], V(load_vector(lanes[j]) * scale));
    for (int i = 0; i < rows; ++i) {
      x[i * k + j] = lanes[j][i];
    }
  }
  store_vector(loss, V(most - load_vector(chosen)));
  for (int i = 0; i < rows; ++i) {
    x[i * k + labels[i]] -= weight[i];
    losses[i] = weight[i] * (std::log(total[i]) + loss[i]);
  }
}

template <class S>
void softmax_rows(
    S* x, int64_t k, const int64_t* labels, const S* weights, S* losses, int64_t begin, int64_t end) {
  constexpr int64_t kWidth = kVector<S>;
  if (k < kWidth) {
    for (int64_t row = begin; row < end; row += kWidth) {
      const int rows = static_cast<int>(end - row < kWidth ? end - row : kWidth);
      softmax_lanes(x + row * k, k, labels + row, weights ? weights + row : nullptr, losses + row, rows);
    }
    return;
  }
  int64_t row = begin;
  for (; row + kRowsTogether <= end; row += kRowsTogether) {
    softmax_few<kRowsTogether>(x + row * k, k, labels + row, weights ? weights + row : nullptr, losses + row);
  }
  for (; row < end; ++row) {
    softmax_few<1>(x + row * k, k, labels + row, weights ? weights + row : nullptr, losses + row);
  }
}
