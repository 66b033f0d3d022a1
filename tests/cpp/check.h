// Counts and prints failed checks; main returns report().
#pragma once

#include <cmath>
#include <cstdio>
#include <string>

namespace pyinterp::test {

inline int failures = 0;
inline long checks = 0;

// `name()` words the check; it is called for failures alone.
template <class Name>
void close(const Name& name, double got, double wanted, double tolerance) {
  ++checks;
  const bool both_nan = std::isnan(got) && std::isnan(wanted);
  if (both_nan || got == wanted || std::fabs(got - wanted) <= tolerance) {
    return;
  }
  if (++failures <= 20) {
    std::printf("FAILED %s: expected %.9g +- %.2g, got %.9g\n", name().c_str(), wanted, tolerance, got);
  }
}

inline int report(const char* name) {
  std::printf("%s: %ld checks, %d failed\n", name, checks, failures);
  return failures == 0 && checks > 0 ? 0 : 1;
}

}  // namespace pyinterp::test
