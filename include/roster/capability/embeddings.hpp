#pragma once

#include <roster/version.hpp>

#include <cstddef>
#include <span>
#include <vector>

ROSTER_BEGIN_NAMESPACE

/// One vector.
using embedding = std::vector<float>;

/// Vectors of one length, contiguous: `rows` x `dimension`.
class embeddings {
 public:
  /// No vectors.
  embeddings() {}

  /// `rows` zero vectors.
  embeddings(std::size_t rows, std::size_t dimension) { resize(rows, dimension); }

  /// Makes room for `rows` vectors of `dimension` floats. What was there is lost.
  void resize(std::size_t rows, std::size_t dimension) {
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
