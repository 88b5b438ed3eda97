#pragma once

#include <roster/engines/detail/seeded_random.hpp>
#include <roster/version.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <numeric>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// Chooses one of up to 256 tokens by softmax(scores / temperature), among the likeliest that together have the probability
/// `top_p` (nucleus sampling: Holtzman et al., 2020). Of equally likely ones, the first comes first. Temperature 0 takes the
/// likeliest.
inline std::uint8_t sample_token(const std::vector<float>& scores, float temperature, float top_p, seeded_random& random) {
  const auto best = std::ranges::max_element(scores);
  if (temperature == 0) return static_cast<std::uint8_t>(best - scores.begin());

  std::vector<double> weights;
  std::ranges::transform(scores, std::back_inserter(weights), [&](float score) {
    return std::exp((static_cast<double>(score) - static_cast<double>(*best)) / static_cast<double>(temperature));
  });
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t token) { return std::pair(-weights[token], token); });

  const auto wanted = static_cast<double>(top_p) * std::accumulate(weights.begin(), weights.end(), 0.0);
  std::size_t chosen = 0;
  double nucleus = 0;
  while (chosen < order.size() && nucleus < wanted)
    nucleus += weights[order[chosen++]];
  order.resize(chosen);

  auto left = static_cast<double>(random.uniform()) * nucleus;
  for (const auto token : order) {
    left -= weights[token];
    if (left < 0) return static_cast<std::uint8_t>(token);
  }
  return static_cast<std::uint8_t>(order.back());
}

}  // namespace detail

ROSTER_END_NAMESPACE
