// What PyTorch exports with a dynamic batch: right at any size of a batch, or refused.

#include <roster/engines/opencv.hpp>

#include "tests/engines/support.hpp"
#include "tests/support/catch.hpp"

#include <opencv2/core/utility.hpp>
#include <opencv2/core/version.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace fs = std::filesystem;
using roster::embed_options;
using roster::embeddings;
using roster::errc;
using roster::image;
using roster::run_context;
using roster::opencv::image_encoder;
using roster::opencv::image_encoder_options;
using test::is_near;
using test::message_of;
using test::network;

namespace {

constexpr std::size_t pictures = 8;

/// As make_encoders.py makes it.
image picture(std::size_t number) {
  image made(8, 8);
  for (std::size_t c = 0; c < 3; ++c)
    for (std::size_t y = 0; y < 8; ++y)
      for (std::size_t x = 0; x < 8; ++x) {
        const auto rough = (number * 7919 + c * 104'729 + y * 1'299'709 + x * 15'485'863) % 251 % (16U << (number % 4));
        made.at(x, y)[c] = static_cast<std::uint8_t>(std::min<std::size_t>(255, rough + 23 * number * (c + 1) % 128));
      }
  return made;
}

/// What PyTorch makes of each picture, by network.
std::map<std::string, std::vector<std::vector<float>>> read_expected() {
  std::map<std::string, std::vector<std::vector<float>>> expected;
  std::ifstream file(network("encoders").replace_extension("txt"));
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    std::size_t number = 0;
    words >> name >> number;
    auto& vectors = expected[name];
    REQUIRE(vectors.size() == number);
    vectors.emplace_back(std::istream_iterator<float>(words), std::istream_iterator<float>());
  }
  return expected;
}

image_encoder load(const std::string& name) {
  image_encoder_options options;
  return image_encoder(network(name), options.normalise(false));
}

embeddings embed_all(image_encoder& encoder, const std::vector<image>& images) {
  embeddings vectors;
  run_context context;
  encoder.run(images, embed_options(), vectors, context);
  return vectors;
}

/// Batches of every size, each with other pictures in other places.
void check_all_sizes(image_encoder encoder, const std::vector<std::vector<float>>& expected) {
  for (const std::size_t size : {1U, 2U, 3U, 4U, 5U, 6U, 7U, 8U, 1U}) {
    const auto chosen = [&](std::size_t place) { return (place * 3 + size) % pictures; };
    std::vector<image> images;
    for (std::size_t place = 0; place < size; ++place)
      images.push_back(picture(chosen(place)));
    const auto vectors = embed_all(encoder, images);
    for (std::size_t place = 0; place < size; ++place) {
      const auto& meant = expected[chosen(place)];
      const auto largest = std::abs(*std::ranges::max_element(meant, {}, [](float value) { return std::abs(value); }));
      CAPTURE(size, place);
      REQUIRE(vectors.dimension() >= meant.size());  // the file holds the first 200
      CHECK(is_near(vectors[place].first(meant.size()), meant, 1e-3F * largest + 1e-5F));
    }
  }
}

image filled(std::initializer_list<std::uint8_t> reds) {
  image made(2, 2);
  std::size_t pixel = 0;
  for (const auto red : reds)
    std::ranges::fill(made.at(pixel % 2, pixel / 2), red), ++pixel;
  return made;
}

std::vector<float> alone(image_encoder& encoder, const image& one) {
  const auto vectors = embed_all(encoder, {one});
  return {vectors[0].begin(), vectors[0].end()};
}

}  // namespace

TEST_CASE(
    "what PyTorch exports with a dynamic batch is right in batches of any size, or OpenCV is said to be unable to run it") {
  const auto expected = read_expected();
  CHECK(expected.size() >= 150);
  std::vector<std::string> refused;
  for (const auto& [name, vectors] : expected) {
    CAPTURE(name);
    REQUIRE(vectors.size() == pictures);
    try {
      check_all_sizes(load("encoders/" + name), vectors);
    } catch (const roster::error& failure) {
      CHECK(failure.code() == errc::bad_model);
      const std::string why = failure.what();
      CHECK_THAT(why, Catch::Contains(name + ".onnx: OpenCV " + cv::getVersionString()));
      refused.push_back(name + (why.find("computes the operator") != std::string::npos ? ": wrong" : ": cannot"));
    }
  }
#if CV_VERSION_MAJOR == 4 && CV_VERSION_MINOR == 6
  const std::vector<std::string> unable{
      "cast_floor: wrong",                // Cast to integers, then back
      "cosine_heads: cannot",             // Clip of weights
      "einsum: cannot",                   // Einsum
      "flip: cannot",                     // Slice with a negative step
      "gather: cannot",                   // Gather of several
      "gru_rows: cannot",                 // Shape of the batch in the state
      "l2_by_hand: cannot",               // Div of N x 5 by N x 1
      "layernorm_by_hand: wrong",         // Sub of N x 1 x H x W
      "layernorm_map: cannot",            // Div by N x 1 x 1 x 1
      "layernorm_vector: cannot",         // Div of N x 4 by N x 1
      "layernorm_vector_11: cannot",      //
      "layernorm_vector_17: cannot",      // LayerNormalization
      "lstm_rows: cannot",                // as gru_rows
      "max_pool_dilated: wrong",          // MaxPool with dilations
      "maximum_constant: cannot",         // Max of a constant
      "multihead: wrong",                 // Squeeze of an axis from the end
      "multihead_11: wrong",              //
      "other_average_mixed: wrong",       // AveragePool, one that counts its padding and one that does not
      "other_batchnorm_training: wrong",  // BatchNormalization with a batch's own statistics
      "other_cast_uint8: wrong",          // as cast_floor
      "other_conv_same_lower: wrong",     // Conv with more padding before than behind
      "other_gemm_alpha_beta: wrong",     // Gemm with factors
      "other_lp_1: cannot",               // LpNormalization
      "other_max_same_lower: wrong",      // MaxPool with more padding before than behind
      "other_pad_negative: cannot",       // Pad with less than nothing
      "other_reduce_nothing: wrong",      // ReduceSum over no axes
      "other_resize_default: cannot",     // Resize without a mode
      "other_resize_linear: cannot",      // Resize without a mode for coordinates
      "other_slice_last: wrong",          // Slice of an axis from the end
      "other_softmax_old: wrong",         // Softmax over several axes
      "other_squeeze_last: wrong",        // Squeeze of axes from the end
      "other_squeeze_last_new: wrong",    //
      "pool_std: cannot",                 // Gather of several, for the number of values
      "resize_bicubic: cannot",           // Resize, cubic
      "response_norm: cannot",            // Pad without a value
      "reverse_div_vector: wrong",        // Div of a constant
      "unsqueeze: cannot",                // Unsqueeze of a last axis
      "unsqueeze_11: cannot",             //
      "variance_gate: cannot",            // as pool_std
      "vit_block_17: cannot",             // LayerNormalization
      "vit_class_token: cannot",          // Mul of constants of different sizes
      "where_positive: cannot",           // Where
  };
  CHECK(refused == unable);
#endif
}

TEST_CASE("a channel's gate does not depend on the other pictures of a batch") {
  for (const auto* name : {"se_dyn", "se_fix"}) {
    auto encoder = load(name);
    const auto one = filled({10, 70, 130, 190}), other = filled({200, 20, 250, 90});
    const auto of_one = alone(encoder, one), of_other = alone(encoder, other);
    CHECK(of_one[0] == Approx(0.2340).margin(1e-4));  // 100 / 255 * sigmoid(100 / 255)
    const auto together = embed_all(encoder, {one, other, one});
    CHECK(is_near(together[0], of_one, 1e-6F));
    CHECK(is_near(together[1], of_other, 1e-6F));
    CHECK(is_near(together[2], of_one, 1e-6F));
  }
}

TEST_CASE("a mean over height and width before a convolution is computed in batches of any size") {
  auto encoder = load("dead_2");
  const auto one = filled({10, 70, 130, 190}), other = filled({200, 20, 250, 90});
  const auto of_one = alone(encoder, one), of_other = alone(encoder, other);
  CHECK(of_one != of_other);
  const auto together = embed_all(encoder, {other, one, other, one, one});
  CHECK(is_near(together[0], of_other, 1e-6F));
  CHECK(is_near(together[4], of_one, 1e-6F));
}

TEST_CASE("a mean and a deviation inside of a network with a dynamic batch give what they give with a batch of one") {
  auto dynamic = load("norm_dyn"), fixed = load("norm_fix");
  const std::vector<image> images{filled({10, 70, 130, 190}), filled({200, 20, 250, 90}), filled({0, 0, 0, 255})};
  const auto vectors = embed_all(dynamic, images), expected = embed_all(fixed, images);
  for (std::size_t i = 0; i < images.size(); ++i)
    CHECK(is_near(vectors[i], expected[i], 1e-6F));
}

TEST_CASE("the padding of an average counts where the file says so, whoever made the file") {
  auto uncounted = load("avg_pytorch_0"), counted = load("avg_x_1");
  const auto corners = filled({10, 70, 130, 190});
  CHECK(is_near(alone(uncounted, corners),
                std::vector<float>{10 / 255.F, 70 / 255.F, 130 / 255.F, 190 / 255.F, 10 / 255.F, 70 / 255.F, 130 / 255.F,
                                   190 / 255.F, 10 / 255.F, 70 / 255.F, 130 / 255.F, 190 / 255.F},
                1e-6F));
  const auto quarters = alone(counted, corners);
  CHECK(quarters[0] == Approx(10 / 255.0 / 4));
  CHECK(quarters[3] == Approx(190 / 255.0 / 4));
}

TEST_CASE("several items are computed at once where that is safe and gives what each gives alone, and only there") {
  using roster::opencv::detail::embedding_network;
  using roster::opencv::detail::onnx_file;
  const auto batch_of = [](const fs::path& path, std::vector<std::size_t> sizes) {
    const onnx_file file(path);
    return embedding_network(file, file.output("", ""), std::move(sizes), 64, false).batch();
  };
  CHECK(batch_of(test::models / "digit_encoder.onnx", {0, 3, 8, 8}) == 64);
  CHECK(batch_of(test::models / "joint_image_encoder.onnx", {0, 3, 32, 32}) == 64);
  CHECK(batch_of(test::models / "classifier.onnx", {0, 3, 32, 32}) == 64);
  CHECK(batch_of(test::models / "joint_text_encoder.onnx", {0, 47, 1, 64}) == 64);
  for (const auto* name : {"encoders/residual", "encoders/inverted_residual", "encoders/dense_concat", "encoders/act_gelu"})
    CHECK(batch_of(network(name), {0, 3, 8, 8}) == 64);
  for (const auto* name : {"encoders/se_pool", "encoders/se_mean", "encoders/se_high_2", "encoders/vit_attention"})
    CHECK(batch_of(network(name), {0, 3, 8, 8}) == 1);
}

TEST_CASE("a network that mixes the images of its batch is no encoder") {
  CHECK_THAT(message_of(errc::bad_model, [] { load("mixed_batch"); }), Catch::Contains("depends on the others of a batch"));
}

TEST_CASE("what OpenCV cannot run is not said to be the file's fault, and what is damaged is") {
  CHECK_THAT(message_of(errc::bad_model, [] { load("unknown_operator"); }),
             Catch::Contains("OpenCV " + cv::getVersionString()));
  CHECK_THAT(message_of(errc::bad_model, [] { load("missing_weights"); }), !Catch::Contains("OpenCV"));
}
