#include <roster/engines/opencv/text_generator.hpp>
#include <roster/registry/registry.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>

#include "tests/engines/support.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <roster/capability/text_to_text.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace asio = boost::asio;
using roster::errc;
using roster::finish_reason;
using roster::message;
using roster::role;
using roster::run_context;
using roster::text_end;
using roster::text_event;
using roster::text_request;
using roster::text_to_text;
using roster::opencv::character_vocabulary;
using roster::opencv::text_generator;
using test::collector;
using test::message_of;
using test::models;
using test::network;

static_assert(roster::engine_for<text_generator, text_to_text>);

namespace {

text_generator make_text_generator() {
  return text_generator(models / "language.onnx");
}

struct answer {
  std::string text;
  std::size_t pieces = 0;
  std::optional<text_end> end;

  void add(const text_event& event) {
    if (const auto* piece = std::get_if<std::string>(&event))
      text += *piece, ++pieces;
    else
      end = std::get<text_end>(event);
  }
};

answer ask(text_generator& generator, const text_request& request) {
  collector<text_event> out;
  run_context context;
  generator.run(request, out, context);
  answer result;
  for (const auto& event : out.chunks)
    result.add(event);
  REQUIRE(result.end);
  REQUIRE(std::holds_alternative<text_end>(out.chunks.back()));
  CHECK(context.progress().done == result.end->completion_tokens);
  return result;
}

asio::awaitable<std::string> ask(roster::registry<text_to_text>& speakers, std::string key, text_request request) {
  auto speaker = co_await speakers.get(key);
  auto tokens = speaker->generate(std::move(request));
  answer result;
  while (auto event = co_await tokens.next())
    result.add(*event);
  co_return result.text;
}

std::string failed_text_generator(const std::filesystem::path& path) {
  const auto text = message_of(errc::bad_model, [&] { (void)text_generator(path); });
  CHECK_THAT(text, Catch::Contains(path.filename().string()));
  return text;
}

struct speakers_fixture {
  ~speakers_fixture() { test::drain(loop); }

  asio::io_context loop;
  roster::blocking_pool pool{2};
  roster::registry<text_to_text> speakers{loop};
};

}  // namespace

TEST_CASE("the answers are those that PyTorch gave where the network was trained") {
  auto generator = make_text_generator();
  const auto questions = test::lines("language_reference.txt", "ask");
  const auto answers = test::lines("language_reference.txt", "answer");
  REQUIRE(questions.size() == answers.size());
  REQUIRE(questions.size() > 5);
  for (std::size_t i = 0; i < questions.size(); ++i)
    CHECK(ask(generator, text_request(questions[i])).text == answers[i]);
}

TEST_CASE("an answer comes character by character, and counts its tokens, line ends too") {
  auto generator = make_text_generator();
  const auto seven = ask(generator, text_request("three plus four"));
  CHECK(seven.text == "seven");
  CHECK(seven.pieces == 5);
  CHECK(seven.end->reason == finish_reason::done);
  CHECK(seven.end->prompt_tokens == 16);
  CHECK(seven.end->completion_tokens == 6);
}

TEST_CASE("an answer ends after the most tokens that are wanted, and where the window is full") {
  auto generator = make_text_generator();
  const auto cut = ask(generator, text_request("count from one to nine").max_tokens(7));
  CHECK(cut.text == "one two");
  CHECK(cut.end->reason == finish_reason::max_tokens);
  CHECK(cut.end->completion_tokens == 7);

  text_request question("count from one to nine" + std::string(57, '.'));  // leaves 16 of the window
  const auto full = ask(generator, question.temperature(2).seed(3).max_tokens(96));
  CHECK(full.end->prompt_tokens == 80);
  CHECK(full.end->completion_tokens <= 16);
}

TEST_CASE("an answer ends before a stop string") {
  auto generator = make_text_generator();
  const auto before_four = ask(generator, text_request("count from one to nine").stop({"seven", " four"}));
  CHECK(before_four.text == "one two three");
  CHECK(before_four.end->reason == finish_reason::stop_string);
  const auto unstopped = ask(generator, text_request("three plus four").stop({"seventeen"}));
  CHECK(unstopped.text == "seven");
  CHECK(unstopped.end->reason == finish_reason::done);
}

TEST_CASE("the same seed gives the same answer, and other seeds give others") {
  auto generator = make_text_generator();
  const auto request = [](std::uint64_t seed) { return text_request("12 plus 3 minus 7").temperature(2).seed(seed); };
  std::vector<std::string> answers;
  for (std::uint64_t seed = 0; seed < 8; ++seed)
    answers.push_back(ask(generator, request(seed)).text);
  CHECK(std::ranges::adjacent_find(answers, std::not_equal_to<>()) != answers.end());
  for (std::uint64_t seed = 0; seed < 8; ++seed)
    CHECK(ask(generator, request(seed)).text == answers[seed]);
}

TEST_CASE("of a conversation, the last message is answered") {
  auto generator = make_text_generator();
  const std::vector<message> talk{
      {role::system, "be brief"}, {role::user, "hello"}, {role::assistant, "hi"}, {role::user, "9-2"}};
  CHECK(ask(generator, text_request(talk)).text == "seven");
}

TEST_CASE("an answer that nobody wants any more ends with that token") {
  auto generator = make_text_generator();
  collector<text_event> out(3);
  run_context context;
  generator.run(text_request("count from one to nine"), out, context);
  CHECK(out.pushes == 3);
  CHECK(context.progress().done == 3);
}

TEST_CASE("an answer that is asked to stop ends before the next token") {
  auto generator = make_text_generator();
  collector<text_event> out;
  run_context context;
  context.request_stop();
  CHECK_THROWS_AS(generator.run(text_request("3+4"), out, context), boost::system::system_error);
  CHECK(out.pushes == 0);
}

TEST_CASE("questions and numbers out of range are refused, naming field and range, and the next call works") {
  auto generator = make_text_generator();
  const auto refused = [&](const text_request& request) {
    collector<text_event> out;
    run_context context;
    auto text = message_of(errc::invalid_input, [&] { generator.run(request, out, context); });
    CHECK(out.pushes == 0);
    return text;
  };
  const auto prompt = [](std::string text) { return text_request(std::move(text)); };
  CHECK_THAT(refused(prompt("")), Catch::Contains("prompt: 0 characters, allowed are 1 to 80"));
  CHECK_THAT(refused(prompt(std::string(100'000, 'x'))), Catch::Contains("prompt: 100000 characters, allowed are 1 to 80"));
  CHECK_THAT(refused(prompt("\xFF")), Catch::Contains("prompt: invalid UTF-8"));
  CHECK_THAT(refused(prompt("\xC3\xA9")), Catch::Contains("prompt: U+00E9"));
  CHECK_THAT(refused(text_request(std::vector<message>())), Catch::Contains("messages"));
  CHECK_THAT(refused(text_request(std::vector<message>(1, message(role::assistant, "hi")))), Catch::Contains("messages"));
  CHECK_THAT(refused(prompt("3+4").max_tokens(0)), Catch::Contains("max_tokens: 0, allowed are 1 to 96"));
  CHECK_THAT(refused(prompt("3+4").max_tokens(100'000)), Catch::Contains("max_tokens: 100000, allowed are 1 to 96"));
  for (const float bad : {-0.1F, 2.5F, std::numeric_limits<float>::quiet_NaN()})
    CHECK_THAT(refused(prompt("3+4").temperature(bad)), Catch::Contains("temperature:") && Catch::Contains("0 to 2"));
  for (const float bad : {0.0F, 1.5F, std::numeric_limits<float>::quiet_NaN()})
    CHECK_THAT(refused(prompt("3+4").top_p(bad)), Catch::Contains("top_p:"));
  CHECK_THAT(refused(prompt("3+4").stop({"a", ""})), Catch::Contains("stop: an empty string"));
  CHECK(ask(generator, prompt("3+4")).text == "seven");
}

TEST_CASE("a window smaller than the usual answer limits the answer by itself") {
  text_generator generator(network("small_window"));
  CHECK(ask(generator, text_request("3+4")).end);
}

TEST_CASE("a file that is no text generator is a bad model") {
  failed_text_generator(models / "nowhere.onnx");
  const test::temporary_file cut(test::content(models / "language.onnx").substr(0, 500'000));
  CHECK_THAT(failed_text_generator(cut.path), Catch::Contains("cut off"));
  CHECK_THAT(failed_text_generator(models / "joint_text_encoder.onnx"), Catch::Contains("has 64 values, expected 3008"));
  CHECK_THAT(failed_text_generator(network("scores_small")), Catch::Contains("'scores' has 47 values, expected 4512"));
  CHECK_THAT(failed_text_generator(network("scores_nan")), Catch::Contains("NaN or infinity in output 'scores'"));
  const character_vocabulary without_line_end("\t abcdefghijklmnopqrstuvwxyz0123456789+-=?!.,:'");
  message_of(errc::invalid_argument, [&] { (void)text_generator(models / "language.onnx", without_line_end); });
}

TEST_CASE_METHOD(speakers_fixture, "the same seed gives the same answer, however many are given at once, and wherever") {
  const auto make = [] { return make_text_generator(); };
  test::finish(loop, speakers.add("pooled", roster::pooled(pool, make).instances(2)));
  test::finish(loop, speakers.add("pinned", roster::pinned(make)));
  const auto request = [](std::uint64_t seed) { return text_request("12 plus 3 minus 7").temperature(1.5F).seed(seed); };
  std::vector<std::string> expected;
  for (std::uint64_t seed = 0; seed < 4; ++seed)
    expected.push_back(test::finish(loop, ask(speakers, "pooled", request(seed))));
  std::vector<test::task<std::string>> running;
  for (std::uint64_t i = 0; i < 64; ++i)
    running.push_back(test::spawn(loop, ask(speakers, i % 8 < 4 ? "pooled" : "pinned", request(i % 4))));
  for (std::size_t i = 0; i < running.size(); ++i) {
    test::run_until(loop, [&] { return running[i].done(); });
    CHECK(running[i].value() == expected[i % 4]);
  }
}

TEST_CASE_METHOD(speakers_fixture, "dropping an answer stops its model within one token") {
  const auto make = [] { return make_text_generator(); };
  test::finish(loop, speakers.add("key", roster::pinned(make)));
  const auto speaker = test::finish(loop, speakers.get("key"));
  for (int round = 0; round < 5; ++round) {
    auto tokens = speaker->generate(text_request("count from zero to nine"));
    auto next = speaker->generate(text_request("3+4"));  // waits for its turn
    for (int i = 0; i < 3; ++i)
      test::finish(loop, tokens.next());
    tokens.cancel();
    const auto when_cancelled = tokens.progress().done;
    CHECK(test::finish(loop, next.next()).has_value());
    CHECK(tokens.progress().done <= when_cancelled + 1);
  }
}
