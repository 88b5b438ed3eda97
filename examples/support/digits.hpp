#pragma once

#include <roster/call/image.hpp>
#include <roster/engines/opencv/png.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <vector>

/// The 1,797 scans in examples/models, each 8 x 8. The first `training_count` are for training, the others held out.
struct digits {
  static constexpr std::size_t training_count = 915;
  static constexpr std::size_t size = 8;
  std::vector<roster::image> scans;
  std::vector<int> labels;
};

inline digits load_digits(const std::filesystem::path& folder) {
  digits all;
  std::ifstream labels(folder / "digits_labels.txt");
  for (int label; labels >> label;)
    all.labels.push_back(label);
  const auto sheet = roster::opencv::read_png(folder / "digits.png");
  if (all.labels.empty()) throw std::runtime_error("no digits in " + folder.string());
  const auto columns = sheet.width() / digits::size;
  for (std::size_t i = 0; i < all.labels.size(); ++i) {
    roster::image scan(digits::size, digits::size);
    for (std::size_t y = 0; y < digits::size; ++y)
      for (std::size_t x = 0; x < digits::size; ++x) {
        const auto from = sheet.at(i % columns * digits::size + x, i / columns * digits::size + y);
        std::ranges::copy(from, scan.at(x, y).begin());
      }
    all.scans.push_back(std::move(scan));
  }
  return all;
}
