#include <roster/engines/opencv.hpp>

#include "tests/engines/support.hpp"
#include "tests/support/catch.hpp"

#include <roster/capability/image_embedding.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iostream>
#include <iterator>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace fs = std::filesystem;
using roster::embed_options;
using roster::embeddings;
using roster::errc;
using roster::image;
using roster::run_context;
using roster::opencv::channel_order;
using roster::opencv::image_encoder;
using roster::opencv::image_encoder_options;
using roster::opencv::resize_method;
using test::content;
using test::is_near;
using test::message_of;
using test::models;
using test::network;
using test::temporary_file;

static_assert(roster::engine_for<image_encoder, roster::image_embedding>);
static_assert(!std::is_copy_constructible_v<image_encoder> && !std::is_copy_assignable_v<image_encoder>);
static_assert(std::is_nothrow_move_constructible_v<image_encoder> && std::is_nothrow_move_assignable_v<image_encoder>);

namespace {

// Vectors that can be compared with pixels.
image_encoder_options plain() {
  image_encoder_options options;
  options.scale(1).normalise(false);
  return options;
}

image filled(std::size_t width, std::size_t height, std::uint8_t red, std::uint8_t green, std::uint8_t blue) {
  image result(width, height);
  for (std::size_t y = 0; y < height; ++y)
    for (std::size_t x = 0; x < width; ++x) {
      const auto pixel = result.at(x, y);
      pixel[0] = red;
      pixel[1] = green;
      pixel[2] = blue;
    }
  return result;
}

embeddings embed(image_encoder& encoder, const std::vector<image>& images) {
  embeddings vectors;
  run_context context;
  encoder.run(images, embed_options(), vectors, context);
  REQUIRE(vectors.rows() == images.size());
  REQUIRE(vectors.dimension() == encoder.dimension());
  return vectors;
}

std::vector<float> embed(image_encoder& encoder, const image& one) {
  const auto vectors = embed(encoder, std::vector{one});
  return {vectors[0].begin(), vectors[0].end()};
}

std::string failed_image_encoder(errc expected, const fs::path& path, const image_encoder_options& options = {}) {
  const auto message = message_of(expected, [&] { image_encoder(path, options); });
  CHECK_THAT(message, Catch::Contains(path.filename().string()));
  return message;
}

struct reference {
  std::vector<std::string> indices;  // of the scans, in examples/models/digits.png
  std::vector<image> scans;
  std::vector<std::vector<float>> vectors;
};

const reference& digits() {
  static const reference result = [] {
    reference read;
    std::ifstream sheet(network("digits").replace_extension("pgm"), std::ios::binary);
    std::string head;
    for (int line = 0; line < 3; ++line)
      std::getline(sheet, head);
    std::ifstream file(models / "digit_encoder_reference.txt");
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      words >> read.indices.emplace_back();
      read.vectors.emplace_back(std::istream_iterator<float>(words), std::istream_iterator<float>());
      image scan(8, 8);
      for (std::size_t y = 0; y < 8; ++y)
        for (std::size_t x = 0; x < 8; ++x)
          std::ranges::fill(scan.at(x, y), static_cast<std::uint8_t>(sheet.get()));
      read.scans.push_back(std::move(scan));
    }
    return read;
  }();
  return result;
}

}  // namespace

TEST_CASE("the digit encoder gives PyTorch's embeddings in batches of any size") {
  image_encoder encoder(models / "digit_encoder.onnx");
  const auto& [indices, scans, expected] = digits();
  REQUIRE(scans.size() == 16);
  for (const std::size_t size : {1U, 7U, 16U, 1U}) {
    for (std::size_t first = 0; first < scans.size(); first += size) {
      const auto last = std::min(first + size, scans.size());
      const auto vectors = embed(encoder, std::vector<image>(&scans[first], &scans[first] + (last - first)));
      for (std::size_t i = first; i < last; ++i) {
        CAPTURE(size, i);
        REQUIRE(expected[i].size() == 64);
        CHECK(is_near(vectors[i - first], expected[i], 1e-4F));
      }
    }
  }
}

TEST_CASE("the joint encoder and the classifier give PyTorch's numbers for scans that they enlarge") {
  const auto compare = [](image_encoder encoder, const std::string& file, const std::string& word) {
    std::size_t compared = 0;
    for (std::size_t i = 0; i < digits().scans.size(); ++i)
      for (const auto& line : test::lines(file, word + digits().indices[i])) {
        std::istringstream words(line);
        const std::vector<float> expected{std::istream_iterator<float>(words), std::istream_iterator<float>()};
        CAPTURE(file, digits().indices[i]);
        CHECK(is_near(embed(encoder, digits().scans[i]), expected, 1e-4F));
        ++compared;
      }
    CHECK(compared == 8);
  };
  compare(image_encoder(models / "joint_image_encoder.onnx"), "joint_reference.txt", "scan ");
  image_encoder_options scores;
  compare(image_encoder(models / "classifier.onnx", scores.normalise(false)), "classifier_reference.txt", "");
}

TEST_CASE("the dimension is read from the network") {
  CHECK(image_encoder(models / "digit_encoder.onnx").dimension() == 64);
  CHECK(image_encoder(network("pixels")).dimension() == 18);
  CHECK(image_encoder(network("pooled")).dimension() == 3);  // N x 3 x 1 x 1
}

TEST_CASE("weights may be stored as a list, and a size that is left open as -1") {
  image_encoder encoder(network("listed_weights"), plain());
  CHECK(embed(encoder, filled(4, 4, 1, 1, 2)) == std::vector<float>{9});
}

TEST_CASE("an image reaches the network colour by colour, row by row") {
  image_encoder encoder(network("pixels"), plain());
  image picture(3, 2);
  for (std::size_t i = 0; i < 18; ++i)
    picture.pixels()[i] = static_cast<std::uint8_t>(10 * (i % 3) + i / 3);  // red counts from 0, green from 10, blue from 20
  CHECK(embed(encoder, picture) == std::vector<float>{0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 20, 21, 22, 23, 24, 25});
}

TEST_CASE("colours reach the network in the order that the options name, and mean and scale go with them") {
  const auto picture = filled(4, 4, 10, 20, 30);
  auto options = plain();
  options.input_size(4, 4);
  auto encoder = image_encoder(network("mean"), options);
  CHECK(embed(encoder, picture) == std::vector<float>{10, 20, 30});
  encoder = image_encoder(network("mean"), options.channels(channel_order::bgr));
  CHECK(embed(encoder, picture) == std::vector<float>{30, 20, 10});
  encoder = image_encoder(network("mean"), options.mean(2, 3, 5).scale(0.5, 2, 4));
  CHECK(embed(encoder, picture) == std::vector<float>{100, 34, 4});
  encoder = image_encoder(network("mean"), options.channels(channel_order::rgb));
  CHECK(embed(encoder, picture) == std::vector<float>{4, 34, 100});
}

TEST_CASE("colours run from 0 to 1 unless the options say otherwise") {
  image_encoder_options options;
  image_encoder encoder(network("pooled"), options.normalise(false));
  CHECK(is_near(embed(encoder, filled(4, 4, 255, 0, 51)), std::vector<float>{1, 0, 0.2F}, 1e-6F));
}

TEST_CASE("vectors have length 1 unless the options say otherwise") {
  image_encoder encoder(network("pooled"));
  CHECK(is_near(embed(encoder, filled(4, 4, 0, 30, 40)), std::vector<float>{0, 0.6F, 0.8F}, 1e-6F));
}

TEST_CASE("images of another size are resized as the options say") {
  const auto with = [](resize_method method) { return image_encoder(network("pixels"), plain().resize(method)); };
  // 12 x 8 becomes 3 x 2. In each square of 4 x 4 there is light in the corner, and half of it in the middle.
  image picture(12, 8);
  for (std::size_t y = 0; y < 8; ++y)
    for (std::size_t x = 0; x < 12; ++x)
      for (auto& value : picture.at(x, y)) {
        if (x % 4 == 0 && y % 4 == 0) value = 160;
        if (x % 4 == 1 && y % 4 == 1) value = 80;
      }
  auto nearest = with(resize_method::nearest);
  CHECK(embed(nearest, picture) == std::vector<float>(18, 160));
  auto linear = with(resize_method::linear);
  CHECK(embed(linear, picture) == std::vector<float>(18, 20));  // the four in the middle
  auto area = with(resize_method::area);
  CHECK(embed(area, picture) == std::vector<float>(18, 15));  // all sixteen
  auto cubic = with(resize_method::cubic);
  const auto vector = embed(cubic, picture);
  CHECK((vector[0] > 20 && vector[0] < 80));  // the sixteen, but some less than others
}

TEST_CASE("images of any proportions are stretched to the input of the network, each in its place of the batch") {
  image_encoder encoder(network("pixels"), plain());
  std::vector<image> images;
  for (const auto& [width, height] : {std::pair{1, 1}, {3, 2}, {2, 3}, {17, 1}, {1, 40}, {640, 3}})
    images.push_back(filled(static_cast<std::size_t>(width), static_cast<std::size_t>(height),
                            static_cast<std::uint8_t>(images.size()), 100, 200));
  const auto vectors = embed(encoder, images);
  for (std::size_t i = 0; i < images.size(); ++i) {
    std::vector<float> expected(6, static_cast<float>(i));
    expected.resize(12, 100);
    expected.resize(18, 200);
    CHECK(is_near(vectors[i], expected, 0));
  }
}

TEST_CASE("the left of an image stays left when it is stretched") {
  image_encoder encoder(network("pixels"), plain());
  image picture(6, 2);
  for (std::size_t y = 0; y < 2; ++y)
    for (std::size_t x = 0; x < 6; ++x)
      picture.at(x, y)[0] = static_cast<std::uint8_t>(x / 2 + 10 * y);
  const auto vector = embed(encoder, picture);
  CHECK(is_near(std::span(vector).first(6), std::vector<float>{0, 1, 2, 10, 11, 12}, 0));
}

TEST_CASE("where a network leaves its input size open, the options have to say it") {
  CHECK_THAT(failed_image_encoder(errc::invalid_argument, network("mean")), Catch::Contains("input_size"));
  image_encoder encoder(network("mean"), plain().input_size(2, 1));
  CHECK(embed(encoder, filled(5, 7, 1, 2, 3)) == std::vector<float>{1, 2, 3});
}

TEST_CASE("where a network fixes its input size, the options may only agree") {
  CHECK(image_encoder(network("pixels"), plain().input_size(3, 2)).dimension() == 18);
  CHECK_THAT(failed_image_encoder(errc::invalid_argument, network("pixels"), plain().input_size(2, 3)),
             Catch::Contains("2 x 3 pixels"));
}

TEST_CASE("a network that was exported for one batch size gets batches of that size") {
  for (const auto* name : {"batch_of_1", "batch_of_2"}) {
    image_encoder encoder(network(name), plain());
    CHECK(encoder.dimension() == 12);
    for (const std::size_t count : {1U, 2U, 3U, 4U, 1U}) {
      std::vector<image> images;
      for (std::size_t i = 0; i < count; ++i)
        images.push_back(filled(2, 2, static_cast<std::uint8_t>(i + 1), static_cast<std::uint8_t>(i + 1), 9));
      const auto vectors = embed(encoder, images);
      for (std::size_t i = 0; i < count; ++i) {
        std::vector<float> expected(8, static_cast<float>(i + 1));
        expected.resize(12, 9);
        CAPTURE(name, count, i);
        CHECK(is_near(vectors[i], expected, 0));
      }
    }
  }
}

TEST_CASE("no more images than the options allow go through the network at once, and each batch is reported") {
  image_encoder encoder(network("pixels"), plain().max_batch(3));
  std::vector<image> images;
  for (std::uint8_t i = 0; i < 8; ++i)
    images.push_back(filled(3, 2, i, i, i));
  embeddings vectors;
  run_context context;
  encoder.run(images, embed_options(), vectors, context);
  CHECK(context.progress() == roster::run_progress{8, 8});
  for (std::size_t i = 0; i < images.size(); ++i)
    CHECK(is_near(vectors[i], std::vector<float>(18, static_cast<float>(i)), 0));
}

TEST_CASE("a call that was asked to stop does nothing") {
  image_encoder encoder(network("pooled"));
  embeddings vectors;
  run_context context;
  context.request_stop();
  const std::vector images{filled(4, 4, 1, 1, 1)};
  CHECK_THROWS_AS(encoder.run(images, embed_options(), vectors, context), boost::system::system_error);
  CHECK(context.progress() == roster::run_progress{0, 0});
}

TEST_CASE("a running call stops before its next batch, and the encoder remains usable") {
  image_encoder encoder(network("pooled"), plain().max_batch(1));
  const std::vector<image> images(300'000, filled(1, 1, 1, 2, 3));
  embeddings vectors;
  run_context context;
  std::thread canceller([&] {
    while (context.progress().done == 0)
      std::this_thread::yield();
    context.request_stop();
  });
  boost::system::error_code code;
  try {
    encoder.run(images, embed_options(), vectors, context);
  } catch (const boost::system::system_error& failure) {
    code = failure.code();
  }
  canceller.join();
  CHECK(code == roster::detail::operation_aborted());
  CHECK(context.progress().total == images.size());
  CHECK(context.progress().done < images.size());
  CHECK(embed(encoder, images[0]) == std::vector<float>{1, 2, 3});
}

TEST_CASE("no images give no vectors") {
  image_encoder encoder(network("pooled"));
  CHECK(embed(encoder, std::vector<image>()).values().empty());
}

TEST_CASE("an image without pixels is refused before anything is computed") {
  image_encoder encoder(network("pooled"), plain());
  embeddings vectors;
  run_context context;
  for (const auto& empty : {image(), image(0, 5), image(5, 0)}) {
    const std::vector images{filled(4, 4, 1, 1, 1), empty};
    const auto message = message_of(errc::invalid_input, [&] { encoder.run(images, embed_options(), vectors, context); });
    CHECK_THAT(message,
               Catch::Contains("image 2 of 2") && Catch::Contains("allowed are 1 to") && Catch::Contains("pooled.onnx"));
  }
  CHECK(context.progress() == roster::run_progress{0, 0});
  CHECK(embed(encoder, filled(4, 4, 1, 2, 3)) == std::vector<float>{1, 2, 3});
}

TEST_CASE("NaN and infinity are errors that name the image, and the encoder remains usable") {
  image_encoder encoder(network("logarithm"), plain().mean(1, 1, 1));
  embeddings vectors;
  run_context context;
  for (const std::uint8_t bad : std::initializer_list<std::uint8_t>{0, 1}) {  // the logarithm of -1, of 0
    const std::vector images{filled(4, 4, 2, 2, 2), filled(4, 4, 2, bad, 2), filled(4, 4, 2, 2, 2)};
    const auto message = message_of(errc::bad_output, [&] { encoder.run(images, embed_options(), vectors, context); });
    CHECK_THAT(message, Catch::Contains("image 2 of 3") && Catch::Contains("logarithm.onnx"));
    CHECK(embed(encoder, filled(4, 4, 2, 2, 2)) == std::vector<float>{0, 0, 0});
  }
}

TEST_CASE("a vector of length 0 is an error where it should be normalised, and only there") {
  const image black(4, 4);
  image_encoder normalising(network("pooled"));
  CHECK_THAT(message_of(errc::bad_output, [&] { embed(normalising, black); }), Catch::Contains("image 1 of 1"));
  CHECK(is_near(embed(normalising, filled(4, 4, 7, 0, 0)), std::vector<float>{1, 0, 0}, 1e-6F));
  image_encoder encoder(network("pooled"), plain());
  CHECK(embed(encoder, black) == std::vector<float>{0, 0, 0});
}

TEST_CASE("of several outputs the options choose one") {
  CHECK_THAT(failed_image_encoder(errc::bad_model, network("two_outputs")), Catch::Contains("means, pixels"));
  image_encoder means(network("two_outputs"), plain().output("means"));
  CHECK(means.dimension() == 3);
  CHECK(embed(means, filled(4, 4, 1, 2, 3)) == std::vector<float>{1, 2, 3});
  image_encoder pixels(network("two_outputs"), plain().output("pixels"));
  CHECK(pixels.dimension() == 48);
  CHECK_THAT(failed_image_encoder(errc::invalid_argument, network("two_outputs"), plain().output("medians")),
             Catch::Contains("'medians'") && Catch::Contains("means, pixels"));
}

TEST_CASE("a product of activations keeps the constant factor behind it") {
  image_encoder encoder(network("attention"), plain());
  CHECK(embed(encoder, filled(1, 1, 4, 8, 12)) == std::vector<float>{4, 8, 12, 8, 16, 24, 12, 24, 36});
}

TEST_CASE("an encoder that was moved goes on working") {
  image_encoder first(network("pooled"), plain());
  image_encoder second(std::move(first));
  first = image_encoder(network("pixels"), plain());
  CHECK(embed(second, filled(4, 4, 1, 2, 3)) == std::vector<float>{1, 2, 3});
  CHECK(first.dimension() == 18);
}

TEST_CASE("a missing file is a bad model") {
  CHECK_THAT(failed_image_encoder(errc::bad_model, network("nowhere")), Catch::Contains("o such file"));
}

TEST_CASE("a directory is a bad model") {
  CHECK_THAT(failed_image_encoder(errc::bad_model, models), Catch::Contains("not a regular file"));
}

TEST_CASE("a file that is not ONNX is a bad model") {
  std::mt19937 random(7);
  std::string noise;
  for (int i = 0; i < 10'000; ++i)
    noise.push_back(static_cast<char>(random()));
  for (const auto& bytes : {std::string(), std::string("a text, and not a network\n"), noise, std::string(1000, '\0')}) {
    const temporary_file file(bytes);
    CHECK_THAT(failed_image_encoder(errc::bad_model, file.path), Catch::Contains("not an ONNX file"));
  }
  failed_image_encoder(errc::bad_model, models / "digits.png");
}

TEST_CASE("a file that was cut off is a bad model, wherever that was") {
  const auto whole = content(network("pooled"));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const temporary_file file(whole.substr(0, size));
    CAPTURE(size);
    CHECK_THAT(failed_image_encoder(errc::bad_model, file.path), Catch::Contains("cut off"));
  }
  const auto encoder = content(models / "digit_encoder.onnx");
  for (const std::size_t size : {10UL, 1'000UL, 200'000UL, encoder.size() - 1}) {
    const temporary_file file(encoder.substr(0, size));
    CHECK_THAT(failed_image_encoder(errc::bad_model, file.path), Catch::Contains("cut off"));
  }
}

TEST_CASE("a network that is no image encoder is a bad model") {
  for (const auto& [name, reason] : {
           std::pair{"no_input", "0 inputs"},
           {"two_inputs", "2 inputs"},
           {"grey", "? x 1 x 4 x 4, expected N x 3"},
           {"channels_last", "? x 4 x 4 x 3, expected N x 3"},
           {"vector_input", "? x 48, expected N x 3"},
           {"feature_map", "1 x 3 x 4 x 4 for a batch of 1"},
           {"sideways", "3 x 1 for a batch of 1"},
           {"unknown_operator", "Quux"},
           {"wrong_weights", "multiple of 5 but got 3"},
           {"missing_weights", "uses 'weights'"},
           {"weights_elsewhere", "weights are in other files"},
           {"short_weights", "do not have the size of their shape"},
           {"short_list", "do not have the size of their shape"},
           {"short_constant", "do not have the size of their shape"},
       })
    CHECK_THAT(failed_image_encoder(errc::bad_model, network(name)), Catch::Contains(reason));
}

TEST_CASE("a failure to load prints nothing, and leaves OpenCV's log level as it was") {
  const auto level = cv::utils::logging::LOG_LEVEL_WARNING;  // the default
  cv::utils::logging::setLogLevel(level);
  std::ostringstream printed;
  auto* const terminal = std::cerr.rdbuf(printed.rdbuf());
  try {
    image_encoder(network("unknown_operator"));
  } catch (const roster::error&) {
  }
  std::cerr.rdbuf(terminal);
  CHECK(printed.str().empty());
  CHECK(cv::utils::logging::getLogLevel() == level);
}

TEST_CASE("options out of range are refused") {
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  image_encoder_options options;
  message_of(errc::invalid_argument, [&] { options.input_size(0, 8); });
  message_of(errc::invalid_argument, [&] { options.input_size(8, image_encoder_options::limit + 1); });
  message_of(errc::invalid_argument, [&] { options.mean(0, nan, 0); });
  message_of(errc::invalid_argument, [&] { options.scale(1e300); });
  message_of(errc::invalid_argument, [&] { options.max_batch(0); });
  CHECK(options.input_width() == 0);
  CHECK(options.max_batch() == 64);
}

TEST_CASE("encoders are made and used on several threads at once") {
  const auto& [indices, scans, expected] = digits();
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread)
    threads.emplace_back([&] {
      for (int round = 0; round < 5; ++round) {
        image_encoder encoder(models / "digit_encoder.onnx");
        embeddings vectors;
        run_context context;
        encoder.run(scans, embed_options(), vectors, context);
        for (std::size_t i = 0; i < scans.size(); ++i)
          wrong += !is_near(vectors[i], expected[i], 1e-4F);
      }
    });
  for (auto& thread : threads)
    thread.join();
  CHECK(wrong == 0);
}
