#pragma once

#include <roster/error.hpp>
#include <roster/version.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

/// A picture: 8-bit RGB, `height` x `width` x 3, rows from top to bottom, without padding.
class image {
 public:
  /// The picture without pixels.
  image() noexcept {}

  /// A black picture. Sizes that no memory could hold are an `invalid_argument`.
  image(std::size_t width, std::size_t height) : width_(width), height_(height), pixels_(bytes(width, height)) {}

  /// A picture with these pixels, which must be `width * height * 3` in number, else `invalid_argument`.
  image(std::size_t width, std::size_t height, std::vector<std::uint8_t> pixels)
      : width_(width), height_(height), pixels_(std::move(pixels)) {
    if (pixels_.size() != bytes(width, height))
      throw error(errc::invalid_argument, "image: " + std::to_string(pixels_.size()) + " bytes for " + std::to_string(width) +
                                              " x " + std::to_string(height) + " x 3");
  }

  /// Columns.
  std::size_t width() const noexcept { return width_; }

  /// Rows.
  std::size_t height() const noexcept { return height_; }

  /// Whether there are no pixels.
  bool empty() const noexcept { return pixels_.empty(); }

  /// All bytes, row by row.
  std::span<const std::uint8_t> pixels() const noexcept { return pixels_; }

  /// All bytes, row by row.
  std::span<std::uint8_t> pixels() noexcept { return pixels_; }

  /// The red, green and blue of one pixel.
  std::span<std::uint8_t, 3> at(std::size_t x, std::size_t y) noexcept {
    return std::span<std::uint8_t, 3>(pixels_.data() + (y * width_ + x) * 3, 3);
  }

  /// The red, green and blue of one pixel.
  std::span<const std::uint8_t, 3> at(std::size_t x, std::size_t y) const noexcept {
    return std::span<const std::uint8_t, 3>(pixels_.data() + (y * width_ + x) * 3, 3);
  }

  /// Same size, same pixels.
  friend bool operator==(const image&, const image&) = default;

 private:
  static std::size_t bytes(std::size_t width, std::size_t height) {
    constexpr auto most = static_cast<std::size_t>((std::numeric_limits<std::ptrdiff_t>::max)());
    if (height != 0 && width > most / 3 / height) throw error(errc::invalid_argument, "image: too large");
    return width * height * 3;
  }

  std::size_t width_ = 0;
  std::size_t height_ = 0;
  std::vector<std::uint8_t> pixels_;
};

ROSTER_END_NAMESPACE
