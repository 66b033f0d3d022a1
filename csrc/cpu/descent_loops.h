// Cyclic coordinate descent over one row of gram_descent after the other.
//
// No include guard: for_each_isa.h includes this once per instruction set, inside that set's namespace.
//
// The residual r = c - G w is made anew, block of coordinates by block, whenever a sweep over all of them comes by.
// That costs as much as keeping it up to date, needs no second pass after the sweeps over the active coordinates, and
// adds up no rounding errors. Those sweeps have a residual of their own, on a Gram matrix of the active coordinates
// alone: at 512 and 2048 coordinates that is 2 and 3 times faster than updating the residual of all.

// One bit for each lane of a mask.
#if PYI_LANES == 16
PYI_HD unsigned bits_of(IntVec mask) { return _mm512_movepi32_mask((__m512i)mask); }
PYI_HD unsigned bits_of(LongVec mask) { return _mm512_movepi64_mask((__m512i)mask); }
#elif PYI_LANES == 8
PYI_HD unsigned bits_of(IntVec mask) { return static_cast<unsigned>(_mm256_movemask_ps((__m256)mask)); }
PYI_HD unsigned bits_of(LongVec mask) { return static_cast<unsigned>(_mm256_movemask_pd((__m256d)mask)); }
#else
template <class Mask>
PYI_HD unsigned bits_of(Mask mask) {
  unsigned bits = 0;
  for (unsigned i = 0; i < sizeof(mask) / sizeof(mask[0]); ++i) {
    bits |= mask[i] ? 1u << i : 0u;
  }
  return bits;
}
#endif

// The soft threshold; NaN stays NaN.
template <class S>
PYI_HD S shrink(S z, S l1) {
  const S size = std::fabs(z) - l1;
  return size <= 0 ? 0 : std::copysign(size, z);
}

// r[0, count) -= change * row[0, count).
template <class S>
PYI_HD void subtract(S* r, const S* row, S change, int64_t count) {
  using V = typename Wideness<S>::V;
  const V factor = V{} + change;
  int64_t i = 0;
  for (; i + kVector<S> <= count; i += kVector<S>) {
    store_vector(r + i, V(load_vector(r + i) - factor * load_vector(row + i)));
  }
  for (; i < count; ++i) {
    r[i] -= change * row[i];
  }
}

constexpr int64_t kAhead = 4;  // rows whose numbers are on their way to the cache

// r[0, vectors * lanes) -= the sum over the `count` listed coordinates i of w_i gram[i, first ...].
template <int vectors, class S>
PYI_HD void subtract_rows(
    S* r, const S* gram, int64_t size, int64_t first, const S* w, const int32_t* list, int64_t count) {
  using V = typename Wideness<S>::V;
  V total[vectors];
  PYI_UNROLL
  for (int k = 0; k < vectors; ++k) {
    total[k] = load_vector(r + k * kVector<S>);
  }
  for (int64_t n = 0; n < count; ++n) {
    const S* const row = gram + list[n] * size + first;
    const V factor = V{} + w[list[n]];
    const S* const later = gram + list[n + kAhead < count ? n + kAhead : n] * size + first;
    for (size_t line = 0; line < sizeof(total) / 64; ++line) {
      __builtin_prefetch(later + line * (64 / sizeof(S)));
    }
    PYI_UNROLL
    for (int k = 0; k < vectors; ++k) {
      total[k] -= factor * load_vector(row + k * kVector<S>);
    }
  }
  PYI_UNROLL
  for (int k = 0; k < vectors; ++k) {
    store_vector(r + k * kVector<S>, total[k]);
  }
}

template <class S>
class Descent {
 public:
  explicit Descent(const DescentPass<S>& pass)
      : p_(pass), block_(new S[kBlock]), list_(new int32_t[pass.size]), before_(new int32_t[pass.size]) {}

  // The row from its start to its end; gives the sweeps that it took.
  int64_t solve(int64_t row) {
    c_ = p_.linear + row * p_.size;
    w_ = p_.weights + row * p_.size;
    count_ = 0;
    for (int64_t j = 0; j < p_.size; ++j) {
      w_[j] = p_.curvature[j] == 0 ? 0 : w_[j];
      if (w_[j] != 0) {
        list_[count_++] = static_cast<int32_t>(j);
      }
    }
    int64_t sweeps = 0;
    while (sweeps < p_.max_sweeps) {
      ++sweeps;
      if (!sweep_all()) {
        break;
      }
      if (sweeps < p_.max_sweeps) {
        gather();
        do {
          ++sweeps;
        } while (sweep_active() && sweeps < p_.max_sweeps);
        scatter();
      }
    }
    return sweeps;
  }

 private:
  static constexpr int64_t kBlock = 256;  // coordinates whose residual is made at once
  static constexpr int kTile = 8;         // vectors of it in registers

  // Sets w to its optimum given the others; gives the change. A weight that keeps its sign changes by its gradient: the
  // fewest operations between a residual and the next one, which waits for it.
  PYI_HD S improve(S& w, S residual, S diagonal, S curvature, S inverse, bool& moved) const {
    S change = (residual - ((w < 0 ? -p_.l1 : p_.l1) + p_.l2 * w)) * inverse;
    S fresh = w + change;
    if (!(w * fresh > 0)) {
      fresh = shrink(residual + diagonal * w, p_.l1) * inverse;
      change = fresh - w;
    }
    w = fresh;
    moved |= !(std::fabs(change) * curvature <= p_.tolerance);
    return change;
  }

  // r[0, count) -= the sum over the listed coordinates i of w_i G[i, first ...].
  PYI_HD void subtract_all(S* r, int64_t first, int64_t count, const int32_t* list, int64_t listed) const {
    constexpr int64_t kWidth = kVector<S>;
    int64_t i = 0;
    for (; i + kTile * kWidth <= count; i += kTile * kWidth) {
      subtract_rows<kTile>(r + i, p_.gram, p_.size, first + i, w_, list, listed);
    }
    for (; i + kWidth <= count; i += kWidth) {
      subtract_rows<1>(r + i, p_.gram, p_.size, first + i, w_, list, listed);
    }
    for (int64_t n = 0; i < count && n < listed; ++n) {
      const S* const row = p_.gram + list[n] * p_.size + first;
      for (int64_t k = i; k < count; ++k) {
        r[k] -= w_[list[n]] * row[k];
      }
    }
  }

  // The first of the coordinates j ... count that is not zero or would not stay so; count if there is none.
  PYI_HD int64_t next(const S* r, const S* w, int64_t j, int64_t count) const {
    using V = typename Wideness<S>::V;
    const V zero{}, most = zero + p_.l1;
    for (; j + kVector<S> <= count; j += kVector<S>) {
      const V here = load_vector(r + j), size = here < zero ? -here : here;
      const unsigned bits = bits_of((load_vector(w + j) != zero) | ~(size <= most));
      if (bits != 0) {
        return j + __builtin_ctz(bits);
      }
    }
    for (; j < count && w[j] == 0 && std::fabs(r[j]) <= p_.l1; ++j) {
    }
    return j;
  }

  // A sweep over all coordinates, which lists those not zero; gives whether one moved by more than the tolerance.
  bool sweep_all() {
    bool moved = false;
    std::swap(list_, before_);
    int64_t fresh = 0, done = 0;  // the new list, and the part of the old one that was passed
    S* const r = block_.get();
    for (int64_t first = 0; first < p_.size; first += kBlock) {
      const int64_t count = p_.size - first < kBlock ? p_.size - first : kBlock;
      S* const w = w_ + first;
      __builtin_memcpy(r, c_ + first, count * sizeof(S));
      subtract_all(r, first, count, list_.get(), fresh);
      subtract_all(r, first, count, before_.get() + done, count_ - done);
      for (int64_t j = next(r, w, 0, count); j < count; j = next(r, w, j + 1, count)) {
        const int64_t at = first + j;
        if (p_.curvature[at] == 0) {
          continue;
        }
        const S change = improve(w[j], r[j], p_.diagonal[at], p_.curvature[at], p_.inverse[at], moved);
        if (change != 0) {  // nobody asks for the residuals before j again
          const int64_t from = j / kVector<S> * kVector<S>;
          subtract(r + from, p_.gram + at * p_.size + first + from, change, count - from);
        }
      }
      while (done < count_ && before_[done] < first + count) {
        ++done;
      }
      for (int64_t j = 0; j < count; ++j) {
        list_[fresh] = static_cast<int32_t>(first + j);
        fresh += w[j] != 0;
      }
    }
    count_ = fresh;
    return moved;
  }

  // The active coordinates side by side: their Gram matrix, weights and residuals.
  void gather() {
    constexpr int64_t kWidth = kVector<S>;
    stride_ = (count_ + kWidth - 1) / kWidth * kWidth;
    if (stride_ > room_) {
      room_ = stride_ * 2 < p_.size + kWidth ? stride_ * 2 : p_.size + kWidth;
      gram_.reset(new S[room_ * room_]);
      vectors_.reset(new S[room_ * 5]);
    }
    weights_ = vectors_.get();
    residual_ = weights_ + room_;
    diagonal_ = residual_ + room_;
    curvature_ = diagonal_ + room_;
    inverse_ = curvature_ + room_;
    for (int64_t i = 0; i < stride_; ++i) {
      const int64_t at = i < count_ ? list_[i] : 0;
      weights_[i] = i < count_ ? w_[at] : 0;
      residual_[i] = i < count_ ? c_[at] : 0;
      diagonal_[i] = p_.diagonal[at];
      curvature_[i] = p_.curvature[at];
      inverse_[i] = p_.inverse[at];
    }
    for (int64_t i = 0; i < count_; ++i) {
      const S* const row = p_.gram + list_[i] * p_.size;
      S* const packed = gram_.get() + i * stride_;
      for (int64_t j = 0; j < count_; ++j) {
        packed[j] = row[list_[j]];
      }
      for (int64_t j = count_; j < stride_; ++j) {
        packed[j] = 0;
      }
      subtract(residual_, packed, weights_[i], stride_);
    }
  }

  bool sweep_active() {
    bool moved = false;
    for (int64_t i = 0; i < count_; ++i) {
      const S change = improve(weights_[i], residual_[i], diagonal_[i], curvature_[i], inverse_[i], moved);
      if (change != 0) {
        subtract(residual_, gram_.get() + i * stride_, change, stride_);
      }
    }
    return moved;
  }

  void scatter() {
    for (int64_t i = 0; i < count_; ++i) {
      w_[list_[i]] = weights_[i];
    }
    int64_t kept = 0;
    for (int64_t i = 0; i < count_; ++i) {
      list_[kept] = list_[i];
      kept += weights_[i] != 0;
    }
    count_ = kept;
  }

  const DescentPass<S>& p_;
  const S* c_ = nullptr;
  S* w_ = nullptr;
  std::unique_ptr<S[]> block_, gram_, vectors_;
  std::unique_ptr<int32_t[]> list_, before_;  // the coordinates that are not zero, in order; those before this sweep
  int64_t count_ = 0, stride_ = 0, room_ = 0;
  S *weights_ = nullptr, *residual_ = nullptr, *diagonal_ = nullptr, *curvature_ = nullptr, *inverse_ = nullptr;
};

template <class S>
void descend(const DescentPass<S>& pass, std::atomic<int64_t>& next, int64_t rows) {
  Descent<S> descent(pass);
  for (int64_t row = next++; row < rows; row = next++) {
    pass.sweeps[row] = descent.solve(row);
  }
}
