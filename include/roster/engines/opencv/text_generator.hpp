#pragma once

#include <roster/call/model_info.hpp>
#include <roster/call/run_context.hpp>
#include <roster/call/sink.hpp>
#include <roster/call/text_request.hpp>
#include <roster/engines/detail/seeded_random.hpp>
#include <roster/engines/detail/stop_strings.hpp>
#include <roster/engines/detail/token_sampling.hpp>
#include <roster/engines/opencv/character_vocabulary.hpp>
#include <roster/engines/opencv/detail/blob.hpp>
#include <roster/engines/opencv/detail/floats.hpp>
#include <roster/engines/opencv/detail/network.hpp>
#include <roster/engines/opencv/detail/onnx_file.hpp>
#include <roster/error.hpp>

#include <fmt/format.h>
#include <opencv2/core.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv {

/// Text to text with an ONNX network that reads and writes characters, and that OpenCV's `dnn` module runs on the CPU: an
/// engine for `text_to_text`.
///
/// The network is causal, with a fixed window. Its input is `1 x vocabulary x 1 x length` floats, one-hot: all 0 but for a 1
/// at (0, token, 0, place). Question, line end and the answer so far begin at the first place. Its output has the same sizes;
/// what stands at place n scores the token that follows there. A line end ends the answer.
///
/// It has no memory: of a conversation, it answers the last message.
///
/// The same seed gives the same answer, but where two tokens come so close that the last bits of floating-point numbers, which
/// differ between processors, decide. What `image_encoder` says of OpenCV and of threads holds here as well.
class text_generator final {
 public:
  static constexpr std::size_t default_max_tokens = 64;  ///< where a request names none; the window if that is smaller
  static constexpr float default_temperature = 0;        ///< where a request names none: always the likeliest token
  static constexpr float max_temperature = 2;            ///< the most that is accepted; the least is 0
  static constexpr std::size_t room_for_answer = 16;     ///< how much of the window a question has to leave

  /// Reads a network and tries it out. Blocks, so call it where an engine is made.
  ///
  /// **Errors**: `bad_model`, naming the file, if it is missing, damaged or not ONNX, if OpenCV cannot run it or does not run
  /// it right, or if its inputs or outputs are others than above; `invalid_argument` for a vocabulary without line end.
  explicit text_generator(const std::filesystem::path& onnx, character_vocabulary vocabulary = character_vocabulary())
      : text_generator(detail::onnx_file(onnx), std::move(vocabulary)) {}

  /// Takes the network over. The other generator can only be destroyed or assigned to.
  text_generator(text_generator&&) = default;

  /// Takes the network over. The other generator can only be destroyed or assigned to.
  text_generator& operator=(text_generator&&) = default;

  text_generator(const text_generator&) = delete;
  text_generator& operator=(const text_generator&) = delete;
  ~text_generator() = default;

  /// The window: characters of question and answer together, with the line end between.
  std::size_t context_length() const noexcept { return sizes_[3]; }

  /// Adds the window.
  void describe(model_info& info) const { info.context_length = context_length(); }

  /// Answers: a piece of text for each token, and then a `text_end`, which counts line ends as tokens too. Text that may be
  /// the beginning of a stop string comes when that is decided. Reports tokens as progress.
  ///
  /// **Cancellation**: returns after the current token when nobody wants more of `out`; `operation_aborted` before the next
  /// token when the context asks to stop.
  /// **Errors**: `invalid_input`, naming what is wrong and what is allowed, for a conversation that does not end with the user,
  /// a question that is empty, too long, no valid UTF-8 or outside the vocabulary, an empty stop string, and numbers out of
  /// range; `bad_output` for NaN or infinity, or if OpenCV fails. The generator remains usable.
  void run(const text_request& request, sink<text_event>& out, run_context& context) {
    const auto limit = request.max_tokens().value_or((std::min)(default_max_tokens, context_length()));
    const auto temperature = request.temperature().value_or(default_temperature);
    const auto top_p = request.top_p().value_or(1);
    check(request, limit, temperature, top_p);
    auto tokens = vocabulary_.encode(request.messages().back().content, context_length() - room_for_answer, "prompt");
    tokens.push_back(line_end_);
    const auto question = tokens.size();

    roster::detail::seeded_random random(request.seed());
    roster::detail::stop_strings stops(request.stop());
    auto reason = finish_reason::max_tokens;
    while (reason == finish_reason::max_tokens && tokens.size() < context_length() && tokens.size() - question < limit) {
      context.throw_if_stop_requested();
      tokens.push_back(roster::detail::sample_token(score_next(tokens), temperature, top_p, random));
      const auto made = static_cast<std::uint32_t>(tokens.size() - question);
      context.report_progress(made, static_cast<std::uint32_t>(limit));
      if (tokens.back() == line_end_)
        reason = finish_reason::done;
      else if (stops.add(vocabulary_.character(tokens.back())))
        reason = finish_reason::stop_string;
      if (auto text = stops.take(); !text.empty() && !out.push(std::move(text))) return;
    }
    if (auto text = stops.take_rest(); !text.empty() && !out.push(std::move(text))) return;
    out.push(text_end(reason, question, tokens.size() - question));
  }

 private:
  text_generator(const detail::onnx_file& file, character_vocabulary vocabulary)
      : vocabulary_(std::move(vocabulary)),
        sizes_(input_sizes(file, vocabulary_.size())),
        output_(file.output("", "so this is no text generator")),
        line_end_(find_line_end(vocabulary_)),
        window_(detail::make_blob(sizes_)),
        net_(file, {{std::string(file.signature().inputs.front().name), sizes_}}, output_,
             [&](detail::network& net) { evaluate(net); }) {}

  static std::uint8_t find_line_end(const character_vocabulary& vocabulary) {
    const auto token = vocabulary.token(character_vocabulary::line_end);
    if (token == vocabulary.size()) throw error(errc::invalid_argument, "text_generator: a vocabulary without line end");
    return static_cast<std::uint8_t>(token);
  }

  static std::vector<std::size_t> input_sizes(const detail::onnx_file& file, std::size_t vocabulary) {
    const auto expected = fmt::format("1 x {} x 1 x length", vocabulary);
    auto sizes = file.shape(file.only_input("text"), {1, vocabulary, 1, 0}, expected);
    if (sizes[3] <= room_for_answer)
      file.fail(errc::bad_model, fmt::format("a window of {}, expected more than {}", sizes[3], room_for_answer));
    return sizes;
  }

  void check(const text_request& request, std::size_t limit, float temperature, float top_p) const {
    const auto fail = [](const std::string& reason) { throw error(errc::invalid_input, reason); };
    if (request.messages().empty() || request.messages().back().from != role::user)
      fail("messages: the last has to be the user's");
    if (limit == 0 || limit > context_length())
      fail(fmt::format("max_tokens: {}, allowed are 1 to {}", limit, context_length()));
    if (!detail::is_finite(temperature) || temperature < 0 || temperature > max_temperature)
      fail(fmt::format("temperature: {}, allowed are 0 to {}", temperature, max_temperature));
    if (!detail::is_finite(top_p) || top_p <= 0 || top_p > 1)
      fail(fmt::format("top_p: {}, allowed are more than 0, to 1", top_p));
    for (const auto& text : request.stop())
      if (text.empty()) fail("stop: an empty string");
  }

  cv::Mat evaluate(detail::network& net) {
    net.set_input(window_);
    return net.forward(output_, window_.total());
  }

  std::vector<float> score_next(const std::vector<std::uint8_t>& tokens) {
    window_.setTo(0);
    detail::write_one_hot(tokens, context_length(), window_.ptr<float>());
    const auto result = net_.guard([&] { return evaluate(net_); });
    const auto* scores = result.ptr<float>();
    std::vector<float> next(vocabulary_.size());
    for (std::size_t token = 0; token < next.size(); ++token)
      next[token] = scores[token * context_length() + tokens.size() - 1];
    return next;
  }

  character_vocabulary vocabulary_;
  std::vector<std::size_t> sizes_;  // of the network's input
  std::string output_;
  std::uint8_t line_end_;
  cv::Mat window_;
  detail::network net_;  // is tried out with all of the above
};

}  // namespace opencv

ROSTER_END_NAMESPACE
