#pragma once

#include <roster/error.hpp>
#include <roster/version.hpp>

#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <vector>

ROSTER_BEGIN_NAMESPACE

/// One vector.
using embedding = std::vector<float>;

/// Vectors of one length, contiguous: `rows` x `dimension`.
class embeddings {
 public:
  /// No vectors.
  embeddings() noexcept {}

  /// `rows` zero vectors. Sizes that no memory could hold are an `invalid_argument`.
  embeddings(std::size_t rows, std::size_t dimension) { resize(rows, dimension); }

  /// Makes room for `rows` vectors of `dimension` floats, all zero. What was there is lost. Sizes that no memory could hold are
  /// an `invalid_argument`, and change nothing.
  void resize(std::size_t rows, std::size_t dimension) {
    constexpr auto most = static_cast<std::size_t>((std::numeric_limits<std::ptrdiff_t>::max)()) / sizeof(float);
    if (dimension != 0 && rows > most / dimension)
      throw error(errc::invalid_argument,
                  "embeddings: " + std::to_string(rows) + " x " + std::to_string(dimension) + " is too large");
    values_.assign(rows * dimension, 0.0F);
    rows_ = rows;
    dimension_ = dimension;
  }

  /// The number of vectors.
  std::size_t rows() const noexcept { return rows_; }

  /// The length of each.
  std::size_t dimension() const noexcept { return dimension_; }

  /// One vector.
  std::span<const float> operator[](std::size_t row) const noexcept { return {values_.data() + row * dimension_, dimension_}; }

  /// One vector.
  std::span<float> operator[](std::size_t row) noexcept { return {values_.data() + row * dimension_, dimension_}; }

  /// All floats, vector by vector.
  std::span<const float> values() const noexcept { return values_; }

  /// All floats, vector by vector.
  std::span<float> values() noexcept { return values_; }

 private:
  std::size_t rows_ = 0;
  std::size_t dimension_ = 0;
  std::vector<float> values_;
};

ROSTER_END_NAMESPACE
