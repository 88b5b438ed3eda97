#pragma once

#include <roster/call/call_options.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

ROSTER_BEGIN_NAMESPACE

/// Who says a message.
enum class role { system, user, assistant };

/// One turn of a conversation.
struct message {
  /// `speaker` says `text`, in UTF-8.
  message(role speaker, std::string text) : from(speaker), content(std::move(text)) {}

  role from;            ///< who says it
  std::string content;  ///< what is said
};

/// What to answer, and how. Which values a model takes is the model's to say, by `invalid_input`.
class text_request : public call_options_for<text_request> {
 public:
  /// Continue, or answer, `prompt`.
  explicit text_request(std::string prompt) { messages_.emplace_back(role::user, std::move(prompt)); }

  /// Answer the last message of a conversation.
  explicit text_request(std::vector<message> conversation) : messages_(std::move(conversation)) {}

  /// The most tokens to generate.
  text_request& max_tokens(std::size_t count) {
    max_tokens_ = count;
    return *this;
  }

  /// How random the choice of tokens is; 0 always takes the likeliest.
  text_request& temperature(float value) {
    temperature_ = value;
    return *this;
  }

  /// Nucleus sampling (Holtzman et al., 2020): choose among the likeliest tokens that together have this probability.
  text_request& top_p(float value) {
    top_p_ = value;
    return *this;
  }

  /// The answer ends before any of these strings.
  text_request& stop(std::vector<std::string> strings) {
    stop_ = std::move(strings);
    return *this;
  }

  /// The same seed gives the same answer.
  text_request& seed(std::uint64_t value) {
    seed_ = value;
    return *this;
  }

  const std::vector<message>& messages() const noexcept { return messages_; }  ///< a prompt is one message of the user
  const std::optional<std::size_t>& max_tokens() const noexcept { return max_tokens_; }  ///< unset: the model's own
  const std::optional<float>& temperature() const noexcept { return temperature_; }      ///< unset: the model's own
  const std::optional<float>& top_p() const noexcept { return top_p_; }                  ///< unset: the model's own
  const std::vector<std::string>& stop() const noexcept { return stop_; }                ///< empty for none
  const std::optional<std::uint64_t>& seed() const noexcept { return seed_; }            ///< unset: a random one

 private:
  std::vector<message> messages_;
  std::optional<std::size_t> max_tokens_;
  std::optional<float> temperature_, top_p_;
  std::vector<std::string> stop_;
  std::optional<std::uint64_t> seed_;
};

/// Why an answer ended: the model was done, a stop string came, or `max_tokens` were generated.
enum class finish_reason { done, stop_string, max_tokens };

/// The end of an answer.
struct text_end {
  /// An answer of `completion` tokens to `prompt` tokens.
  text_end(finish_reason why, std::size_t prompt, std::size_t completion)
      : reason(why), prompt_tokens(prompt), completion_tokens(completion) {}

  finish_reason reason;           ///< why it ended
  std::size_t prompt_tokens;      ///< tokens read
  std::size_t completion_tokens;  ///< tokens generated
};

/// What answering yields: pieces of text, then the end.
using text_event = std::variant<std::string, text_end>;

ROSTER_END_NAMESPACE
