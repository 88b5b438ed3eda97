#pragma once

#include <roster/version.hpp>

#include <cstdint>
#include <optional>
#include <random>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// Random numbers that depend on the seed alone, on every platform: splitmix64 (Steele, Lea and Flood, 2014).
class seeded_random {
 public:
  /// Without a seed, a random one.
  explicit seeded_random(const std::optional<std::uint64_t>& seed) : state_(seed ? *seed : random_seed()) {}

  std::uint64_t next() noexcept {
    state_ += 0x9E3779B97F4A7C15U;
    auto mixed = state_;
    mixed = (mixed ^ (mixed >> 30U)) * 0xBF58476D1CE4E5B9U;
    mixed = (mixed ^ (mixed >> 27U)) * 0x94D049BB133111EBU;
    return mixed ^ (mixed >> 31U);
  }

  /// From 0 to below 1.
  float uniform() noexcept { return static_cast<float>(next() >> 40U) * 0x1p-24F; }

  /// Mean 0, deviation 1, nearly normal: a sum of twelve uniform numbers, in whole numbers up to the last step.
  float normal() noexcept {
    std::int32_t sum = 0;
    for (int part = 0; part < 3; ++part) {
      const auto bits = next();
      for (unsigned shift = 0; shift < 64; shift += 16)
        sum += static_cast<std::int32_t>((bits >> shift) & 0xFFFFU);
    }
    return static_cast<float>(sum - 393'210) / 65'536;
  }

 private:
  static std::uint64_t random_seed() {
    std::random_device device;
    return std::uint64_t{device()} << 32U | device();
  }

  std::uint64_t state_;
};

}  // namespace detail

ROSTER_END_NAMESPACE
