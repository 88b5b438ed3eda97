#include <roster/call/embeddings.hpp>
#include <roster/call/image.hpp>
#include <roster/call/image_request.hpp>
#include <roster/call/text_request.hpp>
#include <roster/capability/image_embedding.hpp>
#include <roster/capability/text_embedding.hpp>
#include <roster/error.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

using roster::embeddings;
using roster::errc;
using roster::image;
using roster::image_request;
using roster::text_request;

namespace {

template <typename Action>
roster::error_code failure_of(Action action) {
  try {
    action();
  } catch (const roster::error& e) {
    return e.code();
  }
  return {};
}

}  // namespace

TEST_CASE("An image is rows of red, green and blue, without padding") {
  image picture(3, 2);
  CHECK(picture.width() == 3);
  CHECK(picture.height() == 2);
  CHECK(picture.pixels().size() == 18);
  CHECK_FALSE(picture.empty());
  picture.at(2, 1)[0] = 200;
  picture.at(2, 1)[2] = 100;
  CHECK(picture.pixels()[15] == 200);
  CHECK(picture.pixels()[17] == 100);
  const auto& constant = picture;
  CHECK(constant.at(2, 1)[0] == 200);
  CHECK(std::ranges::count(image(3, 2).pixels(), 0) == 18);  // black

  auto copy = picture;
  CHECK(copy == picture);
  copy.at(0, 0)[1] = 1;
  CHECK_FALSE(copy == picture);
  CHECK(image().empty());
  CHECK(image(0, 5).empty());
  CHECK_FALSE(image(0, 5) == image(5, 0));
}

TEST_CASE("An image refuses a number of bytes that is not its own") {
  CHECK_NOTHROW(image(2, 1, std::vector<std::uint8_t>(6)));
  CHECK_THROWS_WITH(image(2, 1, std::vector<std::uint8_t>(5)), Catch::Contains("5 bytes for 2 x 1 x 3"));
  CHECK(failure_of([] { image(2, 1, std::vector<std::uint8_t>(7)); }) == errc::invalid_argument);
  CHECK(failure_of([] { image(std::size_t{1} << 31, std::size_t{1} << 31); }) == errc::invalid_argument);
  // 2^63 * 2 * 3 is 0 in 64 bits.
  CHECK(failure_of([] { image(std::size_t{1} << 63, 2, std::vector<std::uint8_t>()); }) == errc::invalid_argument);
  CHECK(failure_of([] { image(std::size_t{1} << 63, 2); }) == errc::invalid_argument);
}

TEST_CASE("Embeddings are rows of one length, contiguous") {
  embeddings vectors(2, 3);
  vectors[1][0] = 5;
  CHECK(vectors.values().size() == 6);
  CHECK(vectors.values()[3] == 5);
  CHECK(vectors[1].size() == 3);
  CHECK(vectors[0].data() + 3 == vectors[1].data());
  vectors[0][1] = 6;
  vectors.resize(1, 2);
  CHECK(vectors.rows() == 1);
  CHECK(vectors.dimension() == 2);
  CHECK(std::ranges::count(vectors.values(), 0.F) == 2);  // what was there is lost
  CHECK(embeddings().rows() == 0);
  CHECK(embeddings(3, 0)[2].empty());
}

TEST_CASE("Embeddings refuse a size that no memory could hold, and keep what they have") {
  constexpr auto half = std::size_t{1} << 32;
  // In 64 bits the first product is 0, and the last one a number of bytes that is too large, though the number of floats is
  // not.
  for (const auto& [rows, dimension] :
       {std::pair(half, half), std::pair(half << 31, std::size_t{2}), std::pair(half, half >> 3)}) {
    CHECK(failure_of([&, r = rows, d = dimension] { embeddings(r, d); }) == errc::invalid_argument);
    embeddings vectors(2, 3);
    vectors[1][2] = 5;
    CHECK(failure_of([&, r = rows, d = dimension] { vectors.resize(r, d); }) == errc::invalid_argument);
    CHECK(vectors.rows() == 2);
    CHECK(vectors.dimension() == 3);
    CHECK(vectors[1][2] == 5);
  }
  CHECK(embeddings(0, half).values().empty());
  CHECK(embeddings(half, 0).rows() == half);
}

TEST_CASE("Requests chain, and leave open what nobody asked for") {
  const auto when = roster::call_options::time_point::clock::now();
  image_request plain("seven");
  CHECK(plain.prompt() == "seven");
  CHECK_FALSE(plain.steps());
  CHECK_FALSE(plain.seed());
  CHECK_FALSE(plain.width());
  CHECK_FALSE(plain.height());
  CHECK_FALSE(plain.guidance());
  CHECK(plain.negative_prompt().empty());
  CHECK(plain.preview_every() == 0);
  CHECK_FALSE(plain.deadline());
  CHECK_FALSE(plain.on());

  const auto full = image_request("seven")
                        .steps(16)
                        .seed(7)
                        .size(64, 32)
                        .guidance(2)
                        .negative_prompt("eight")
                        .deadline(when)
                        .on("cuda:0")
                        .preview_every(4);
  static_assert(std::is_same_v<decltype(full), const image_request>);
  CHECK(full.steps() == 16U);
  CHECK(full.seed() == 7U);
  CHECK(full.width() == 64U);
  CHECK(full.height() == 32U);
  CHECK(full.guidance() == 2.F);
  CHECK(full.negative_prompt() == "eight");
  CHECK(full.preview_every() == 4);
  CHECK(full.deadline() == when);
  CHECK(full.on() == roster::device("cuda:0"));

  const auto prompt = text_request("hello").max_tokens(5).temperature(0).top_p(0.5F).stop({"\n"}).seed(1).on("cpu");
  REQUIRE(prompt.messages().size() == 1);
  CHECK(prompt.messages()[0].from == roster::role::user);
  CHECK(prompt.messages()[0].content == "hello");
  CHECK(prompt.max_tokens() == 5U);
  CHECK(prompt.stop() == std::vector<std::string>{"\n"});
  CHECK(text_request(std::vector<roster::message>()).messages().empty());
  const text_request conversation({{roster::role::system, "be brief"}, {roster::role::user, "hello"}});
  REQUIRE(conversation.messages().size() == 2);
  CHECK(conversation.messages()[0].from == roster::role::system);
  CHECK(conversation.messages()[1].content == "hello");
  CHECK_FALSE(conversation.max_tokens());
  CHECK(conversation.stop().empty());

  CHECK(roster::text_embed_options().instruction("search_query").deadline(when).instruction() == "search_query");
}

TEST_CASE("A text request keeps how the answer is to be drawn") {
  roster::text_request request("why");
  CHECK_FALSE(request.temperature());
  CHECK_FALSE(request.top_p());
  CHECK_FALSE(request.seed());
  request.temperature(0.5F).top_p(0.25F).seed(7);
  CHECK(request.temperature() == 0.5F);
  CHECK(request.top_p() == 0.25F);
  CHECK(request.seed() == 7);
}

TEST_CASE("What a stream tells holds what it was made from") {
  const roster::image_step step(2, 8);
  CHECK(step.step == 2);
  CHECK(step.total == 8);
  CHECK_FALSE(step.preview);
  const roster::text_end end(roster::finish_reason::stop_string, 3, 5);
  CHECK(end.reason == roster::finish_reason::stop_string);
  CHECK(end.prompt_tokens == 3);
  CHECK(end.completion_tokens == 5);
}

TEST_CASE("What is not said of a model, or asked of a call, is unknown") {
  const roster::model_info known("maker", "name");
  CHECK(known.provider == "maker");
  CHECK(known.name == "name");
  for (const auto& info : {roster::model_info(), known}) {
    CHECK(info.licence.empty());
    CHECK(info.dimension + info.context_length + info.max_image_width + info.max_image_height + info.memory_bytes == 0);
  }
  CHECK_FALSE(roster::embed_options().deadline());
  CHECK_FALSE(roster::embed_options().on());
  CHECK_FALSE(roster::text_embed_options().deadline());
  CHECK_FALSE(roster::text_embed_options().on());
  CHECK(roster::text_embed_options().instruction().empty());
}

TEST_CASE("What is constant shows the same bytes and floats") {
  roster::image picture(1, 2);
  picture.pixels()[4] = 9;
  CHECK(std::as_const(picture).pixels()[4] == 9);
  roster::embeddings vectors(2, 1);
  vectors.values()[1] = 0.5F;
  CHECK(std::as_const(vectors).values()[1] == 0.5F);
}

TEST_CASE("Each error has a message of its own") {
  std::set<std::string> messages;
  constexpr auto last = static_cast<int>(roster::errc::foreign_exception);
  for (int value = 1; value <= last; ++value)
    messages.insert(make_error_code(static_cast<roster::errc>(value)).message());
  CHECK(messages.size() == last);
  CHECK_FALSE(messages.contains("unknown error"));
  CHECK(make_error_code(static_cast<roster::errc>(last + 1)).message() == "unknown error");
}

TEST_CASE("An error says what it is about, and a failed load whose it was and why") {
  const roster::error plain(errc::queue_full);
  CHECK(plain.code() == errc::queue_full);
  CHECK_THAT(plain.what(), Catch::StartsWith(plain.code().message()));
  const roster::error limit(errc::queue_full, "digits: 64 calls wait");
  CHECK(limit.code() == errc::queue_full);
  CHECK_THAT(limit.what(), Catch::StartsWith("digits: 64 calls wait"));
  CHECK_THAT(limit.what(), Catch::Contains(limit.code().message()));

  const auto cause = std::make_exception_ptr(std::runtime_error("no such file"));
  const roster::load_error failed("digits", cause, "no such file");
  CHECK(failed.code() == errc::load_failed);
  CHECK(failed.key() == "digits");
  CHECK(failed.reason() == "no such file");
  CHECK(failed.cause() == cause);
  CHECK_THAT(failed.what(), Catch::StartsWith("'digits': no such file"));
}

TEST_CASE("Whatever a handler was given has a code, a failed load that of its cause") {
  const auto code_of = [](const auto& exception) { return roster::code_of(std::make_exception_ptr(exception)); };
  const auto load_of = [](const auto& exception) {
    return roster::load_error("key", std::make_exception_ptr(exception), "reason");
  };
  CHECK(roster::code_of(nullptr) == roster::error_code());
  CHECK(code_of(roster::error(errc::queue_full)) == errc::queue_full);
  CHECK(code_of(boost::system::system_error(boost::asio::error::operation_aborted)) == boost::asio::error::operation_aborted);
  CHECK(code_of(std::system_error(std::make_error_code(std::errc::file_exists))) == boost::system::errc::file_exists);
  CHECK(code_of(std::bad_alloc()) == boost::system::errc::not_enough_memory);
  CHECK(code_of(std::runtime_error("an engine's own")) == errc::foreign_exception);
  CHECK(code_of(42) == errc::foreign_exception);
  CHECK(code_of(load_of(roster::error(errc::bad_model))) == errc::bad_model);
  CHECK(code_of(load_of(load_of(roster::error(errc::bad_model)))) == errc::bad_model);
  CHECK(code_of(load_of(std::runtime_error("a loader's own"))) == errc::foreign_exception);
  CHECK(code_of(roster::load_error("key", nullptr, "reason")) == errc::load_failed);
}

TEST_CASE("Whatever a handler was given has a message") {
  CHECK(roster::message_of(nullptr).empty());
  CHECK(roster::message_of(std::make_exception_ptr(std::runtime_error("an engine's own"))) == "an engine's own");
  CHECK(roster::message_of(std::make_exception_ptr(42)) == "an exception that is no std::exception");
}

TEST_CASE("An empty value is made without fail") {
  STATIC_REQUIRE(std::is_nothrow_default_constructible_v<embeddings>);
  STATIC_REQUIRE(std::is_nothrow_default_constructible_v<image>);
  STATIC_REQUIRE(std::is_nothrow_default_constructible_v<roster::model_info>);
  STATIC_REQUIRE(std::is_nothrow_default_constructible_v<roster::device>);
  STATIC_REQUIRE(std::is_nothrow_default_constructible_v<roster::call_options>);
  STATIC_REQUIRE(std::is_nothrow_default_constructible_v<roster::embed_options>);
  STATIC_REQUIRE(std::is_nothrow_default_constructible_v<roster::text_embed_options>);
}

TEST_CASE("Request and option types are no aggregates, which g++ 12 miscompiles in co_await expressions") {
  static_assert(!std::is_aggregate_v<roster::call_options>);
  static_assert(!std::is_aggregate_v<roster::device>);
  static_assert(!std::is_aggregate_v<roster::embed_options>);
  static_assert(!std::is_aggregate_v<roster::text_embed_options>);
  static_assert(!std::is_aggregate_v<roster::image>);
  static_assert(!std::is_aggregate_v<roster::embeddings>);
  static_assert(!std::is_aggregate_v<roster::image_request>);
  static_assert(!std::is_aggregate_v<roster::image_step>);
  static_assert(!std::is_aggregate_v<roster::text_request>);
  static_assert(!std::is_aggregate_v<roster::message>);
  static_assert(!std::is_aggregate_v<roster::text_end>);
  static_assert(!std::is_aggregate_v<roster::model_info>);
}
