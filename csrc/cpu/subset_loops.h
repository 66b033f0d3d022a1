// The loops over memory of the subset sums: in and out of place, for a row of 2^n numbers or many short rows.
//
// No include guard: for_each_isa.h includes this once per instruction set, inside that set's namespace.
//
// A pass takes several players at once while their 2^r numbers are in registers. The last players go first; a row is
// then 2^r shorter rows that do not need each other, which are finished one after another while they are in cache.

// The vector of a kind of numbers, and the index of a lane.
template <class S>
struct Wideness;
template <>
struct Wideness<float> {
  using V = Vec;
  using Index = IntVec;
};
template <>
struct Wideness<double> {
  using V = DoubleVec;
  using Index = LongVec;
};

template <class S>
constexpr int kVector = PYI_LANES * 4 / static_cast<int>(sizeof(S));

constexpr int log2_of(int count) { return count == 1 ? 0 : 1 + log2_of(count / 2); }

// Players inside a vector, players that one pass takes in registers, and players of the pass that takes both.
template <class S>
constexpr int kLanePlayers = log2_of(kVector<S>);
constexpr int kPassPlayers = PYI_LANES == 16 ? 4 : 3;
template <class S>
constexpr int kLowPlayers = kLanePlayers<S> + kPassPlayers;

PYI_HD Vec load_vector(const float* p) { return load(p); }
PYI_HD DoubleVec load_vector(const double* p) {
  DoubleVec v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

template <class S>
PYI_HD void store_vector(S* p, typename Wideness<S>::V v) {
  __builtin_memcpy(p, &v, sizeof(v));
}

// One player whose two subsets lie in two lanes, `half` apart.
template <class D, class S, int half>
PYI_HD typename Wideness<S>::V sum_lanes(typename Wideness<S>::V v) {
  using Index = typename Wideness<S>::Index;
  Index from;  // lanes beyond the vector are zeros
  for (int i = 0; i < kVector<S>; ++i) {
    const bool target = ((i & half) == 0) == D::superset;
    from[i] = target ? i ^ half : kVector<S> + i;
  }
  const typename Wideness<S>::V source = __builtin_shuffle(v, typename Wideness<S>::V{}, from);
  return D::inverse ? v - source : v + source;
}

// The first `players` <= kLanePlayers players.
template <class D, class S, int players>
PYI_HD typename Wideness<S>::V sum_vector(typename Wideness<S>::V v) {
  if constexpr (players == 0) {
    return v;
  } else {
    return sum_vector<D, S, players - 1>(sum_lanes<D, S, 1 << (players - 1)>(v));
  }
}

// 2^bits numbers, whose index is that of the last `bits` players of a subset.
template <class D, int bits, class V>
PYI_HD void sum_players(V* v) {
  PYI_UNROLL
  for (int half = (1 << bits) / 2; half > 0; half /= 2) {
    PYI_UNROLL
    for (int i = 0; i < 1 << bits; ++i) {
      if ((i & half) == 0) {
        D::step(v[i], v[i + half]);
      }
    }
  }
}

// One pass over the last r players of rows of 2^r * stride numbers: columns [0, count) of one row.
template <class D, int r, class S>
PYI_HD void sum_columns(const S* in, int64_t in_stride, S* out, int64_t out_stride, int64_t count) {
  typename Wideness<S>::V v[1 << r];
  for (int64_t i = 0; i < count; i += kVector<S>) {
    PYI_UNROLL
    for (int k = 0; k < 1 << r; ++k) {
      v[k] = load_vector(in + k * in_stride + i);
    }
    sum_players<D, r>(v);
    PYI_UNROLL
    for (int k = 0; k < 1 << r; ++k) {
      store_vector(out + k * out_stride + i, v[k]);
    }
  }
}

// All players of rows of 2^n numbers, n <= kLowPlayers; `count` numbers, full rows.
template <class D, int n, class S>
void sum_short_rows(const S* in, S* out, int64_t count) {
  constexpr int kLanes = n < kLanePlayers<S> ? n : kLanePlayers<S>;
  constexpr int kVectors = 1 << (n - kLanes);
  typename Wideness<S>::V v[kVectors];
  int64_t i = 0;
  for (; i + kVectors * kVector<S> <= count; i += kVectors * kVector<S>) {
    PYI_UNROLL
    for (int k = 0; k < kVectors; ++k) {
      v[k] = load_vector(in + i + k * kVector<S>);
    }
    sum_players<D, n - kLanes>(v);
    PYI_UNROLL
    for (int k = 0; k < kVectors; ++k) {
      store_vector(out + i + k * kVector<S>, sum_vector<D, S, kLanes>(v[k]));
    }
  }
  if (kVectors == 1 && i < count) {  // fewer numbers than lanes are left
    S first[kVector<S>] = {};
    S last[kVector<S>];
    for (int64_t k = i; k < count; ++k) {
      first[k - i] = in[k];
    }
    store_vector(last, sum_vector<D, S, kLanes>(load_vector(first)));
    for (int64_t k = i; k < count; ++k) {
      out[k] = last[k - i];
    }
  }
}

// Calls f(std::integral_constant<int, i>) for the i that equals `value`, 0 <= value <= most.
template <int most, class F>
PYI_HD void with_constant(int value, const F& f) {
  if constexpr (most > 0) {
    if (value < most) {
      return with_constant<most - 1>(value, f);
    }
  }
  f(std::integral_constant<int, most>{});
}

template <class D, class S>
void sum_short_rows(const S* in, S* out, int n, int64_t count) {
  with_constant<kLowPlayers<S>>(n, [&](auto players) { sum_short_rows<D, players()>(in, out, count); });
}

template <class D, class S>
PYI_HD void sum_columns(const S* in, int64_t in_stride, S* out, int64_t out_stride, int64_t count, int r) {
  with_constant<kPassPlayers>(
      r, [&](auto players) { sum_columns<D, players()>(in, in_stride, out, out_stride, count); });
}

// A row of 2^n numbers, best one that fits the caches; `in` may be `out`.
template <class D, class S>
void sum_row(const S* in, S* out, int n) {
  const int above = n - kLowPlayers<S>;
  if (above <= 0) {
    return sum_short_rows<D>(in, out, n, int64_t{1} << n);
  }
  const int passes = (above + kPassPlayers - 1) / kPassPlayers;
  const int r = (above + passes - 1) / passes;
  const int64_t part = int64_t{1} << (n - r);
  sum_columns<D>(in, part, out, part, part, r);
  if (passes == 1) {
    return sum_short_rows<D, kLowPlayers<S>>(out, out, int64_t{1} << n);
  }
  for (int64_t k = 0; k < int64_t{1} << r; ++k) {
    sum_row<D>(out + k * part, out + k * part, n - r);
  }
}

// The last t players of a long row of 2^n numbers: columns [first, first + count) of its 2^t lines. Lines are a power
// of two apart and would push each other out of a cache, so between two passes they lie in `tile`, 2^t * count numbers.
template <class D, class S>
void sum_lines(const S* in, S* out, S* tile, int n, int t, int64_t first, int64_t count) {
  const int64_t line = int64_t{1} << (n - t);
  const S* source = in + first;
  int64_t source_line = line;
  for (int left = t, passes = (t + kPassPlayers - 1) / kPassPlayers; passes > 0; --passes) {
    const int r = (left + passes - 1) / passes, rest = left - r;
    S* target = passes == 1 ? out + first : tile;
    const int64_t target_line = passes == 1 ? line : count;
    for (int64_t group = 0; group < int64_t{1} << (t - left); ++group) {
      for (int64_t k = group << left; k < (group << left) + (int64_t{1} << rest); ++k) {
        sum_columns<D>(
            source + k * source_line, source_line << rest, target + k * target_line, target_line << rest, count, r);
      }
    }
    source = tile;
    source_line = count;
    left = rest;
  }
}

// `rows` rows of 2^n numbers.
template <class D, class S>
void sum_rows(const S* in, S* out, int n, int64_t rows) {
  if (n <= kLowPlayers<S>) {
    return sum_short_rows<D>(in, out, n, rows << n);
  }
  for (int64_t row = 0; row < rows; ++row) {
    sum_row<D>(in + (row << n), out + (row << n), n);
  }
}

// Between 16-bit numbers and float32.
template <class From, class To>
void convert(const From* in, To* out, int64_t count) {
  int64_t i = 0;
  for (; i + PYI_LANES <= count; i += PYI_LANES) {
    store(out + i, load(in + i));
  }
  for (; i < count; ++i) {
    out[i] = static_cast<To>(in[i]);
  }
}
