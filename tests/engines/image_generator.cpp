#include <roster/engines/opencv/image_generator.hpp>
#include <roster/registry/registry.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>

#include "tests/engines/support.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace asio = boost::asio;
using roster::errc;
using roster::image;
using roster::image_event;
using roster::image_request;
using roster::image_step;
using roster::run_context;
using roster::text_to_image;
using roster::opencv::image_generator;
using roster::opencv::text_encoder;
using roster::opencv::detail::condition;
using roster::opencv::detail::follow_rectified_flow;
using test::collector;
using test::message_of;
using test::models;
using test::network;

static_assert(roster::engine_for<image_generator, text_to_image>);

namespace {

text_encoder prompts() {
  return text_encoder(models / "joint_text_encoder.onnx");
}

image_generator make_image_generator() {
  return image_generator(models / "drawing.onnx", prompts());
}

image draw(image_generator& generator, const image_request& request) {
  collector<image_event> out;
  run_context context;
  generator.run(request, out, context);
  REQUIRE(std::holds_alternative<image>(out.chunks.back()));
  return std::get<image>(out.chunks.back());
}

std::string failed_image_generator(const std::filesystem::path& path) {
  const auto message = message_of(errc::bad_model, [&] { (void)image_generator(path, prompts()); });
  CHECK_THAT(message, Catch::Contains(path.filename().string()));
  return message;
}

struct painters_fixture {
  ~painters_fixture() { test::drain(loop); }

  asio::io_context loop;
  roster::blocking_pool pool{2};
  roster::registry<text_to_image> painters{loop};
};

asio::awaitable<image> draw(roster::registry<text_to_image>& painters, std::string key, image_request request) {
  auto painter = co_await painters.get(key);
  auto drawing = painter->generate(std::move(request));
  while (auto event = co_await drawing.next())
    if (auto* picture = std::get_if<image>(&*event)) co_return std::move(*picture);
  throw std::logic_error("no picture");
}

}  // namespace

TEST_CASE("the drawings are those that PyTorch made where the network was trained") {
  auto generator = make_image_generator();
  const char* words[] = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"};
  const auto expected = test::lines("drawing_reference.txt", "drawing");
  REQUIRE(expected.size() == 10);
  for (const auto& line : expected) {
    std::istringstream numbers(line);
    std::size_t digit = 0;
    numbers >> digit;
    const auto picture = draw(generator, image_request(std::string("the digit ") + words[digit]).seed(1));
    REQUIRE(picture.pixels().size() == 32 * 32 * 3);
    int worst = 0;
    for (std::size_t i = 0; i < 1024; ++i) {
      int value = 0;
      numbers >> value;
      for (std::size_t colour = 0; colour < 3; ++colour)
        worst = std::max(worst, std::abs(value - picture.pixels()[i * 3 + colour]));
    }
    REQUIRE(numbers);
    CHECK(worst <= 2);
  }
}

TEST_CASE("a network of three channels draws in colours") {
  image_generator generator(network("flow_colours"), prompts());
  const auto picture = draw(generator, image_request("3"));
  CHECK(picture.width() == 2);
  CHECK(picture.height() == 2);
  for (std::size_t i = 0; i < picture.pixels().size(); ++i)
    CHECK(picture.pixels()[i] == (i % 3 == 0 ? 0 : i % 3 == 1 ? 128 : 255));
}

TEST_CASE("each step is pushed and reported, with previews where they are asked for, and then the picture") {
  auto generator = make_image_generator();
  collector<image_event> out;
  run_context context;
  generator.run(image_request("3").steps(5).preview_every(2), out, context);
  REQUIRE(out.chunks.size() == 6);
  for (std::uint32_t i = 0; i < 5; ++i) {
    const auto& step = std::get<image_step>(out.chunks[i]);
    CHECK(step.step == i + 1);
    CHECK(step.total == 5);
    CHECK(step.preview.has_value() == (i % 2 == 1));
  }
  const auto& picture = std::get<image>(out.chunks[5]);
  CHECK(picture.width() == generator.width());
  CHECK(*std::get<image_step>(out.chunks[3]).preview != picture);
  CHECK(context.progress() == roster::run_progress{5, 5});
}

TEST_CASE("the same seed gives the same drawing, another seed another, and no seed a random one") {
  auto generator = make_image_generator();
  const auto request = [] { return image_request("the digit eight").steps(4); };
  const auto first = draw(generator, request().seed(5));
  CHECK(draw(generator, request().seed(6)) != first);
  CHECK(draw(generator, request()) != draw(generator, request()));
  CHECK(draw(generator, request().seed(5)) == first);
}

TEST_CASE("prompt, guidance and negative prompt decide what is drawn") {
  auto generator = make_image_generator();
  const auto request = [](const char* prompt) { return image_request(prompt).steps(4).seed(1); };
  const auto three = draw(generator, request("the digit three"));
  CHECK(draw(generator, request("the digit four")) != three);
  CHECK(draw(generator, request("the digit three").guidance(1)) != three);
  CHECK(draw(generator, request("the digit three").negative_prompt("the digit eight")) != three);
  // Without guidance there is no prompt.
  CHECK(draw(generator, request("the digit three").guidance(0)) == draw(generator, request("the digit four").guidance(0)));
}

TEST_CASE("a step computes two predictions, one if the other has no share, and none after the last that is wanted") {
  std::vector<condition> asked;
  const auto predict = [&](std::span<const float> picture, float, condition condition_used, std::span<float> clean) {
    asked.push_back(condition_used);
    std::ranges::copy(picture, clean.begin());
  };
  std::vector<float> picture(4, 1);
  for (const std::uint32_t wanted : {1U, 3U, 10U}) {
    asked.clear();
    const bool finished = follow_rectified_flow(picture, 10, 2, predict, [&](auto step) { return step < wanted; });
    CHECK_FALSE(finished);
    CHECK(asked.size() == 2 * wanted);
  }
  const auto on_step = [](auto) { return true; };
  for (const auto& [guidance, only] : {std::pair{1.0F, condition::prompt}, {0.0F, condition::no_prompt}}) {
    asked.clear();
    CHECK(follow_rectified_flow(picture, 3, guidance, predict, on_step));
    CHECK(asked == std::vector(3, only));
  }
}

TEST_CASE("the flow ends at the prediction of its last step, and moves there evenly") {
  std::vector<float> picture{0, 8};
  std::vector<float> times, seen;
  const auto predict = [&](std::span<const float> from, float time, condition, std::span<float> clean) {
    times.push_back(time);
    seen.push_back(from[1]);
    clean[0] = 4;
    clean[1] = 0;
  };
  CHECK(follow_rectified_flow(picture, 4, 1, predict, [](auto) { return true; }));
  CHECK(times == std::vector<float>{0, 0.25F, 0.5F, 0.75F});
  CHECK(seen == std::vector<float>{8, 6, 4, 2});
  CHECK(picture == std::vector<float>{4, 0});
}

TEST_CASE("an engine whose steps nobody wants any more returns after that step") {
  auto generator = make_image_generator();
  collector<image_event> out(3);
  run_context context;
  generator.run(image_request("3").steps(1000), out, context);
  CHECK(out.pushes == 3);
  CHECK(context.progress() == roster::run_progress{3, 1000});
}

TEST_CASE("an engine that is asked to stop leaves before its next prediction") {
  auto generator = make_image_generator();
  collector<image_event> out;
  run_context context;
  context.request_stop();
  CHECK_THROWS_AS(generator.run(image_request("3"), out, context), boost::system::system_error);
  CHECK(out.pushes == 0);
}

TEST_CASE("requests out of range are refused, naming the field and the range, and the next call works") {
  auto generator = make_image_generator();
  const auto refused = [&](const image_request& request) {
    collector<image_event> out;
    run_context context;
    auto message = message_of(errc::invalid_input, [&] { generator.run(request, out, context); });
    CHECK(out.pushes == 0);
    return message;
  };
  const auto prompt = [](std::string text) { return image_request(std::move(text)); };
  CHECK_THAT(refused(prompt("")), Catch::Contains("prompt: 0 characters, allowed are 1 to 64"));
  CHECK_THAT(refused(prompt(std::string(100'000, 'x'))), Catch::Contains("prompt: 100000 characters, allowed are 1 to 64"));
  CHECK_THAT(refused(prompt("\xFF")), Catch::Contains("prompt: invalid UTF-8"));
  CHECK_THAT(refused(prompt("\xE2\x82\xAC")), Catch::Contains("prompt: U+20AC"));
  CHECK_THAT(refused(prompt("3").negative_prompt("\xFF")), Catch::Contains("negative prompt: invalid UTF-8"));
  CHECK_THAT(refused(prompt("3").size(0, 0)), Catch::Contains("size: 0 x 0 pixels, allowed are 32 x 32"));
  CHECK_THAT(refused(prompt("3").size(10'000, 10'000)), Catch::Contains("size: 10000 x 10000 pixels, allowed are 32 x 32"));
  CHECK_THAT(refused(prompt("3").steps(0)), Catch::Contains("steps: 0, allowed are 1 to 1000"));
  CHECK_THAT(refused(prompt("3").steps(100'000)), Catch::Contains("steps: 100000, allowed are 1 to 1000"));
  for (const float bad : {-1.0F, 21.0F, std::numeric_limits<float>::quiet_NaN()})
    CHECK_THAT(refused(prompt("3").guidance(bad)), Catch::Contains("guidance:") && Catch::Contains("allowed are 0 to 20"));
  CHECK(draw(generator, prompt("3").size(32, 32).steps(1)).width() == 32);
}

TEST_CASE("a file that is no image generator is a bad model") {
  failed_image_generator(models / "nowhere.onnx");
  const test::temporary_file cut(test::content(models / "drawing.onnx").substr(0, 1'000'000));
  CHECK_THAT(failed_image_generator(cut.path), Catch::Contains("cut off"));
  CHECK_THAT(failed_image_generator(models / "classifier.onnx"), Catch::Contains("no input 'time'"));
  CHECK_THAT(failed_image_generator(network("flow_huge")), Catch::Contains("1 x 1 x 131072 x 131072, expected 1 x channels"));
  CHECK_THAT(failed_image_generator(network("flow_small")), Catch::Contains("'clean' has 1 values, expected 1024"));
}

TEST_CASE("a network that computes NaN is a bad output, and leaves the generator usable") {
  image_generator generator(network("flow_nan"), prompts());
  for (int i = 0; i < 2; ++i) {
    collector<image_event> out;
    run_context context;
    const auto message = message_of(errc::bad_output, [&] { generator.run(image_request("3"), out, context); });
    CHECK_THAT(message, Catch::Contains("NaN or infinity in output 'clean'") && Catch::Contains("flow_nan.onnx"));
    CHECK(out.pushes == 0);
  }
}

TEST_CASE_METHOD(painters_fixture, "the same seed gives the same drawing, however many are drawn at once, and wherever") {
  const auto make_prompted = [] { return make_image_generator(); };
  const auto pooled = roster::pooled(pool, make_prompted).instances(2);
  const auto pinned = roster::pinned(make_prompted);
  test::finish(loop, painters.add("pooled", pooled));
  test::finish(loop, painters.add("pinned", pinned));
  const auto request = [](std::uint64_t seed) { return image_request("the digit two").steps(4).seed(seed); };
  const auto expected = std::vector{test::finish(loop, draw(painters, "pooled", request(0))),
                                    test::finish(loop, draw(painters, "pooled", request(1)))};
  std::vector<test::task<image>> running;
  for (std::uint64_t i = 0; i < 32; ++i)
    running.push_back(test::spawn(loop, draw(painters, i % 4 < 2 ? "pooled" : "pinned", request(i % 2))));
  for (std::size_t i = 0; i < running.size(); ++i) {
    test::run_until(loop, [&] { return running[i].done(); });
    CHECK(running[i].value() == expected[i % 2]);
  }
}

TEST_CASE_METHOD(painters_fixture, "a drawing that is dropped after some steps frees its thread within one more") {
  const auto make_prompted = [] { return make_image_generator(); };
  test::finish(loop, painters.add("key", roster::pinned(make_prompted).queue_limit(1)));
  const auto painter = test::finish(loop, painters.get("key"));
  auto drawing = painter->generate(image_request("3").steps(1000));
  auto next = painter->generate(image_request("4").steps(1).seed(1));  // waits for its turn
  for (int i = 0; i < 3; ++i)
    test::finish(loop, drawing.next());
  drawing.cancel();
  const auto when_cancelled = drawing.progress().done;
  CHECK(test::finish(loop, next.next()).has_value());  // the thread is free
  CHECK(drawing.progress().done <= when_cancelled + 1);
  CHECK(when_cancelled < 1000);
}
