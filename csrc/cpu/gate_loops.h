// The loops over memory of gate and gated_affine, written once for any Op of gate.h.
//
// No include guard: for_each_isa.h includes this once per instruction set, inside that set's namespace.
//
// Lengths are rarely a multiple of the lanes. The last full vector then overlaps numbers that are done, which is
// cheaper than a short one; where it is summed, keep_last drops what was counted. Only rows with fewer numbers than
// lanes go through a buffer.

// Fewer numbers than lanes go to the last lanes, so that keep_last drops the rest.
template <class T>
PYI_HD typename Lanes<T>::V load_short(const T* p, int64_t count) {
  constexpr int kWidth = Lanes<T>::kWidth;
  T buffer[kWidth] = {};
  for (int64_t i = 0; i < count; ++i) {
    buffer[kWidth - count + i] = p[i];
  }
  return load(buffer);
}

template <class T>
PYI_HD void store_short(T* p, typename Lanes<T>::V v, int64_t count) {
  constexpr int kWidth = Lanes<T>::kWidth;
  T buffer[kWidth];
  store(buffer, v);
  for (int64_t i = 0; i < count; ++i) {
    p[i] = buffer[kWidth - count + i];
  }
}

// n numbers, at least one vector, of one channel: `c` holds its tables, the same number in every lane.
template <class Op, class T>
PYI_HD void forward_along(const T* x, T* y, int64_t n, const typename Lanes<T>::V* c) {
  constexpr int kWidth = Lanes<T>::kWidth;
  for (int64_t i = 0; i < n; i += kWidth) {
    const int64_t at = n - i < kWidth ? n - kWidth : i;
    store(y + at, Op::forward(load(x + at), c));
  }
}

constexpr int64_t kRun = 64;  // vectors that one sum takes in before it is added to the next level

// Writes dx unless it is null.
template <class Op, class T>
PYI_HD typename Lanes<T>::V backward_at(
    const T* dy, const T* x, T* dx, int64_t at, const typename Lanes<T>::V* c) {
  typename Lanes<T>::V term;
  const auto slope_x = Op::backward(load(dy + at), load(x + at), c, term);
  if (dx != nullptr) {
    store(dx + at, slope_x);
  }
  return term;
}

template <class Op, class T>
PYI_HD typename Lanes<T>::Scalar backward_along(
    const T* dy, const T* x, T* dx, int64_t n, const typename Lanes<T>::V* c) {
  constexpr int kWidth = Lanes<T>::kWidth;
  typename Lanes<T>::V total{};
  int64_t i = 0;
  while (i + kWidth <= n) {
    typename Lanes<T>::V part{};  // short runs, then their sum: the error of a long float32 sum stays small
    const int64_t end = n - i < kRun * kWidth ? n : i + kRun * kWidth;
    for (; i + kWidth <= end; i += kWidth) {
      part += backward_at<Op>(dy, x, dx, i, c);
    }
    total += part;
  }
  if (i < n) {
    total += keep_last(backward_at<Op>(dy, x, dx, n - kWidth, c), n - i);
  }
  return sum(total);
}

// `rows` rows of n channels side by side (inner == 1), at least one vector: every lane has its own tables.
template <class Op, class T>
PYI_HD void forward_across(
    const T* x, T* y, int64_t rows, int64_t stride, int64_t n, const typename Lanes<T>::Scalar* const* tables) {
  constexpr int kWidth = Lanes<T>::kWidth;
  for (int64_t i = 0; i < n; i += kWidth) {
    int64_t at = n - i < kWidth ? n - kWidth : i;
    typename Lanes<T>::V c[Op::kTables];
    for (int k = 0; k < Op::kTables; ++k) {
      c[k] = load(tables[k] + at);
    }
    for (int64_t row = 0; row < rows; ++row, at += stride) {
      store(y + at, Op::forward(load(x + at), c));
    }
  }
}

template <class Op, class T>
PYI_HD void backward_across(
    const T* dy, const T* x, T* dx, int64_t rows, int64_t stride, int64_t n,
    const typename Lanes<T>::Scalar* const* tables, typename Lanes<T>::Scalar* partial) {
  constexpr int kWidth = Lanes<T>::kWidth;
  for (int64_t i = 0; i < n; i += kWidth) {
    const int64_t first = n - i < kWidth ? n - kWidth : i;
    int64_t at = first;
    typename Lanes<T>::V c[Op::kTables];
    for (int k = 0; k < Op::kTables; ++k) {
      c[k] = load(tables[k] + at);
    }
    typename Lanes<T>::V total{};
    for (int64_t row = 0; row < rows; ++row, at += stride) {
      total += backward_at<Op>(dy, x, dx, at, c);
    }
    store(partial + first, load(partial + first) + keep_last(total, n - i < kWidth ? n - i : kWidth));
  }
}

// Fewer channels than lanes, side by side: `rows` rows of n form one run of numbers, whose tables repeat after n vectors.
template <class Op, class T>
struct Narrow {
  using Scalar = typename Lanes<T>::Scalar;
  using V = typename Lanes<T>::V;
  static constexpr int kWidth = Lanes<T>::kWidth;

  int64_t n, period;
  Scalar tables[Op::kTables][kWidth * kWidth];
  Scalar sums[kWidth * kWidth] = {};

  PYI_HD Narrow(int64_t channels, const Scalar* const* given) : n(channels), period(channels * kWidth) {
    for (int k = 0; k < Op::kTables; ++k) {
      for (int64_t i = 0; i < period + kWidth; ++i) {  // the last vector of a run may start anywhere
        tables[k][i] = given[k][i % n];
      }
    }
  }

  // Calls f(first number, its place in the tables, how many are new) for each vector of `count` >= kWidth numbers.
  template <class F>
  PYI_HD void for_vectors(int64_t count, const F& f) {
    int64_t place = 0;
    for (int64_t i = 0; i + kWidth <= count; i += kWidth) {
      f(i, place, kWidth);
      place = place + kWidth < period ? place + kWidth : 0;
    }
    if (count % kWidth) {
      f(count - kWidth, (count - kWidth) % period, count % kWidth);
    }
  }

  PYI_HD void load_tables(int64_t place, V* c) {
    for (int k = 0; k < Op::kTables; ++k) {
      c[k] = load(tables[k] + place);
    }
  }

  PYI_HD void forward(const T* x, T* y, int64_t count) {
    for_vectors(count, [&](int64_t at, int64_t place, int64_t) {
      V c[Op::kTables];
      load_tables(place, c);
      store(y + at, Op::forward(load(x + at), c));
    });
  }

  PYI_HD void backward(const T* dy, const T* x, T* dx, int64_t count, Scalar* partial) {
    for_vectors(count, [&](int64_t at, int64_t place, int64_t fresh) {
      V c[Op::kTables];
      load_tables(place, c);
      const V term = backward_at<Op>(dy, x, dx, at, c);
      store(sums + place, load(sums + place) + keep_last(term, fresh));
    });
    for (int64_t i = 0; i < period + kWidth; ++i) {
      partial[i % n] += sums[i];
    }
  }
};

// The place of one tile in a pass.
template <class T>
struct Tile {
  int64_t first_row, last_row, first_channel, columns;
  typename Lanes<T>::Scalar* partial;
  const typename Lanes<T>::Scalar* tables[3];

  PYI_HD Tile(const Pass<T>& p, int64_t index) {
    const int64_t strip = index % p.tiles.strips;
    const int64_t block = index / p.tiles.strips % p.tiles.blocks;
    const int64_t segment = index / (p.tiles.strips * p.tiles.blocks);
    first_channel = strip * p.tiles.columns;
    columns = p.site.channels - first_channel < p.tiles.columns ? p.site.channels - first_channel : p.tiles.columns;
    first_row = segment * p.site.middle + block * p.tiles.rows;
    const int64_t left = p.site.middle - block * p.tiles.rows;
    last_row = first_row + (left < p.tiles.rows ? left : p.tiles.rows);
    partial = p.partial + (segment * p.tiles.blocks + block) * p.site.channels + first_channel;
    tables[0] = p.tables[0] + (p.group ? p.group[segment] * p.site.channels : 0) + first_channel;
    tables[1] = p.tables[1] + first_channel;
    tables[2] = p.tables[2] + first_channel;
  }

  // Numbers of the tile, where it has no inner size.
  PYI_HD int64_t numbers() const { return (last_row - first_row) * columns; }

  PYI_HD bool is_narrow(const Pass<T>& p) const {
    constexpr int kWidth = Lanes<T>::kWidth;
    return p.site.inner == 1 && columns < kWidth && columns == p.site.channels && numbers() >= kWidth;
  }
};

constexpr int64_t kRowsAtOnce = 4;  // rows that share one load of the tables and of the sum

template <class Op, class T>
void forward_tiles(const Pass<T>& p, int64_t begin, int64_t end) {
  using V = typename Lanes<T>::V;
  constexpr int kWidth = Lanes<T>::kWidth;
  const int64_t inner = p.site.inner, stride = p.site.channels * inner;
  for (int64_t index = begin; index < end; ++index) {
    const Tile<T> t(p, index);
    if (t.is_narrow(p)) {
      Narrow<Op, T> run(t.columns, t.tables);
      run.forward(p.x + t.first_row * stride, p.out + t.first_row * stride, t.numbers());
      continue;
    }
    const bool across = inner == 1 && t.columns >= kWidth;
    for (int64_t row = t.first_row; row < t.last_row; row += across ? kRowsAtOnce : 1) {
      const int64_t start = row * stride + t.first_channel * inner;
      if (across) {
        const int64_t rows = t.last_row - row < kRowsAtOnce ? t.last_row - row : kRowsAtOnce;
        forward_across<Op>(p.x + start, p.out + start, rows, stride, t.columns, t.tables);
        continue;
      }
      for (int64_t channel = 0; channel < t.columns; ++channel) {
        const int64_t at = start + channel * inner;
        V c[Op::kTables];
        for (int k = 0; k < Op::kTables; ++k) {
          c[k] = V{} + t.tables[k][channel];
        }
        if (inner >= kWidth) {
          forward_along<Op>(p.x + at, p.out + at, inner, c);
        } else {
          store_short(p.out + at, Op::forward(load_short(p.x + at, inner), c), inner);
        }
      }
    }
  }
}

template <class Op, class T>
void backward_tiles(const Pass<T>& p, int64_t begin, int64_t end) {
  using V = typename Lanes<T>::V;
  constexpr int kWidth = Lanes<T>::kWidth;
  const int64_t inner = p.site.inner, stride = p.site.channels * inner;
  for (int64_t index = begin; index < end; ++index) {
    const Tile<T> t(p, index);
    for (int64_t channel = 0; channel < t.columns; ++channel) {
      t.partial[channel] = 0;
    }
    if (t.is_narrow(p)) {
      Narrow<Op, T> run(t.columns, t.tables);
      const int64_t start = t.first_row * stride;
      run.backward(p.dy + start, p.x + start, p.out ? p.out + start : nullptr, t.numbers(), t.partial);
      continue;
    }
    const bool across = inner == 1 && t.columns >= kWidth;
    for (int64_t row = t.first_row; row < t.last_row; row += across ? kRowsAtOnce : 1) {
      const int64_t start = row * stride + t.first_channel * inner;
      if (across) {
        const int64_t rows = t.last_row - row < kRowsAtOnce ? t.last_row - row : kRowsAtOnce;
        T* dx = p.out ? p.out + start : nullptr;
        backward_across<Op>(p.dy + start, p.x + start, dx, rows, stride, t.columns, t.tables, t.partial);
        continue;
      }
      for (int64_t channel = 0; channel < t.columns; ++channel) {
        const int64_t at = start + channel * inner;
        T* dx = p.out ? p.out + at : nullptr;
        V c[Op::kTables];
        for (int k = 0; k < Op::kTables; ++k) {
          c[k] = V{} + t.tables[k][channel];
        }
        if (inner >= kWidth) {
          t.partial[channel] += backward_along<Op>(p.dy + at, p.x + at, dx, inner, c);
          continue;
        }
        V term;
        const V slope_x = Op::backward(load_short(p.dy + at, inner), load_short(p.x + at, inner), c, term);
        if (dx != nullptr) {
          store_short(dx, slope_x, inner);
        }
        t.partial[channel] += sum(keep_last(term, inner));
      }
    }
  }
}

// g = sigmoid(scores / temperature) for `count` scores, or its derivative by the score.
template <bool slopes, class S>
void open_gates(const S* scores, S* out, int64_t count, S temperature) {
  using V = typename Lanes<S>::V;
  constexpr int kWidth = Lanes<S>::kWidth;
  for (int64_t i = 0; i < count; i += kWidth) {
    const int64_t left = count - i;
    const V score = left < kWidth ? load_short(scores + i, left) : load(scores + i);
    V slope;
    const V g = sigmoid(V(score / temperature), slope);
    const V result = slopes ? slope / temperature : g;
    if (left < kWidth) {
      store_short(out + i, result, left);
    } else {
      store(out + i, result);
    }
  }
}
