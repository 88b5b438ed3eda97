// Requests to all four networks of the examples at once.

#include "examples/support/small_models.hpp"
#include "tests/engines/support.hpp"
#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/exec.hpp"
#include "tests/support/stress.hpp"

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace asio = boost::asio;
using roster::errc;

namespace {

constexpr std::size_t at_once = 200;

asio::awaitable<std::size_t> ask(model_catalog& models, std::uint64_t seed) {
  const auto model = co_await models.get<roster::text_to_text>("language");
  roster::text_request request(seed % 9 == 0 ? "\xFF" : "count from one to nine");
  request.seed(seed).temperature(0.5F);
  auto tokens = model->generate(std::move(request));
  for (std::size_t count = 0;; ++count) {
    if (seed % 5 == 0 && count == 3) co_return count;  // lets the rest go
    const auto event = co_await tokens.next();
    if (!event) co_return count;
  }
}

asio::awaitable<std::size_t> draw(model_catalog& models, std::uint64_t seed) {
  const auto model = co_await models.get<roster::text_to_image>("digits");
  roster::image_request request(seed % 9 == 0 ? "" : "the digit seven");
  request.seed(seed).steps(static_cast<std::uint32_t>(seed % 4 + 1)).preview_every(2);
  auto drawing = model->generate(std::move(request));
  for (std::size_t count = 0;; ++count) {
    if (seed % 5 == 0 && count == 1) co_return count;
    const auto event = co_await drawing.next();
    if (!event) co_return count;
  }
}

asio::awaitable<std::size_t> read(model_catalog& models, std::uint64_t seed) {
  const auto model = co_await models.get<roster::text_embedding>("joint");
  const auto vectors = co_await model->embed(std::vector<std::string>(seed % 7 + 1, seed % 9 == 0 ? "" : "four"));
  co_return vectors.rows();
}

asio::awaitable<std::size_t> look(model_catalog& models, std::uint64_t seed) {
  const auto model = co_await models.get<roster::image_embedding>(seed % 2 == 0 ? "joint" : "second opinion");
  const std::size_t side = seed % 9 == 0 ? 0 : 32;
  const auto vectors = co_await model->embed(std::vector(seed % 7 + 1, roster::image(side, side)));
  co_return vectors.rows();
}

asio::awaitable<std::size_t> request(model_catalog& models, std::uint64_t seed) {
  switch (seed % 4) {
    case 0:
      return ask(models, seed / 4);
    case 1:
      return draw(models, seed / 4);
    case 2:
      return read(models, seed / 4);
    default:
      return look(models, seed / 4);
  }
}

}  // namespace

TEST_CASE("200 requests to four models at once, some cancelled, each end in one way, and leave nothing behind", "[stress]") {
  asio::io_context loop;
  roster::blocking_pool pool{2};
  model_catalog models{loop.get_executor()};
  auto adding = test::spawn(loop, add_small_models(models, pool, test::models, 2));
  test::run_until(loop, [&] { return adding.done(); });

  std::size_t succeeded = 0, refused = 0, aborted = 0, waves = 0;
  test::stress([&](std::uint32_t seed) {
    std::mt19937 random(seed);
    const auto below = [&](std::uint32_t n) { return static_cast<std::size_t>(random() % n); };
    std::vector<test::task<std::size_t>> requests;
    for (std::size_t i = 0; i < at_once; ++i)
      requests.push_back(test::spawn(loop, request(models, random())));
    std::size_t done = 0;
    while (done != at_once) {
      if (below(20) == 0) requests[below(at_once)].cancel();
      loop.restart();
      REQUIRE(loop.run_one() == 1);
      done = static_cast<std::size_t>(std::ranges::count_if(requests, [](const auto& each) { return each.done(); }));
    }
    test::drain(loop);
    for (const auto& each : requests) {
      CHECK(each.completions() == 1);
      succeeded += each.succeeded();
      refused += each.code() == errc::invalid_input;
      aborted += each.aborted();
    }
    ++waves;
  });
  CHECK(succeeded + refused + aborted == waves * at_once);
  CHECK(succeeded > 0);
  CHECK(refused > 0);

  // Dropped streams may still be in an engine; whoever asks now waits behind them.
  for (std::uint64_t i = 4; i < 8; ++i) {
    auto last = test::spawn(loop, request(models, i));
    test::run_until(loop, [&] { return last.done(); });
    CHECK(last.succeeded());
  }
  auto stopping = test::spawn(loop, pool.stop());
  test::run_until(loop, [&] { return stopping.done(); });
  CHECK(pool.running() + pool.queued() + pool.waiting() == 0);
}
