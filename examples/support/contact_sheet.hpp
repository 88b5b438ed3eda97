#pragma once

#include <roster/call/image.hpp>
#include <roster/engines/opencv/mat.hpp>
#include <roster/engines/opencv/png.hpp>

#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>

#include <algorithm>
#include <array>
#include <filesystem>
#include <string>
#include <vector>

/// Writes rows of pictures as one PNG, each pixel enlarged `zoom` times. A picture's frame is its colour: red, green and blue;
/// its caption stands below.
class contact_sheet {
 public:
  using colour = std::array<std::uint8_t, 3>;
  static constexpr colour right{40, 160, 60}, wrong{220, 30, 30};

  struct cell {
    const roster::image* picture;
    colour frame;
    std::string caption = {};
  };

  explicit contact_sheet(int zoom) : zoom_(zoom) {}

  void add_row(std::vector<cell> row) {
    for (const auto& each : row)
      if (!each.caption.empty()) caption_height_ = 16;
    rows_.push_back(std::move(row));
  }

  void write(const std::filesystem::path& file) const {
    std::size_t columns = 0;
    for (const auto& row : rows_)
      columns = std::max(columns, row.size());
    const auto& first = *rows_.at(0).at(0).picture;
    const auto width = static_cast<int>(first.width()) * zoom_, height = static_cast<int>(first.height()) * zoom_;
    const auto row_height = height + margin + caption_height_;
    cv::Mat sheet(static_cast<int>(rows_.size()) * row_height, static_cast<int>(columns) * (width + margin), CV_8UC3,
                  cv::Scalar(255, 255, 255));
    for (std::size_t y = 0; y < rows_.size(); ++y)
      for (std::size_t x = 0; x < rows_[y].size(); ++x) {
        const auto& [picture, frame, caption] = rows_[y][x];
        const cv::Point corner(static_cast<int>(x) * (width + margin) + margin / 2,
                               static_cast<int>(y) * row_height + margin / 2);
        const cv::Rect place(corner, cv::Size(width, height)),
            around(corner - cv::Point(2, 2), cv::Size(width + 4, height + 4));
        sheet(around) = cv::Scalar(frame[2], frame[1], frame[0]);
        for (int v = 0; v < height; ++v)
          for (int u = 0; u < width; ++u) {
            const auto pixel = picture->at(static_cast<std::size_t>(u / zoom_), static_cast<std::size_t>(v / zoom_));
            sheet(place).at<cv::Vec3b>(v, u) = {pixel[2], pixel[1], pixel[0]};
          }
        const auto below = corner + cv::Point(0, height + caption_height_ - 2);
        cv::putText(sheet, caption, below, cv::FONT_HERSHEY_PLAIN, 1, cv::Scalar(0, 0, 0), 1, cv::LINE_AA);
      }
    roster::opencv::write_png(roster::opencv::to_image(sheet), file);
  }

 private:
  static constexpr int margin = 8;
  int zoom_;
  int caption_height_ = 0;
  std::vector<std::vector<cell>> rows_;
};
