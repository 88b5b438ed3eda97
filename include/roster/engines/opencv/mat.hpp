#pragma once

#include <roster/call/image.hpp>
#include <roster/error.hpp>

#include <fmt/format.h>
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv {

/// A picture as OpenCV has it: 8 bits each of blue, green and red. A copy.
///
/// **Errors**: `invalid_input` for sides longer than OpenCV can count.
inline cv::Mat to_mat(const image& picture) {
  constexpr auto most = static_cast<std::size_t>((std::numeric_limits<int>::max)());
  if (picture.width() > most || picture.height() > most)
    throw error(errc::invalid_input, fmt::format("a picture of {} x {} pixels, of which OpenCV takes at most {} a side",
                                                 picture.width(), picture.height(), most));
  cv::Mat result(static_cast<int>(picture.height()), static_cast<int>(picture.width()), CV_8UC3);
  if (picture.empty()) return result;
  const cv::Mat view(result.rows, result.cols, CV_8UC3, const_cast<std::uint8_t*>(picture.pixels().data()));
  cv::cvtColor(view, result, cv::COLOR_RGB2BGR);
  return result;
}

/// A picture that OpenCV has: 8 or 16 bits each of grey, of blue, green and red, or of these and alpha. Of 16 bits the upper 8
/// count, rounded. Alpha is left out, so what is transparent keeps the colour that it has.
///
/// **Errors**: `invalid_input`, saying what it is instead, for anything else, such as floats, and for a matrix without pixels.
inline image to_image(const cv::Mat& mat) {
  const auto channels = mat.channels();
  if (mat.dims != 2 || mat.empty() || (mat.depth() != CV_8U && mat.depth() != CV_16U) ||
      (channels != 1 && channels != 3 && channels != 4))
    throw error(
        errc::invalid_input,
        fmt::format("a matrix of {} dimensions, {} elements and type {}, expected rows and columns of 8 or 16 bits each of "
                    "grey, of blue, green and red, or of these and alpha",
                    mat.dims, mat.total(), cv::typeToString(mat.type())));
  cv::Mat bytes = mat;
  if (mat.depth() == CV_16U) mat.convertTo(bytes, CV_8U, 1.0 / 257);
  const auto width = static_cast<std::size_t>(mat.cols), height = static_cast<std::size_t>(mat.rows);
  image result(width, height);
  cv::Mat view(mat.rows, mat.cols, CV_8UC3, result.pixels().data());
  cv::cvtColor(bytes, view, channels == 1 ? cv::COLOR_GRAY2RGB : channels == 3 ? cv::COLOR_BGR2RGB : cv::COLOR_BGRA2RGB);
  return result;
}

}  // namespace opencv

ROSTER_END_NAMESPACE
