#pragma once

#include <roster/capability/image.hpp>

#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>

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
  const cv::Mat sheet = cv::imread((folder / "digits.png").string(), cv::IMREAD_GRAYSCALE);
  if (sheet.empty() || all.labels.empty()) throw std::runtime_error("no digits in " + folder.string());
  const auto columns = static_cast<std::size_t>(sheet.cols) / digits::size;
  for (std::size_t i = 0; i < all.labels.size(); ++i) {
    roster::image scan(digits::size, digits::size);
    for (std::size_t y = 0; y < digits::size; ++y)
      for (std::size_t x = 0; x < digits::size; ++x) {
        const auto row = static_cast<int>(i / columns * digits::size + y),
                   column = static_cast<int>(i % columns * digits::size + x);
        std::ranges::fill(scan.at(x, y), sheet.at<std::uint8_t>(row, column));
      }
    all.scans.push_back(std::move(scan));
  }
  return all;
}
