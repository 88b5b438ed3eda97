#pragma once

#include <roster/version.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

// A program compiled with `-ffast-math` takes std::isfinite to be true. clang 19 takes every floating-point argument and result
// to be finite then, and so the bits of one as well; not what it reads from memory.

/// Neither NaN nor infinity.
inline bool is_finite(float value) noexcept {
  constexpr std::uint32_t exponent = 0x7F80'0000U;
  const volatile float seen = value;
  return (std::bit_cast<std::uint32_t>(float{seen}) & exponent) != exponent;
}

/// The same of a double.
inline bool is_finite(double value) noexcept {
  constexpr std::uint64_t exponent = 0x7FF0'0000'0000'0000U;
  const volatile double seen = value;
  return (std::bit_cast<std::uint64_t>(double{seen}) & exponent) != exponent;
}

/// The same of all of them, quickly.
inline bool are_finite(std::span<const float> values) noexcept {
  constexpr std::uint32_t exponent = 0x7F80'0000U;
  return std::ranges::all_of(values, [](const float& value) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    return (bits & exponent) != exponent;
  });
}

/// Whether two computations of the same come to the same, but for rounding, which `tolerance` bounds in proportion to the
/// largest number. Where one is not finite, the other must not be either.
template <typename One, typename Other>
bool agree(std::span<const One> one, std::span<const Other> other, double tolerance) {
  if (one.size() != other.size()) return false;
  double largest = 0;
  for (const auto value : one)
    if (is_finite(value)) largest = (std::max)(largest, std::abs(static_cast<double>(value)));
  return std::ranges::equal(one, other, [&](One a, Other b) {
    if (!is_finite(a) || !is_finite(b)) return is_finite(a) == is_finite(b);
    return std::abs(static_cast<double>(a) - static_cast<double>(b)) <= tolerance * (largest + 1e-4);
  });
}

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
