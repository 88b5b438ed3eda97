#pragma once

#include <roster/error.hpp>
#include <roster/version.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv {

/// The characters that a network reads and writes, each a token: the tokenizer of networks small enough to spell.
///
/// Before a text becomes tokens, A to Z become a to z, and spaces, tabs and line ends become one space, none at either end.
///
/// **Thread safety**: all members may be called concurrently.
class character_vocabulary {
 public:
  /// The character after a question, and after its answer.
  static constexpr char line_end = '\n';

  /// The 47 characters of roster's example networks.
  character_vocabulary() : character_vocabulary("\n abcdefghijklmnopqrstuvwxyz0123456789+-=?!.,:'") {}

  /// A character's place in `characters` is its token.
  ///
  /// **Errors**: `invalid_argument` if there are none, if they are not ASCII, if one is there twice, or one from A to Z, which
  /// no text has by the time it becomes tokens.
  explicit character_vocabulary(std::string characters) : characters_(std::move(characters)) {
    if (characters_.empty()) throw error(errc::invalid_argument, "character_vocabulary: no characters");
    for (std::size_t i = 0; i < characters_.size(); ++i)
      if (const char each = characters_[i];
          static_cast<unsigned char>(each) > 127 || (each >= 'A' && each <= 'Z') || characters_.find(each) != i)
        throw error(errc::invalid_argument,
                    fmt::format("character_vocabulary: character {} is not ASCII, a capital, or there twice", i));
  }

  /// How many tokens there are.
  std::size_t size() const noexcept { return characters_.size(); }

  /// The character that a token stands for.
  char character(std::size_t token) const noexcept { return characters_[token]; }

  /// The token of a character; `size()` if it has none.
  std::size_t token(char character) const noexcept {
    const auto place = characters_.find(character);
    return place == std::string::npos ? characters_.size() : place;
  }

  /// The tokens of a UTF-8 text, 1 to `limit` of them. `field` is what messages call the text.
  ///
  /// **Errors**: `invalid_input` if the text is empty, too long, no valid UTF-8, or has a character outside the vocabulary.
  std::vector<std::uint8_t> encode(std::string_view text, std::size_t limit, std::string_view field) const {
    const auto fail = [&](const std::string& reason) {
      throw error(errc::invalid_input, fmt::format("{}: {}", field, reason));
    };
    std::vector<std::uint8_t> tokens;
    std::size_t length = 0;
    std::optional<std::size_t> space;  // between two words: where
    const auto add = [&](std::size_t token) {
      if (++length <= limit) tokens.push_back(static_cast<std::uint8_t>(token));
    };
    for (std::size_t at = 0; at < text.size(); ++at) {
      const char letter = text[at];
      if (letter == ' ' || letter == '\t' || letter == '\n' || letter == '\r') {
        if (length != 0) space = at;
        continue;
      }
      const auto found = token(letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter);
      if (found == size()) fail(outsider(text.substr(at), at));
      if (space) {
        if (token(' ') == size()) fail(outsider(" ", *space));
        add(token(' '));
        space.reset();
      }
      add(found);
    }
    if (length == 0 || length > limit) fail(fmt::format("{} characters, allowed are 1 to {}", length, limit));
    return tokens;
  }

 private:
  /// What is wrong with the first character of `rest`. Checks UTF-8 as in RFC 3629.
  std::string outsider(std::string_view rest, std::size_t at) const {
    const auto byte = [&](std::size_t i) { return i < rest.size() ? static_cast<unsigned char>(rest[i]) : 0U; };
    const auto first = byte(0);
    const std::size_t size = first < 0x80 ? 1 : first >= 0xC2 && first < 0xE0 ? 2 : first >= 0xE0 && first < 0xF0 ? 3 : 4;
    std::uint32_t code = size == 1 ? first : first & (0x7FU >> size);
    bool valid = first < 0x80 || (first >= 0xC2 && first < 0xF5);
    for (std::size_t i = 1; i < size; ++i) {
      valid = valid && (byte(i) & 0xC0U) == 0x80;
      code = code << 6 | (byte(i) & 0x3FU);
    }
    constexpr std::uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    valid = valid && code >= least[size] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
    if (!valid) return fmt::format("invalid UTF-8 at byte {}", at);
    std::string allowed;  // without line ends, which a text does not keep
    std::ranges::copy_if(characters_, std::back_inserter(allowed), [](char each) { return each >= ' '; });
    return fmt::format("U+{:04X} at byte {} is not in the vocabulary, allowed are \"{}\"", code, at, allowed);
  }

  std::string characters_;
};

namespace detail {

/// Sets a 1 for each token: `to` is `vocabulary x columns` zeros.
inline void write_one_hot(const std::vector<std::uint8_t>& tokens, std::size_t columns, float* to) {
  for (std::size_t i = 0; i < tokens.size(); ++i)
    to[tokens[i] * columns + i] = 1;
}

}  // namespace detail

}  // namespace opencv

ROSTER_END_NAMESPACE
