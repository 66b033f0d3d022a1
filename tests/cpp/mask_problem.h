// mask_inputs straight from its definition: every element of a batch is x where its player is present or always kept,
// else the baseline.
#pragma once

#include <vector>

#include "check.h"
#include "mask.h"

namespace pyinterp::test {

template <class T>
struct Problem {
  Frame frame;
  std::vector<int64_t> players, codes;
  std::vector<T> x, baseline, wanted;

  std::string name(const char* side, size_t i) const {
    return std::string("mask_inputs ") + side + " " + std::to_string(sizeof(T)) + " bytes, (" +
        std::to_string(frame.batch) + ", " + std::to_string(frame.channels) + ", " + std::to_string(frame.positions) +
        (frame.channels_last ? ") channels-last [" : ") [") + std::to_string(i) + "]";
  }

  void compare(const char* side, const std::vector<T>& got) const {
    for (size_t i = 0; i < wanted.size(); ++i) {
      close([&] { return name(side, i); }, static_cast<double>(got[i]), static_cast<double>(wanted[i]), 0);
    }
  }
};

// Element `i` of a batch in memory order, straight from the definition.
template <class T>
T masked(const Problem<T>& p, int64_t i) {
  const Frame& f = p.frame;
  const int64_t inside = i % (f.channels * f.positions), sample = i / (f.channels * f.positions);
  const int64_t channel = f.channels_last ? inside % f.channels : inside / f.positions;
  const int64_t position = f.channels_last ? inside / f.channels : inside % f.positions;
  const int64_t player = p.players[position];
  bool shown = player == -1;
  if (player >= 0) {
    shown = (p.codes[sample] / (int64_t{1} << player)) % 2 != 0;
  }
  return (shown ? p.x : p.baseline)[channel * f.positions + position];
}

template <class T>
Problem<T> problem_of(Frame frame, int64_t run) {
  Problem<T> p{frame, {}, {}, {}, {}, {}};
  const int64_t ids[] = {0, 5, -1, 61, 31, -2, 32, 1};
  for (int64_t i = 0; i < frame.positions; ++i) {
    p.players.push_back(ids[i / run * 3 % 8]);
  }
  uint64_t state = 1;
  for (int64_t b = 0; b < frame.batch; ++b) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    p.codes.push_back(static_cast<int64_t>(state >> 2));
  }
  for (int64_t i = 0; i < frame.sample(); ++i) {
    p.x.push_back(static_cast<T>(i * 2 % 254));
    p.baseline.push_back(static_cast<T>(i * 2 % 254 + 1));
  }
  for (int64_t i = 0; i < frame.batch * frame.sample(); ++i) {
    p.wanted.push_back(masked(p, i));
  }
  for (auto* numbers : {&p.players, &p.codes}) {
    numbers->shrink_to_fit();  // a read past the end is one past the allocation
  }
  return p;
}

template <class T>
std::vector<T> in_order(const std::vector<T>& from, const Frame& f) {
  std::vector<T> to(from);
  for (int64_t i = 0; f.channels_last && i < f.sample(); ++i) {
    to[i] = from[i % f.channels * f.positions + i / f.channels];
  }
  return to;
}

}  // namespace pyinterp::test
