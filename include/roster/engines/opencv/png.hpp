#pragma once

#include <roster/call/image.hpp>
#include <roster/engines/opencv/mat.hpp>
#include <roster/error.hpp>

#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <ios>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv {

/// A picture as the bytes of a PNG file.
///
/// **Errors**: `invalid_input` for a picture without pixels, and for one that is larger than PNG files can be.
inline std::vector<std::uint8_t> encode_png(const image& picture) {
  if (picture.empty()) throw error(errc::invalid_input, "PNG: a picture without pixels");
  std::vector<std::uint8_t> bytes;
  try {
    if (!cv::imencode(".png", to_mat(picture), bytes))
      throw error(errc::invalid_input, "PNG: OpenCV cannot write this picture");
  } catch (const cv::Exception& failure) {
    throw error(errc::invalid_input, "PNG: " + failure.err);
  }
  return bytes;
}

/// The picture in the bytes of a PNG file, of any kind that PNG has: see `to_image` for what becomes of grey, alpha and 16
/// bits. Computes: for a pool rather than for a loop.
///
/// **Errors**: `invalid_input` if it is no PNG, damaged or cut off, or larger than OpenCV reads: 2^20 pixels a side and 2^30 in
/// all, unless OpenCV is told otherwise.
inline image decode_png(std::span<const std::uint8_t> bytes) {
  constexpr std::array<std::uint8_t, 8> begin{0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  constexpr std::array<std::uint8_t, 12> end{0, 0, 0, 0, 'I', 'E', 'N', 'D', 0xAE, 0x42, 0x60, 0x82};
  if (bytes.size() < begin.size() || !std::ranges::equal(begin, bytes.first(begin.size())))
    throw error(errc::invalid_input, "PNG: not a PNG file");
  // Of a file that was cut off OpenCV makes a picture of what there is.
  if (std::ranges::search(bytes, end).empty()) throw error(errc::invalid_input, "PNG: cut off");
  try {
    const std::vector<std::uint8_t> copy(bytes.begin(), bytes.end());
    const auto mat = cv::imdecode(copy, cv::IMREAD_UNCHANGED);
    if (mat.empty()) throw error(errc::invalid_input, "PNG: damaged");
    return to_image(mat);
  } catch (const cv::Exception& failure) {
    throw error(errc::invalid_input, "PNG: " + failure.err);
  }
}

/// The same, for bytes that came as characters, such as the body of a request.
inline image decode_png(std::string_view bytes) {
  return decode_png(std::span(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()));
}

/// Writes a picture to a PNG file, in place of one that is there. Blocks.
///
/// **Errors**: those of `encode_png`; `invalid_argument`, naming the file, if it cannot be written.
inline void write_png(const image& picture, const std::filesystem::path& path) {
  const auto bytes = encode_png(picture);
  std::ofstream file(path, std::ios::binary);  // blocks: the caller, as documented
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw error(errc::invalid_argument, path.string() + ": cannot be written");
}

/// The picture in a PNG file. Blocks.
///
/// **Errors**: those of `decode_png`, naming the file; `invalid_argument` if it cannot be read.
inline image read_png(const std::filesystem::path& path) {
  std::error_code ignored;
  std::ifstream file(path, std::ios::binary);  // blocks: the caller, as documented
  if (!std::filesystem::is_regular_file(path, ignored) || !file)
    throw error(errc::invalid_argument, path.string() + ": cannot be read");
  const std::vector<std::uint8_t> bytes((std::istreambuf_iterator<char>(file)), {});
  try {
    return decode_png(bytes);
  } catch (const error& failure) {
    throw error(errc::invalid_input, path.string() + ": " + failure.what());
  }
}

}  // namespace opencv

ROSTER_END_NAMESPACE
