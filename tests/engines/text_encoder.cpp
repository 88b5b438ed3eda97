#include <roster/engines/opencv/text_encoder.hpp>

#include "tests/engines/support.hpp"
#include "tests/support/catch.hpp"

#include <roster/capability/text_embedding.hpp>

#include <cstddef>
#include <filesystem>
#include <istream>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

using roster::embeddings;
using roster::errc;
using roster::run_context;
using roster::text_embed_options;
using roster::opencv::character_vocabulary;
using roster::opencv::text_encoder;
using test::message_of;
using test::models;
using test::network;
using test::temporary_file;

static_assert(roster::engine_for<text_encoder, roster::text_embedding>);

namespace {

embeddings embed(text_encoder& encoder, const std::vector<std::string>& texts) {
  embeddings vectors;
  run_context context;
  encoder.run(texts, text_embed_options(), vectors, context);
  REQUIRE(vectors.rows() == texts.size());
  return vectors;
}

std::string failed_text_encoder(const std::filesystem::path& path, const character_vocabulary& vocabulary = {}) {
  const auto message = message_of(errc::bad_model, [&] { (void)text_encoder(path, vocabulary); });
  CHECK_THAT(message, Catch::Contains(path.filename().string()));
  return message;
}

}  // namespace

TEST_CASE("the text encoder gives PyTorch's embeddings in batches of any size") {
  text_encoder encoder(models / "joint_text_encoder.onnx");
  CHECK(encoder.dimension() == 64);
  CHECK(encoder.max_length() == 64);
  std::vector<std::string> texts;
  std::vector<std::vector<float>> expected;
  for (const auto& line : test::lines("joint_reference.txt", "text")) {
    std::istringstream words(line);
    auto& vector = expected.emplace_back(64);
    for (auto& value : vector)
      words >> value;
    std::getline(words >> std::ws, texts.emplace_back());
  }
  REQUIRE(texts.size() > 5);
  const auto together = embed(encoder, texts);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    CAPTURE(texts[i]);
    CHECK(test::is_near(together[i], expected[i], 1e-4F));
    CHECK(test::is_near(embed(encoder, {texts[i]})[0], expected[i], 1e-4F));
    CHECK(test::is_near(encoder.embed(texts[i], "prompt"), expected[i], 1e-4F));
  }
  CHECK(test::is_near(embed(encoder, std::vector<std::string>(150, texts[1]))[149], expected[1], 1e-4F));
}

TEST_CASE("texts that mean the same digit lie close, also such as were never seen in training") {
  text_encoder encoder(models / "joint_text_encoder.onnx");
  const auto vectors = embed(encoder, {"the digit seven", "My favourite figure, 7!", "the digit one"});
  const auto cosine = [&](std::size_t a, std::size_t b) {
    return std::inner_product(vectors[a].begin(), vectors[a].end(), vectors[b].begin(), 0.0);
  };
  CHECK(cosine(0, 1) > 0.9);
  CHECK(cosine(0, 2) < 0.5);
}

TEST_CASE("texts that cannot be read are refused before anything is computed, and the encoder remains usable") {
  text_encoder encoder(models / "joint_text_encoder.onnx");
  for (const auto& bad : {std::string(), std::string(100'000, 'x'), std::string("\xFF"), std::string("na\xC3\xAFve")}) {
    embeddings vectors;
    run_context context;
    const std::vector<std::string> texts{"seven", bad};
    const auto message = message_of(errc::invalid_input, [&] { encoder.run(texts, text_embed_options(), vectors, context); });
    CHECK_THAT(message, Catch::Contains("text 2 of 2"));
    CHECK(context.progress() == roster::run_progress{0, 0});
  }
  CHECK(embed(encoder, {"seven"}).dimension() == 64);
}

TEST_CASE("an instruction is refused, since the network could not follow it") {
  text_encoder encoder(models / "joint_text_encoder.onnx");
  embeddings vectors;
  run_context context;
  const std::vector<std::string> texts{"seven"};
  text_embed_options options;
  options.instruction("search_query");
  CHECK_THAT(message_of(errc::invalid_input, [&] { encoder.run(texts, options, vectors, context); }),
             Catch::Contains("instruction"));
}

TEST_CASE("a file that is no text encoder is a bad model") {
  failed_text_encoder(models / "nowhere.onnx");
  const temporary_file cut(test::content(models / "joint_text_encoder.onnx").substr(0, 100'000));
  CHECK_THAT(failed_text_encoder(cut.path), Catch::Contains("cut off"));
  CHECK_THAT(failed_text_encoder(models / "joint_image_encoder.onnx"), Catch::Contains("expected N x 47 x 1 x length"));
  CHECK_THAT(failed_text_encoder(models / "joint_text_encoder.onnx", character_vocabulary("abc")),
             Catch::Contains("expected N x 3 x 1 x length"));
  CHECK_THAT(failed_text_encoder(network("two_inputs")), Catch::Contains("2 inputs"));
}
