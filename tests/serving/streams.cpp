#include <roster/registry/registry.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <boost/asio/use_future.hpp>

#include <atomic>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <variant>

namespace asio = boost::asio;
using roster::errc;
using roster::image_event;
using roster::image_request;
using roster::image_step;
using roster::text_to_image;
using test::checkpoint;
using test::engine_probe;
using test::failure_of;
using test::finish;
using test::maker;
using test::painter;
using test::spawn;
using drawing_lease = roster::lease<text_to_image>;
using drawing = roster::stream<image_event>;

namespace {

enum class placement { pooled, pinned };

/// A painter, placed one way or the other, loaded.
struct stream_fixture {
  drawing_lease load(std::size_t queue_limit = 1024) {
    if (GENERATE(placement::pooled, placement::pinned) == placement::pooled)
      finish(loop, models.add("key", roster::pooled(pool, maker<painter>(probe)).queue_limit(queue_limit)));
    else
      finish(loop, models.add("key", roster::pinned(maker<painter>(probe)).queue_limit(queue_limit)));
    return finish(loop, models.get("key"));
  }

  /// An engine that draws for ever, and counts the steps it took after nobody wanted more.
  void draw_for_ever() {
    probe.on_paint = [this](const auto&, auto& chunks, auto& context) {
      started.arrive();
      for (std::uint32_t i = 1; !context.stop_requested(); ++i)
        if (!chunks.push(image_step(i, 0))) break;
      ended.arrive();
    };
  }

  void ignore_stop() {
    probe.on_paint = [this](const auto&, auto& chunks, auto&) {
      started.arrive();
      deaf.pass();
      chunks.push(image_step(1, 1));
      ended.arrive();
    };
  }

  drawing draw(const drawing_lease& model) {
    auto begun = model->generate(image_request("seven").steps(3));
    test::drain(loop);
    return begun;
  }

  checkpoint started, ended, deaf;
  engine_probe probe;
  asio::io_context loop;
  roster::blocking_pool pool{2};
  roster::registry<text_to_image> models{loop};
};

/// The same, whose context and pool may go first.
struct destroyable_fixture {
  drawing_lease load() {
    if (where == placement::pooled)
      finish(*loop, models.add("key", roster::pooled(*pool, maker<painter>(probe))));
    else
      finish(*loop, models.add("key", roster::pinned(maker<painter>(probe))));
    auto loaded = finish(*loop, models.get("key"));
    pool->async_run([] {}, asio::use_future).get();  // its thread has left the loop, which may go now
    return loaded;
  }

  const placement where = GENERATE(placement::pooled, placement::pinned);
  checkpoint full;
  engine_probe probe;
  asio::io_context elsewhere;
  std::optional<asio::io_context> loop{std::in_place};
  std::optional<roster::blocking_pool> pool{1};
  roster::registry<text_to_image> models{*loop};
};

std::uint32_t step_of(const std::optional<image_event>& event) {
  return event && std::holds_alternative<image_step>(*event) ? std::get<image_step>(*event).step : 0;
}

}  // namespace

TEST_CASE_METHOD(stream_fixture, "Chunks arrive in order, then the end once, then nothing", "[b23]") {
  auto stream = draw(load());
  for (std::uint32_t i = 1; i <= 3; ++i)
    CHECK(step_of(finish(loop, stream.next())) == i);
  const auto last = finish(loop, stream.next());
  REQUIRE(last);
  CHECK(std::holds_alternative<roster::image>(*last));
  for (int i = 0; i < 3; ++i)
    CHECK_FALSE(finish(loop, stream.next()));
  CHECK(stream.progress() == roster::run_progress{3, 3});
}

TEST_CASE_METHOD(stream_fixture, "What an engine throws comes after its chunks, once, and the next call is healthy",
                 "[b15][b23]") {
  int runs = 0;
  probe.on_paint = [&](const auto&, auto& chunks, auto&) {
    chunks.push(image_step(1, 2));
    if (++runs == 1) throw std::runtime_error("out of memory");
    if (runs == 2) throw 42;
  };
  const auto model = load(0);
  auto first = draw(model);
  CHECK(step_of(finish(loop, first.next())) == 1);
  CHECK_THROWS_WITH(finish(loop, first.next()), "out of memory");
  CHECK_FALSE(finish(loop, first.next()));
  auto second = draw(model);
  CHECK(step_of(finish(loop, second.next())) == 1);
  CHECK_THROWS_AS(finish(loop, second.next()), int);
  auto third = draw(model);
  CHECK(step_of(finish(loop, third.next())) == 1);
  CHECK_FALSE(finish(loop, third.next()));
  CHECK(probe.made() == 1);
}

TEST_CASE_METHOD(stream_fixture, "A stream that could not start fails, and is never empty and successful", "[b22]") {
  draw_for_ever();
  const auto model = load(0);
  auto running = draw(model);
  started.await();

  auto refused = draw(model);
  CHECK(failure_of(loop, refused.next()) == errc::queue_full);
  CHECK_FALSE(finish(loop, refused.next()));
  running.cancel();
  ended.await();
}

TEST_CASE_METHOD(stream_fixture, "A stream fails when its device, deadline or thread is not to be had", "[b22]") {
  const auto model = load();
  auto elsewhere = model->generate(image_request("x").on("cuda:7"));
  CHECK(failure_of(loop, elsewhere.next()) == errc::device_mismatch);
  auto late = model->generate(image_request("x").deadline(image_request::time_point::clock::now()));
  CHECK(failure_of(loop, late.next()) == errc::deadline_exceeded);
  CHECK(probe.runs() == 0);
}

TEST_CASE("A stream whose engine cannot be made fails with the cause", "[b22]") {
  engine_probe probe;
  probe.on_make = [&] {
    if (probe.attempts() == 1) throw std::runtime_error("no such file");
  };
  asio::io_context loop;
  roster::registry<text_to_image> models(loop);
  finish(loop, models.add("key", roster::pinned(test::device_maker<painter>(probe))));
  const auto model = finish(loop, models.get("key"));
  auto failed = model->generate(image_request("x"));
  CHECK_THROWS_WITH(finish(loop, failed.next()), "no such file");
  CHECK_FALSE(finish(loop, failed.next()));
  auto healthy = model->generate(image_request("x").steps(1));
  CHECK(step_of(finish(loop, healthy.next())) == 1);
}

TEST_CASE_METHOD(stream_fixture, "When a stream has ended, its place is free", "[b12]") {
  const auto model = load(0);
  for (int i = 0; i < 200; ++i) {
    auto stream = model->generate(image_request("x").steps(1));
    while (finish(loop, stream.next())) {
    }
  }
  CHECK(probe.runs() == 200);
}

TEST_CASE_METHOD(stream_fixture,
                 "A consumer that never reads holds its engine within the bound, and everything can still be shut down",
                 "[b24]") {
  std::atomic<std::uint32_t> pushed{0};
  probe.on_paint = [&](const auto&, auto& chunks, auto&) {
    for (std::uint32_t i = 1; chunks.push(image_step(i, 0)); ++i) {
      pushed = i;
      if (i == 64) started.arrive();
    }
    ended.arrive();
  };
  auto stream = std::optional<drawing>(draw(load()));
  started.await();
  CHECK(probe.runs() == 1);
  CHECK(pushed == 64);

  if (GENERATE(false, true)) {
    CHECK(step_of(finish(loop, stream->next())) == 1);  // the loop and the reader are not held up
    stream.reset();
    ended.await();
  }  // else the destructors shut down, with the stream unread
}

TEST_CASE_METHOD(destroyable_fixture, "A stream that nobody reads keeps neither pool nor context from ending, and says so",
                 "[b24]") {
  probe.on_paint = [&](const auto&, auto& chunks, auto&) {
    for (std::uint32_t i = 1; chunks.push(image_step(i, 0)); ++i)
      if (i == 64) full.arrive();
  };
  auto stream = load()->generate(image_request("x"));
  test::drain(*loop);
  full.await();
  if (where == placement::pooled)
    pool.reset();
  else
    loop.reset();
  for (int i = 0; i < 64; ++i)
    CHECK(finish(elsewhere, stream.next()));
  CHECK(failure_of(elsewhere, stream.next()) == errc::stopped);
  CHECK_FALSE(finish(elsewhere, stream.next()));
}

TEST_CASE_METHOD(destroyable_fixture, "A stream asked for after the context of its model died fails with stopped",
                 "[b22][b60]") {
  const auto model = load();
  loop.reset();
  auto stream = model->generate(image_request("x"));
  CHECK(failure_of(elsewhere, stream.next()) == errc::stopped);
  CHECK_FALSE(finish(elsewhere, stream.next()));
}

TEST_CASE_METHOD(stream_fixture, "Dropping a stream that runs stops its engine within one step, and frees its place", "[b25]") {
  draw_for_ever();
  const auto model = load(0);
  {
    auto stream = draw(model);
    CHECK(step_of(finish(loop, stream.next())) == 1);
  }
  ended.await();
  test::drain(loop);
  // The engine has left; its place is given back right after, on its thread.
  std::optional<drawing> next;
  std::uint32_t step = 0;
  do {
    next.emplace(draw(model));
  } while (failure_of([&] { step = step_of(finish(loop, next->next())); }) == errc::queue_full);
  CHECK(step == 1);
  CHECK(probe.runs() == 2);
}

TEST_CASE_METHOD(stream_fixture, "A stream dropped while it waits for its turn never reaches an engine", "[b25]") {
  ignore_stop();
  const auto model = load(1);
  auto running = draw(model);
  started.await();
  {
    auto waiting = draw(model);
    auto refused = draw(model);
    CHECK(failure_of(loop, refused.next()) == errc::queue_full);
  }
  test::drain(loop);
  auto next = draw(model);  // there is room again
  deaf.open();
  CHECK(step_of(finish(loop, running.next())) == 1);
  CHECK(step_of(finish(loop, next.next())) == 1);
  CHECK(probe.runs() == 2);
}

TEST_CASE_METHOD(stream_fixture, "A stream dropped before the loop has seen it, or after its end, leaves nothing behind",
                 "[b25]") {
  const auto model = load(0);
  { auto unseen = model->generate(image_request("x")); }
  test::drain(loop);
  // The unseen one may be on its way out still.
  std::optional<drawing> first;
  roster::error_code refused;
  do {
    first.emplace(draw(model));
    refused = failure_of([&] { (void)finish(loop, first->next()); });
  } while (refused == errc::queue_full);
  CHECK_FALSE(refused);
  auto stream = std::move(*first);
  while (finish(loop, stream.next())) {
  }
  stream.cancel();
  { auto gone = std::move(stream); }
  auto next = draw(model);
  CHECK(step_of(finish(loop, next.next())) == 1);
}

TEST_CASE_METHOD(stream_fixture,
                 "An engine deaf to the end of its stream keeps its place until it returns, and touches nothing freed",
                 "[b25]") {
  ignore_stop();
  auto model = load(0);
  {
    auto dropped = draw(model);
    started.await();
  }
  test::drain(loop);
  auto refused = draw(model);
  CHECK(failure_of(loop, refused.next()) == errc::queue_full);
  finish(loop, models.remove("key"));
  model = {};
  deaf.open();
  probe.await_destroyed(1);
  CHECK(ended.arrived() == 1);
}

TEST_CASE_METHOD(stream_fixture, "A stream goes on when the last lease of its model is dropped", "[b25]") {
  std::string prompt;
  probe.on_paint = [&](const auto& request, auto& chunks, auto&) {
    chunks.push(image_step(1, 2));
    deaf.pass();
    prompt = request.prompt();
    chunks.push(image_step(2, 2));
  };
  auto model = load();
  auto stream = draw(model);
  auto behind = draw(model);
  CHECK(step_of(finish(loop, stream.next())) == 1);
  finish(loop, models.remove("key"));
  model = {};
  deaf.open();
  CHECK(step_of(finish(loop, stream.next())) == 2);
  CHECK_FALSE(finish(loop, stream.next()));
  CHECK(step_of(finish(loop, behind.next())) == 1);
  CHECK(step_of(finish(loop, behind.next())) == 2);
  CHECK_FALSE(finish(loop, behind.next()));
  while (probe.destroyed() == 0)  // the call completes after the stream
    test::drain(loop);
  CHECK(prompt == "seven");
}

TEST_CASE_METHOD(stream_fixture, "Progress is what the engine has done, step by step", "[b26]") {
  checkpoint step_2;
  probe.on_paint = [&](const auto&, auto& chunks, auto& context) {
    context.report_progress(1, 2);
    chunks.push(image_step(1, 2));
    step_2.pass();
    context.report_progress(2, 2);
    chunks.push(image_step(2, 2));
  };
  auto stream = draw(load());
  CHECK(step_of(finish(loop, stream.next())) == 1);
  CHECK(stream.progress() == roster::run_progress{1, 2});
  auto waiting = spawn(loop, stream.next());
  test::drain(loop);
  CHECK_FALSE(waiting.done());  // step 2 is not announced before it is done
  step_2.open();
  test::run_until(loop, [&] { return waiting.done(); });
  CHECK(step_of(waiting.value()) == 2);
  CHECK(stream.progress() == roster::run_progress{2, 2});
}

TEST_CASE_METHOD(stream_fixture, "Cancelling a next ends that wait only, and loses no chunk", "[b25]") {
  ignore_stop();
  auto stream = draw(load());
  auto waiting = spawn(loop, stream.next());
  test::drain(loop);
  waiting.cancel();
  test::drain(loop);
  CHECK(waiting.aborted());
  deaf.open();
  CHECK(step_of(finish(loop, stream.next())) == 1);
  CHECK_FALSE(finish(loop, stream.next()));
}
