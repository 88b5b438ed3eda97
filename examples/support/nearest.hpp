#pragma once

#include "digits.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <string_view>
#include <vector>

/// For each held-out scan the training scan at the smallest Euclidean distance, where `vector_of(i)` stands for scan `i`.
template <typename VectorOf>
std::vector<std::size_t> nearest_training_scans(const digits& all, VectorOf vector_of) {
  std::vector<std::size_t> found;
  for (std::size_t query = digits::training_count; query < all.scans.size(); ++query) {
    const auto distance = [&](std::size_t other) {
      const auto a = vector_of(query), b = vector_of(other);
      return std::transform_reduce(a.begin(), a.end(), b.begin(), 0.0, std::plus<>(),
                                   [](double x, double y) { return (x - y) * (x - y); });
    };
    std::size_t best = 0;
    double least = distance(best);
    for (std::size_t other = 1; other < digits::training_count; ++other)
      if (const auto here = distance(other); here < least) best = other, least = here;
    found.push_back(best);
  }
  return found;
}

/// Prints, and returns, how many of the found scans show the digit that was asked for, in percent.
inline double print_accuracy(std::string_view what, const digits& all, const std::vector<std::size_t>& found) {
  std::size_t right = 0;
  for (std::size_t i = 0; i < found.size(); ++i)
    right += all.labels[digits::training_count + i] == all.labels[found[i]];
  const auto percent = 100.0 * static_cast<double>(right) / static_cast<double>(found.size());
  fmt::print("nearest neighbour by {:<14} {} of {} right, {:.2f} %\n", what, right, found.size(), percent);
  return percent;
}

/// The mean of the pixels that fall together, at the size of a scan.
inline roster::image shrink(const roster::image& picture) {
  roster::image small(digits::size, digits::size);
  const auto side = picture.width() / digits::size;
  for (std::size_t y = 0; y < digits::size; ++y)
    for (std::size_t x = 0; x < digits::size; ++x) {
      std::size_t sum = 0;
      for (std::size_t i = 0; i < side * side; ++i)
        sum += picture.at(x * side + i % side, y * side + i / side)[0];
      std::ranges::fill(small.at(x, y), static_cast<std::uint8_t>(sum / (side * side)));
    }
  return small;
}

/// Euclidean, of pixels from 0 to 1.
inline double distance_to_nearest_training_scan(const digits& all, const roster::image& scan) {
  double least = std::numeric_limits<double>::max();
  for (std::size_t other = 0; other < digits::training_count; ++other) {
    double squares = 0;
    for (std::size_t i = 0; i < scan.pixels().size(); i += 3) {
      const auto difference = (scan.pixels()[i] - all.scans[other].pixels()[i]) / 255.0;
      squares += difference * difference;
    }
    least = std::min(least, squares);
  }
  return std::sqrt(least);
}

inline void print_distances(std::string_view what, std::vector<double> distances) {
  std::ranges::sort(distances);
  fmt::print("{}: distance to the nearest training scan: least {:.2f}, half below {:.2f}, most {:.2f}\n", what,
             distances.front(), distances[distances.size() / 2], distances.back());
}
