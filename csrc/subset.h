// The sums over subsets and supersets, and their inverses, for one number or for a vector of lanes.
//
// No include guard, as in gate.h: CPU code includes this once per instruction set, inside that set's namespace.
//
// Numbers are indexed by subsets; bit i says that player i is present. Every kernel takes the players from the last to
// the first, so a result has the same bits wherever and however it was computed.

template <bool inverse_, bool superset_>
struct Direction {
  static constexpr bool inverse = inverse_;
  static constexpr bool superset = superset_;

  // One player: a pair of subsets that differ in this player alone.
  template <class V>
  static PYI_HD void step(V& without, V& with) {
    V& target = superset ? without : with;
    const V source = superset ? with : without;
    target = inverse ? target - source : target + source;
  }
};
