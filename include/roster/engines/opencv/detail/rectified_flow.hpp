#pragma once

#include <roster/version.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// What a prediction is made for.
enum class condition { prompt, no_prompt };

/// Follows a rectified flow (Liu, Gong and Liu, 2023) from noise, at time 0, to a picture, at time 1, by Euler's method.
///
/// `predict(picture, time, condition, clean)` says what the finished picture looks like, so the flow is
/// `(clean - picture) / (1 - time)`. Predictions with and without prompt are combined by classifier-free guidance (Ho and
/// Salimans, 2022); a prediction whose share is 0 is left out. Stops, and returns false, when `on_step(step)` does.
template <typename Predict, typename OnStep>
bool follow_rectified_flow(std::span<float> picture, std::uint32_t steps, float guidance, Predict predict, OnStep on_step) {
  std::vector<float> clean(picture.size()), unprompted(picture.size());
  for (std::uint32_t step = 0; step < steps; ++step) {
    const auto time = static_cast<float>(step) / static_cast<float>(steps);
    if (guidance != 0) predict(picture, time, condition::prompt, std::span(clean));
    if (guidance != 1) {
      predict(picture, time, condition::no_prompt, std::span(unprompted));
      for (std::size_t i = 0; i < clean.size(); ++i)
        clean[i] = unprompted[i] + guidance * (clean[i] - unprompted[i]);
    }
    for (std::size_t i = 0; i < clean.size(); ++i)
      picture[i] += (clean[i] - picture[i]) / static_cast<float>(steps - step);
    if (!on_step(step + 1)) return false;
  }
  return true;
}

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
