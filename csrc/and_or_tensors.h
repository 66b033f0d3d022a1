// From torch tensors to the games of and_or_solve: the checks and allocations that the CPU and the CUDA op share.
#pragma once

#include "and_or_pass.h"
#include "tensors.h"

namespace pyinterp {

// Checks one table and hands it back contiguous.
inline Tensor table_of(const Tensor& t, ScalarType wanted, const Tensor& values, const char* name) {
  STD_TORCH_CHECK(t.scalar_type() == wanted, name, " has another dtype");
  STD_TORCH_CHECK(t.get_device_index() == values.get_device_index(), name, " and values must be on one device");
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

struct Games {
  Tensor values, bound, pairs, angles, rounds, paths, kinds, inverse, exact;
  Tensor and_, or_, report;
  int64_t games;
  int n = 0;

  Games(
      const Tensor& given, const Tensor& bounds, const Tensor& pair, const Tensor& angle, const Tensor& round,
      const Tensor& path, const Tensor& kind, const Tensor& inverses, const Tensor& exacts)
      : values(table_of(given, ScalarType::Double, given, "values")),
        bound(table_of(bounds, ScalarType::Double, given, "bound")),
        pairs(table_of(pair, ScalarType::Int, given, "pairs")),
        angles(table_of(angle, ScalarType::Double, given, "angles")),
        rounds(table_of(round, ScalarType::Long, given, "rounds")),
        paths(table_of(path, ScalarType::Int, given, "paths")),
        kinds(table_of(kind, ScalarType::Long, given, "kinds")),
        inverse(table_of(inverses, ScalarType::Double, given, "inverse")),
        exact(table_of(exacts, ScalarType::Double, given, "exact")),
        and_(torch::stable::empty_like(values)),
        or_(torch::stable::empty_like(values)),
        report(torch::stable::new_empty(values, {values.size(0), 3})),
        games(values.size(0)) {
    const int64_t size = values.size(1);
    while (int64_t{1} << n < size) {
      ++n;
    }
    STD_TORCH_CHECK(
        values.dim() == 2 && int64_t{1} << n == size && n < kMaxBlock, "expected values of shape (games, 2^n), n <= 20");
    STD_TORCH_CHECK(bound.numel() == games, "expected one bound per game");
    STD_TORCH_CHECK(rounds.numel() == n + 1 && paths.numel() == size, "the tables are those of another n");
  }

  AndOrPass pass(double slack, double tolerance, int64_t max_iterations, int64_t check) {
    const SchurTables tables{
        pairs.const_data_ptr<int32_t>(), angles.const_data_ptr<double>(), rounds.const_data_ptr<int64_t>(),
        paths.const_data_ptr<int32_t>(), kinds.const_data_ptr<int64_t>(), inverse.const_data_ptr<double>(),
        exact.const_data_ptr<double>()};
    return {
        values.const_data_ptr<double>(), bound.const_data_ptr<double>(), and_.mutable_data_ptr<double>(),
        or_.mutable_data_ptr<double>(), report.mutable_data_ptr<double>(), tables, n, slack, tolerance,
        max_iterations, check};
  }
};

}  // namespace pyinterp
