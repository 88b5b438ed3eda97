#pragma once

#include <roster/engines/opencv.hpp>
#include <roster/roster.hpp>

#include <array>
#include <filesystem>
#include <string>

/// The four networks in examples/models, each behind a key of its capability.
using model_catalog =
    roster::catalog<roster::text_to_text, roster::text_to_image, roster::text_embedding, roster::image_embedding>;

/// Registers them; each is loaded when it is first asked for. Language and embeddings are computed on the pool; the drawing
/// model has a thread of its own. "second opinion" is a classifier, whose vectors are the scores of the ten digits.
inline boost::asio::awaitable<void> add_small_models(model_catalog& models, roster::blocking_pool& pool,
                                                     std::filesystem::path folder, std::size_t instances) {
  const auto make_language = [=] { return roster::opencv::text_generator(folder / "language.onnx"); };
  const auto make_text_encoder = [=] { return roster::opencv::text_encoder(folder / "joint_text_encoder.onnx"); };
  const auto make_painter = [=] { return roster::opencv::image_generator(folder / "drawing.onnx", make_text_encoder()); };
  const auto make_image_encoder = [=] { return roster::opencv::image_encoder(folder / "joint_image_encoder.onnx"); };
  const auto make_classifier = [=] {
    roster::opencv::image_encoder_options options;
    return roster::opencv::image_encoder(folder / "classifier.onnx", options.normalise(false));
  };
  const auto language = roster::pooled(pool, make_language).instances(instances);
  const auto texts = roster::pooled(pool, make_text_encoder);
  const auto painter = roster::pinned(make_painter);
  const auto images = roster::pooled(pool, make_image_encoder);
  const auto classifier = roster::pooled(pool, make_classifier);
  co_await models.add<roster::text_to_text>("language", language);
  co_await models.add<roster::text_embedding>("joint", texts);
  co_await models.add<roster::text_to_image>("digits", painter);
  co_await models.add<roster::image_embedding>("joint", images);
  co_await models.add<roster::image_embedding>("second opinion", classifier);
}

inline constexpr std::array<const char*, 10> digit_words{"zero", "one", "two",   "three", "four",
                                                         "five", "six", "seven", "eight", "nine"};
