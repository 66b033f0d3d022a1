// Rows of logits become residuals of the cross entropy in place: the loops of softmax_residual_.
//
// No include guard: for_each_isa.h includes this once per instruction set, inside that set's namespace.

// Folds the lanes onto each other: f of all of them, in every lane.
template <class F>
PYI_HD Vec fold_lanes(Vec v, const F& f) {
  PYI_UNROLL
  for (int half = PYI_LANES / 2; half > 0; half /= 2) {
    IntVec from;
    for (int i = 0; i < PYI_LANES; ++i) {
      from[i] = i ^ half;
    }
    v = f(v, __builtin_shuffle(v, from));
  }
  return v;
}

PYI_HD Vec larger(Vec a, Vec b) { return a > b ? a : b; }  // a NaN does not count: the sum after it brings it back

// The first `count` lanes come from memory, the others are -infinity, whose exp is 0.
PYI_HD Vec load_first(const float* p, int64_t count) {
  float buffer[PYI_LANES];
  store(buffer, Vec{} - __builtin_inff());
  __builtin_memcpy(buffer, p, count * sizeof(float));
  return load(buffer);
}

PYI_HD void store_first(float* p, Vec v, int64_t count) {
  float buffer[PYI_LANES];
  store(buffer, v);
  __builtin_memcpy(p, buffer, count * sizeof(float));
}

// One row of k >= PYI_LANES numbers; gives its loss.
PYI_HD float softmax_row(float* x, int64_t k, int64_t label, float weight) {
  const int64_t full = k / PYI_LANES * PYI_LANES, rest = k - full;
  const float chosen = x[label];
  const Vec last = load_first(x + full, rest);
  Vec most = last;
  for (int64_t i = 0; i < full; i += PYI_LANES) {
    most = larger(load(x + i), most);
  }
  most = fold_lanes(most, [](Vec a, Vec b) { return larger(a, b); });
  const Vec tail = exp_of(Vec(last - most));
  Vec total = tail;
  for (int64_t i = 0; i < full; i += PYI_LANES) {
    const Vec e = exp_of(Vec(load(x + i) - most));
    total += e;
    store(x + i, e);
  }
  total = fold_lanes(total, [](Vec a, Vec b) { return a + b; });
  const Vec scale = weight / total;
  for (int64_t i = 0; i < full; i += PYI_LANES) {
    store(x + i, load(x + i) * scale);
  }
  store_first(x + full, tail * scale, rest);
  x[label] -= weight;
  return weight * (std::log(total[0]) + (most[0] - chosen));
}

// PYI_LANES rows of k < PYI_LANES numbers, one in each lane.
PYI_HD void softmax_lanes(float* x, int64_t k, const int64_t* labels, const float* weights, float* losses, int rows) {
  float lanes[PYI_LANES][PYI_LANES];
  float chosen[PYI_LANES] = {}, weight[PYI_LANES] = {}, loss[PYI_LANES];
  Vec most = Vec{} - __builtin_inff();
  for (int64_t j = 0; j < k; ++j) {
    for (int i = 0; i < PYI_LANES; ++i) {
      lanes[j][i] = i < rows ? x[i * k + j] : 0;
    }
    most = larger(load(lanes[j]), most);
  }
  for (int i = 0; i < rows; ++i) {
    chosen[i] = x[i * k + labels[i]];
    weight[i] = weights ? weights[i] : 1;
  }
  Vec total{};
  for (int64_t j = 0; j < k; ++j) {
    const Vec e = exp_of(Vec(load(lanes[j]) - most));
    total += e;
    store(lanes[j], e);
  }
  const Vec scale = load(weight) / total;
  for (int64_t j = 0; j < k; ++j) {
    store(lanes[j], load(lanes[j]) * scale);
    for (int i = 0; i < rows; ++i) {
      x[i * k + j] = lanes[j][i];
    }
  }
  store(loss, most - load(chosen));
  for (int i = 0; i < rows; ++i) {
    x[i * k + labels[i]] -= weight[i];
    losses[i] = weight[i] * (std::log(total[i]) + loss[i]);
  }
}

inline void softmax_rows(
    float* x, int64_t k, const int64_t* labels, const float* weights, float* losses, int64_t begin, int64_t end) {
  if (k < PYI_LANES) {
    for (int64_t row = begin; row < end; row += PYI_LANES) {
      const int rows = end - row < PYI_LANES ? static_cast<int>(end - row) : PYI_LANES;
      softmax_lanes(x + row * k, k, labels + row, weights ? weights + row : nullptr, losses + row, rows);
    }
    return;
  }
  for (int64_t row = begin; row < end; ++row) {
    losses[row] = softmax_row(x + row * k, k, labels[row], weights ? weights[row] : 1);
  }
}

inline void softmax_rows(
    double* x, int64_t k, const int64_t* labels, const double* weights, double* losses, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    double* const p = x + row * k;
    const double chosen = p[labels[row]], weight = weights ? weights[row] : 1;
    double most = p[0], total = 0;
    for (int64_t j = 1; j < k; ++j) {
      most = p[j] > most ? p[j] : most;
    }
    for (int64_t j = 0; j < k; ++j) {
      p[j] = std::exp(p[j] - most);
      total += p[j];
    }
    for (int64_t j = 0; j < k; ++j) {
      p[j] *= weight / total;
    }
    p[labels[row]] -= weight;
    losses[row] = weight * (std::log(total) + (most - chosen));
  }
}
