// Text on its way into tokens and out of them, against the plainest code that does the same.

#include "tests/fuzz/bytes.hpp"

#include <roster/engines/detail/stop_strings.hpp>
#include <roster/engines/opencv/character_vocabulary.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

using fuzz::require;

namespace {

/// Nothing where the vocabulary refuses.
std::optional<std::vector<std::uint8_t>> plain_encode(const std::string& characters, const std::string& text,
                                                      std::size_t limit) {
  std::string words;
  for (const char given : text) {
    const bool blank = given == ' ' || given == '\t' || given == '\n' || given == '\r';
    const char small = given >= 'A' && given <= 'Z' ? static_cast<char>(given + 32) : given;
    if (!blank && characters.find(small) == std::string::npos) return std::nullopt;
    if (!blank || (!words.empty() && words.back() != ' ')) words += blank ? ' ' : small;
  }
  if (!words.empty() && words.back() == ' ') words.pop_back();
  if (words.empty() || words.size() > limit) return std::nullopt;
  std::vector<std::uint8_t> tokens;
  for (const char each : words) {
    if (characters.find(each) == std::string::npos) return std::nullopt;  // a space
    tokens.push_back(static_cast<std::uint8_t>(characters.find(each)));
  }
  return tokens;
}

void check_encode(fuzz::bytes& input) {
  const std::string characters = std::array{"\n abcdefghij0123456789.,'", "z yx", "abc"}.at(input.below(3));
  const auto limit = input.below(20) + 1;
  // Any bytes at all are rarely a text that a vocabulary takes.
  const std::string_view likely = "abcABCxyz09 \t\n\r.'";
  std::string text;
  if (input.below(4) == 0) text = input.rest();
  while (!input.empty())
    text += likely[input.below(likely.size())];
  const roster::opencv::character_vocabulary vocabulary(characters);
  std::optional<std::vector<std::uint8_t>> tokens;
  try {
    tokens = vocabulary.encode(text, limit, "text");
  } catch (const roster::error& failure) {
    require(failure.code() == roster::errc::invalid_input, "a text is refused as invalid input");
  }
  require(tokens == plain_encode(characters, text, limit), "the tokens are those of the plain code");
}

/// The text before the stop string that is complete first, and of several the one that begins first.
std::string plain_stop(const std::vector<std::string>& stops, const std::string& text, bool& stopped) {
  auto end = text.size() + 1, begin = text.size();
  for (const auto& stop : stops)
    if (const auto found = text.find(stop); found != std::string::npos)
      std::tie(end, begin) = std::min(std::tuple(end, begin), std::tuple(found + stop.size(), found));
  stopped = end <= text.size();
  return text.substr(0, begin);
}

void check_stops(fuzz::bytes& input) {
  std::vector<std::string> stops;
  for (auto count = input.below(4); count > 0; --count) {
    std::string stop;
    for (auto length = input.below(4) + 1; length > 0; --length)
      stop += static_cast<char>('a' + input.below(3));
    stops.push_back(stop);
  }
  const auto rhythm = input.below(4) + 1;
  std::string text;
  while (!input.empty())
    text += static_cast<char>('a' + input.below(3));

  roster::detail::stop_strings filter(stops);
  std::string given;
  bool stopped = false;
  for (std::size_t i = 0; i < text.size() && !stopped; ++i) {
    stopped = filter.add(text[i]);
    if (i % rhythm == 0 && !stopped) given += filter.take();
  }
  given += filter.take_rest();
  bool plainly_stopped = false;
  require(given == plain_stop(stops, text, plainly_stopped), "the text ends where the plain code ends it");
  require(stopped == plainly_stopped, "a text is stopped when the plain code says so");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::bytes input(data, size);
  if (input.below(2) == 0)
    check_encode(input);
  else
    check_stops(input);
  return 0;
}
