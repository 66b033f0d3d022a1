// Which positions of an input a subset of players shows, and how a masked batch lies in memory.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace pyinterp {

constexpr int64_t kKept = -1, kMasked = -2;
constexpr int kMostPlayers = 62;

// The bit of a code that decides about a position: kKept is bit 63, kMasked bit 62.
PYI_HD int slot_of(int64_t player) {
  return static_cast<int>(player & 63);
}

PYI_HD bool is_player(int64_t player) {
  return player >= kMasked && player < kMostPlayers;
}

// The code of a subset with the bit of kept positions set and that of masked ones cleared.
PYI_HD uint64_t bits_of(int64_t code) {
  return (static_cast<uint64_t>(code) & ((uint64_t{1} << kMostPlayers) - 1)) | (uint64_t{1} << 63);
}

PYI_HD bool shows(uint64_t bits, int slot) {
  return (bits >> slot & 1) != 0;
}

// A batch of samples; in memory a sample is (channels, positions), or (positions, channels) where channels are last.
struct Frame {
  int64_t batch, channels, positions;
  bool channels_last;
  PYI_HD int64_t sample() const {
    return channels * positions;
  }
};

}  // namespace pyinterp
