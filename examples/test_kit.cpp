// A test of code that uses models, with everything real but the engine and the time: threads, queues and deadlines, and no
// sleep.

#include <roster/roster.hpp>
#include <roster/testing/hand_driven_loop.hpp>
#include <roster/testing/scripted_engine.hpp>

#include <boost/asio/co_spawn.hpp>

#include <fmt/format.h>

#include <cstdlib>

namespace asio = boost::asio;
using namespace std::chrono_literals;

using encoders = roster::registry<roster::text_embedding>;

// What is to be tested: a handler that gives up after half a minute.
asio::awaitable<std::string> handle(encoders& models, std::string text, std::shared_ptr<roster::time_source> time) {
  try {
    auto model = co_await models.get("sentences");
    const auto vector = co_await roster::within(time, time->from_now(30s), model->embed(std::move(text)));
    co_return fmt::format("200, {} numbers", vector.size());
  } catch (const boost::system::system_error& failure) {
    if (failure.code() != roster::errc::deadline_exceeded) throw;
  }
  co_return "503, try again";
}

void check(bool holds, std::string_view what) {
  fmt::print("{}: {}\n", holds ? "ok" : "FAILED", what);
  if (!holds) std::exit(1);
}

int main() {
  // [test-kit]
  roster::hand_driven_loop loop;
  roster::blocking_pool pool{1, 16, loop.time()};
  loop.watch(pool);
  encoders models{loop.context(), {}, loop.time()};
  roster::scripted_engine<roster::text_embedding> engine;  // after the pool: it releases its calls, and then the pool may end
  loop.run(models.add("sentences", roster::pooled(pool, engine.factory())));

  const auto answer = [](auto texts, const auto&, auto& vectors) { vectors.resize(texts.size(), 3); };
  engine.next_call().wait(1).answer(answer);  // lasts a tick
  engine.next_call().hang();

  std::string response;
  const auto note = [&](std::exception_ptr, std::string text) { response = std::move(text); };
  asio::co_spawn(loop.context(), handle(models, "quick", loop.time()), note);
  loop.run();  // until nothing can run: the engine waits for its tick
  check(response.empty() && engine.counts().started == 1, "the handler waits for its model");
  engine.tick();
  loop.run();
  check(response == "200, 3 numbers", "and has its answer");

  asio::co_spawn(loop.context(), handle(models, "endless", loop.time()), note);
  loop.advance(29s);
  check(response == "200, 3 numbers", "after 29 seconds it waits");
  loop.advance(1s);
  check(response == "503, try again", "after 30 seconds it has given up");
  engine.tick();
  loop.run();
  check(engine.counts().stopped == 1, "and the engine was asked to stop");
  // [/test-kit]
}
