#pragma once

#include <roster/engines/opencv/detail/blob.hpp>
#include <roster/version.hpp>

#include <opencv2/core.hpp>
#include <opencv2/dnn.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// An input, and the sizes that it will have: the file may leave them open, which OpenCV does not understand.
struct network_input {
  std::string name;
  std::vector<std::size_t> sizes;
};

/// Fills an input with numbers from 0 to 1, others for each `number`, to try a network out with.
inline void fill_for_trial(std::span<float> values, std::uint32_t number) {
  std::uint32_t state = 2'654'435'761U * (number + 1);
  const auto least = 0.1F * static_cast<float>(number % 4), range = 0.3F + 0.2F * static_cast<float>(number % 3);
  for (auto& value : values) {
    state = state * 1'664'525U + 1'013'904'223U;
    value = least + range * static_cast<float>(state >> 8U) / static_cast<float>(1U << 24U);
  }
}

/// An input of these sizes, filled like that.
inline cv::Mat make_trial_blob(const std::vector<std::size_t>& sizes, std::uint32_t number) {
  auto blob = make_blob(sizes);
  fill_for_trial({blob.ptr<float>(), blob.total()}, number);
  return blob;
}

inline void set_trial_inputs(cv::dnn::Net& net, std::span<const network_input> inputs) {
  for (std::uint32_t number = 0; number < inputs.size(); ++number)
    net.setInput(make_trial_blob(inputs[number].sizes, number), inputs[number].name);
}

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
