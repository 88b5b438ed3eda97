#pragma once

#include <roster/call/embed_options.hpp>
#include <roster/call/embeddings.hpp>
#include <roster/call/model_info.hpp>
#include <roster/call/run_context.hpp>
#include <roster/engines/opencv/character_vocabulary.hpp>
#include <roster/engines/opencv/detail/embedding_network.hpp>
#include <roster/engines/opencv/detail/network.hpp>
#include <roster/engines/opencv/detail/onnx_file.hpp>
#include <roster/error.hpp>

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv {

/// Text embedding with an ONNX network that reads characters, and that OpenCV's `dnn` module runs on the CPU: an engine for
/// `text_embedding`.
///
/// The network has one input of `N x vocabulary x 1 x length` floats, one-hot: all 0 but for a 1 at (text, token, 0, place).
/// Texts begin at the first place. Its output is one vector for each text: `N x dimension`, with any number of dimensions of 1
/// beside. Length, batch size and dimension are read from it. Vectors are divided by their Euclidean length.
///
/// What `image_encoder` says of OpenCV and of threads holds here as well.
class text_encoder final {
 public:
  /// The most texts that go through the network at once, if it was exported for batches of any size.
  static constexpr std::size_t max_batch = 64;

  /// Reads a network and tries it out. Blocks, so call it where an engine is made.
  ///
  /// **Errors**: `bad_model`, naming the file, if it is missing, damaged or not ONNX, if OpenCV cannot run it or does not run
  /// it right, or if its inputs or outputs are others than above.
  explicit text_encoder(const std::filesystem::path& onnx, character_vocabulary vocabulary = character_vocabulary())
      : text_encoder(detail::onnx_file(onnx), std::move(vocabulary)) {}

  /// Takes the network over. The other encoder can only be destroyed or assigned to.
  text_encoder(text_encoder&&) = default;

  /// Takes the network over. The other encoder can only be destroyed or assigned to.
  text_encoder& operator=(text_encoder&&) = default;

  text_encoder(const text_encoder&) = delete;
  text_encoder& operator=(const text_encoder&) = delete;
  ~text_encoder() = default;

  /// The length of the vectors.
  std::size_t dimension() const noexcept { return net_.dimension(); }

  /// The most characters of a text.
  std::size_t max_length() const noexcept { return sizes_[3]; }

  /// Adds the most characters of a text.
  void describe(model_info& info) const { info.context_length = max_length(); }

  /// A vector for each text. Reports how many of them are done.
  ///
  /// **Cancellation**: `operation_aborted` before the next batch, when the context asks to stop.
  /// **Errors**: `invalid_input` for an instruction, and for a text that is empty, too long, no valid UTF-8 or outside the
  /// vocabulary; `bad_output` if a vector is zero or holds NaN or infinity, or if OpenCV fails. The encoder remains usable.
  void run(std::span<const std::string> texts, const text_embed_options& options, embeddings& vectors, run_context& context) {
    if (!options.instruction().empty()) throw error(errc::invalid_input, "instruction: this network takes none");
    std::vector<std::vector<std::uint8_t>> tokens;
    for (const auto& text : texts)
      tokens.push_back(vocabulary_.encode(text, max_length(), fmt::format("text {} of {}", tokens.size() + 1, texts.size())));
    run(tokens, vectors, context);
  }

  /// The vector of one text, which messages call `field`, for engines that take a prompt. Fails as `run` does.
  std::vector<float> embed(std::string_view text, std::string_view field) {
    embeddings vectors;
    run_context unheard;
    run(std::vector(1, vocabulary_.encode(text, max_length(), field)), vectors, unheard);
    return {vectors[0].begin(), vectors[0].end()};
  }

 private:
  void run(const std::vector<std::vector<std::uint8_t>>& tokens, embeddings& vectors, run_context& context) {
    net_.run(tokens.size(), "text", vectors, context,
             [&](std::size_t index, float* to) { detail::write_one_hot(tokens[index], max_length(), to); });
  }

  text_encoder(const detail::onnx_file& file, character_vocabulary vocabulary)
      : vocabulary_(std::move(vocabulary)),
        sizes_(input_sizes(file, vocabulary_.size())),
        net_(file, file.output("", "so this is no text encoder"), sizes_, max_batch, true) {}

  static std::vector<std::size_t> input_sizes(const detail::onnx_file& file, std::size_t vocabulary) {
    const auto expected = fmt::format("N x {} x 1 x length", vocabulary);
    auto sizes = file.shape(file.only_input("text"), {0, vocabulary, 1, 0}, expected);
    if (sizes[3] == 0) file.fail(errc::bad_model, "its input leaves the length open");
    return sizes;
  }

  character_vocabulary vocabulary_;
  std::vector<std::size_t> sizes_;  // of the network's input
  detail::embedding_network net_;
};

}  // namespace opencv

ROSTER_END_NAMESPACE
