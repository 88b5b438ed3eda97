#include <roster/engines/opencv/png.hpp>

#include "tests/engines/support.hpp"
#include "tests/support/catch.hpp"

#include <roster/engines/opencv/mat.hpp>

#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

using roster::errc;
using roster::image;
using roster::opencv::decode_png;
using roster::opencv::encode_png;
using roster::opencv::read_png;
using roster::opencv::to_image;
using roster::opencv::to_mat;
using roster::opencv::write_png;
using test::message_of;

namespace {

image colourful(std::size_t width, std::size_t height) {
  image made(width, height);
  for (std::size_t i = 0; i < made.pixels().size(); ++i)
    made.pixels()[i] = static_cast<std::uint8_t>(i * 37 + i / 3);
  return made;
}

std::vector<std::uint8_t> png_of(const cv::Mat& mat) {
  std::vector<std::uint8_t> bytes;
  REQUIRE(cv::imencode(".png", mat, bytes));
  return bytes;
}

}  // namespace

TEST_CASE("a picture becomes a matrix with blue first, and comes back") {
  const auto picture = colourful(5, 3);
  const auto mat = to_mat(picture);
  CHECK((mat.rows == 3 && mat.cols == 5 && mat.type() == CV_8UC3));
  const auto pixel = picture.at(4, 1);
  CHECK(mat.at<cv::Vec3b>(1, 4) == cv::Vec3b(pixel[2], pixel[1], pixel[0]));
  CHECK(to_image(mat) == picture);
  CHECK(to_mat(image(0, 3)).empty());
}

TEST_CASE("a part of a matrix, whose rows do not follow each other, becomes a picture") {
  const auto mat = to_mat(colourful(6, 4));
  const auto part = to_image(mat(cv::Rect(2, 1, 3, 2)));
  CHECK((part.width() == 3 && part.height() == 2));
  CHECK(part.at(2, 1)[0] == colourful(6, 4).at(4, 2)[0]);
}

TEST_CASE("grey is three colours alike, alpha is left out, and of 16 bits the upper ones count") {
  CHECK(to_image(cv::Mat(1, 1, CV_8UC1, cv::Scalar(7))) == image(1, 1, {7, 7, 7}));
  CHECK(to_image(cv::Mat(1, 1, CV_8UC4, cv::Scalar(1, 2, 3, 0))) == image(1, 1, {3, 2, 1}));
  CHECK(to_image(cv::Mat(1, 1, CV_16UC3, cv::Scalar(0, 257 * 9 + 100, 65'535))) == image(1, 1, {255, 9, 0}));
  CHECK(to_image(cv::Mat(1, 1, CV_16UC1, cv::Scalar(257 * 9 + 200))) == image(1, 1, {10, 10, 10}));
}

TEST_CASE("a matrix that is no picture is refused, saying what it is") {
  CHECK_THAT(message_of(errc::invalid_input, [] { to_image(cv::Mat(2, 2, CV_32FC3, cv::Scalar(0))); }),
             Catch::Contains("CV_32FC3"));
  CHECK_THAT(message_of(errc::invalid_input, [] { to_image(cv::Mat(2, 2, CV_8UC2, cv::Scalar(0))); }),
             Catch::Contains("CV_8UC2"));
  message_of(errc::invalid_input, [] { to_image(cv::Mat()); });
  const int sizes[] = {2, 2, 2};
  message_of(errc::invalid_input, [&] { to_image(cv::Mat(3, sizes, CV_8UC3, cv::Scalar(0))); });
}

TEST_CASE("a picture goes through the bytes of a PNG, and through a file, unchanged") {
  const auto picture = colourful(31, 17);
  const auto bytes = encode_png(picture);
  CHECK(decode_png(bytes) == picture);
  CHECK(decode_png(std::string(bytes.begin(), bytes.end())) == picture);
  const test::temporary_file file("old content that is longer than nothing");
  write_png(picture, file.path);
  CHECK(read_png(file.path) == picture);
}

TEST_CASE("every kind of PNG is read") {
  CHECK(decode_png(png_of(cv::Mat(2, 2, CV_8UC1, cv::Scalar(7)))) == image(2, 2, std::vector<std::uint8_t>(12, 7)));
  CHECK(decode_png(png_of(cv::Mat(1, 1, CV_8UC4, cv::Scalar(1, 2, 3, 128)))) == image(1, 1, {3, 2, 1}));
  CHECK(decode_png(png_of(cv::Mat(1, 1, CV_16UC3, cv::Scalar(0, 257 * 9, 65'535)))) == image(1, 1, {255, 9, 0}));
  CHECK(read_png(test::models / "digits.png").width() > 0);
}

TEST_CASE("bytes that are no PNG, or not all of one, or changed, are refused") {
  CHECK_THAT(message_of(errc::invalid_input, [] { decode_png(std::span<const std::uint8_t>()); }),
             Catch::Contains("not a PNG"));
  std::vector<std::uint8_t> jpeg;
  REQUIRE(cv::imencode(".bmp", cv::Mat(2, 2, CV_8UC3, cv::Scalar(0)), jpeg));
  CHECK_THAT(message_of(errc::invalid_input, [&] { decode_png(jpeg); }), Catch::Contains("not a PNG"));
  const auto whole = encode_png(colourful(9, 9));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    message_of(errc::invalid_input, [&] { decode_png(std::span(whole).first(size)); });
  }
  auto huge = whole;
  for (const std::size_t place : {16U, 20U})  // width and height
    huge[place] = 0x7F;
  message_of(errc::invalid_input, [&] { decode_png(huge); });
}

TEST_CASE("a picture without pixels is no PNG") {
  message_of(errc::invalid_input, [] { encode_png(image()); });
  message_of(errc::invalid_input, [] { encode_png(image(0, 4)); });
}

TEST_CASE("a PNG file that is not there, is none, or cannot be written is named") {
  CHECK_THAT(message_of(errc::invalid_argument, [] { read_png("/nowhere/at all.png"); }),
             Catch::Contains("/nowhere/at all.png"));
  CHECK_THAT(message_of(errc::invalid_argument, [] { read_png("/"); }), Catch::Contains("cannot be read"));
  CHECK_THAT(message_of(errc::invalid_argument, [] { write_png(colourful(2, 2), "/nowhere/at all.png"); }),
             Catch::Contains("/nowhere/at all.png"));
  const test::temporary_file file("no picture");
  CHECK_THAT(message_of(errc::invalid_input, [&] { read_png(file.path); }), Catch::Contains(file.path.string()));
}
