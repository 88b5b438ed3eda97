#pragma once

#include <roster/engines/opencv/detail/onnx_constant.hpp>
#include <roster/version.hpp>

#include <opencv2/core.hpp>

#include <cstddef>
#include <span>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// Floats of these sizes, all 0.
inline cv::Mat make_blob(const std::vector<std::size_t>& sizes) {
  std::vector<int> axes;
  for (const auto size : sizes)
    axes.push_back(static_cast<int>(size));
  return cv::Mat(static_cast<int>(axes.size()), axes.data(), CV_32F, cv::Scalar(0));
}

/// The floats of a blob, and its sizes.
inline onnx_constant read_blob(const cv::Mat& blob) {
  const auto whole = blob.isContinuous() ? blob : blob.clone();
  const std::span<const float> floats(whole.ptr<float>(), whole.total());
  return {{whole.size.p, whole.size.p + whole.dims}, {floats.begin(), floats.end()}};
}

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
