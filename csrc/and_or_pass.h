// What one call of and_or_solve reads and writes.
#pragma once

#include <cstdint>

namespace pyinterp {

constexpr int kAndOrArrays = 12;  // arrays of 2^n numbers that one game works in
constexpr int kFastArrays = 2;    // how many of them the transforms work in
constexpr int kMaxBlock = 21;     // n + 1 of the largest n

// The change of basis and the matrices in it: see pyinterp/ops/_schur.py.
struct SchurTables {
  const int32_t* pairs;
  const double* angles;
  const int64_t* rounds;
  const int32_t* paths;
  const int64_t* kinds;
  const double* inverse;  // (Gram matrix + slack)^-1, for games with a bound
  const double* exact;    // (Gram matrix)^-1
};

struct AndOrPass {
  const double* values;  // (games, 2^n)
  const double* bound;   // (games,)
  double* and_;
  double* or_;
  double* report;        // (games, 3)
  SchurTables tables;
  int n;
  double slack, tolerance;
  int64_t max_iterations, check;
};

}  // namespace pyinterp
