#include <roster/engines/detail/seeded_random.hpp>
#include <roster/engines/detail/stop_strings.hpp>
#include <roster/engines/detail/token_sampling.hpp>
#include <roster/engines/opencv/character_vocabulary.hpp>

#include "tests/engines/support.hpp"
#include "tests/support/catch.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

using roster::errc;
using roster::detail::sample_token;
using roster::detail::seeded_random;
using roster::detail::stop_strings;
using roster::opencv::character_vocabulary;
using test::message_of;

namespace {

std::string read_back(std::string_view text, std::size_t limit = 1000) {
  const character_vocabulary vocabulary;
  std::string result;
  for (const auto token : vocabulary.encode(text, limit, "text"))
    result += vocabulary.character(token);
  return result;
}

std::string refusal(std::string_view text) {
  return message_of(errc::invalid_input, [&] { character_vocabulary().encode(text, 10, "prompt"); });
}

/// What comes out of `stop_strings` piece by piece, with `|` between, and a final `.` if the text was stopped.
std::string pieces(const std::string& text, std::vector<std::string> stops) {
  stop_strings stop(std::move(stops));
  std::string result;
  for (const char each : text) {
    const bool ended = stop.add(each);
    if (const auto piece = stop.take(); !piece.empty()) result += piece + '|';
    if (ended) return result + stop.take_rest() + '.';
  }
  return result + stop.take_rest();
}

}  // namespace

TEST_CASE("a text is brought to small letters and single spaces") {
  CHECK(read_back("What is\tTHREE \r\n plus four?") == "what is three plus four?");
  CHECK(read_back("  a  ") == "a");
  CHECK(read_back("9-2=") == "9-2=");
}

TEST_CASE("the limit counts what is left of a text, and the message what there was") {
  CHECK(read_back("   abc   ", 3) == "abc");
  CHECK_THAT(refusal(std::string(100'000, 'x')), Catch::Contains("prompt: 100000 characters, allowed are 1 to 10"));
  CHECK_THAT(refusal("12345 67890"), Catch::Contains("11 characters"));
}

TEST_CASE("a text without characters is refused") {
  for (const auto* text : {"", " ", "\t\n\r "})
    CHECK_THAT(refusal(text), Catch::Contains("prompt: 0 characters, allowed are 1 to 10"));
}

TEST_CASE("a character outside the vocabulary is named") {
  CHECK_THAT(refusal("caf\xC3\xA9"), Catch::Contains("U+00E9 at byte 3"));
  CHECK_THAT(refusal("\xE2\x82\xAC"), Catch::Contains("U+20AC at byte 0"));
  CHECK_THAT(refusal("a \xF0\x9F\x98\x80"), Catch::Contains("U+1F600 at byte 2"));
  CHECK_THAT(refusal("[x]"), Catch::Contains("U+005B at byte 0"));
  CHECK_THAT(refusal(std::string(1, '\0')), Catch::Contains("U+0000 at byte 0"));
}

TEST_CASE("a space between words has to be in the vocabulary") {
  const character_vocabulary letters("abc");
  CHECK(letters.encode(" a\n", 10, "text").size() == 1);
  CHECK_THAT(message_of(errc::invalid_input, [&] { (void)letters.encode("a \tb", 10, "text"); }),
             Catch::Contains("U+0020 at byte 2"));
}

TEST_CASE("a text that is no UTF-8 is refused as that") {
  // Alone, unfinished, overlong, a surrogate, beyond Unicode, and bytes that never occur.
  for (const auto* text : {"\x80", "\xC3", "\xE2\x82", "\xF0\x9F\x98", "\xC3(", "\xC0\xAF", "\xE0\x80\xAF", "\xF0\x80\x80\xAF",
                           "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF"})
    CHECK_THAT(refusal(text), Catch::Contains("invalid UTF-8 at byte 0"));
}

TEST_CASE("a character that is refused is named, with those that are allowed") {
  const character_vocabulary letters("\nab");
  CHECK_THAT(message_of(errc::invalid_input, [&] { (void)letters.encode("ac", 10, "text"); }),
             Catch::Contains("U+0063 at byte 1 is not in the vocabulary, allowed are \"ab\""));
}

TEST_CASE("a vocabulary has each ASCII character at most once, and at least one") {
  for (const auto* characters : {"", "abca", "aB", "\xC3\xA9"})
    message_of(errc::invalid_argument, [&] { (void)character_vocabulary(characters); });
  CHECK(character_vocabulary("cab").token('a') == 1);
  CHECK(character_vocabulary("cab").token('z') == 3);
}

TEST_CASE("noise is what the training script drew from the same seed") {
  std::size_t compared = 0;
  for (const auto& line : test::lines("drawing_reference.txt", "noise")) {
    std::istringstream words(line);
    std::uint64_t seed = 0;
    words >> seed;
    seeded_random random(seed);
    for (float expected = 0; words >> expected; ++compared)
      CHECK(random.normal() == expected);
  }
  CHECK(compared == 32);
}

TEST_CASE("without a seed, two generators differ") {
  CHECK(seeded_random(std::nullopt).next() != seeded_random(std::nullopt).next());
}

TEST_CASE("temperature 0 takes the likeliest token, the first of equals") {
  seeded_random random(1);
  CHECK(sample_token({1, 3, 2, 3}, 0, 1, random) == 1);
}

TEST_CASE("tokens are drawn by their probability at a temperature, within the nucleus") {
  const std::vector<float> scores{std::log(0.5F), std::log(0.125F), std::log(0.25F), std::log(0.125F)};
  const auto shares = [&](float temperature, float top_p) {
    seeded_random random(7);
    std::array<double, 4> counts{};
    for (int i = 0; i < 20'000; ++i)
      counts[sample_token(scores, temperature, top_p, random)] += 1.0 / 20'000;
    return counts;
  };
  const auto is_about = [](const auto& one, const std::array<double, 4>& other) {
    return std::ranges::equal(one, other, [](double a, double b) { return std::abs(a - b) < 0.015; });
  };
  CHECK(is_about(shares(1, 1), {0.5, 0.125, 0.25, 0.125}));
  CHECK(is_about(shares(0.5F, 1), {16.0 / 22, 1.0 / 22, 4.0 / 22, 1.0 / 22}));  // squares
  CHECK(is_about(shares(1, 0.75F), {2.0 / 3, 0, 1.0 / 3, 0}));
  CHECK(is_about(shares(1, 0.8F), {4.0 / 7, 1.0 / 7, 2.0 / 7, 0}));
  CHECK(is_about(shares(1, 0.01F), {1, 0, 0, 0}));
  CHECK(is_about(shares(1e-30F, 1), {1, 0, 0, 0}));
}

TEST_CASE("text comes at once, but for what may be the beginning of a stop string") {
  CHECK(pieces("abc", {}) == "a|b|c|");
  CHECK(pieces("one two three", {"two"}) == "o|n|e| |.");
  CHECK(pieces("totwo", {"two"}) == "to|.");
  CHECK(pieces("ttw", {"two"}) == "t|tw");
  CHECK(pieces("aab", {"ab"}) == "a|.");
  CHECK(pieces("abcd", {"bcx", "cd"}) == "a|b.");
  CHECK(pieces("x", {"x"}) == ".");
  CHECK(pieces("abababc", {"ababc"}) == "ab|.");
}
