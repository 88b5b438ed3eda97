#include <roster/registry/catalog.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_future.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace asio = boost::asio;
using roster::errc;
using roster::image_embedding;
using roster::model_info;
using roster::text_to_image;
using test::ask;
using test::checkpoint;
using test::destruction_logger;
using test::encoder;
using test::engine_probe;
using test::failure_of;
using test::finish;
using test::make_model;
using test::maker;
using test::painter;
using test::ready_model;
using test::run_until;
using test::spawn;
using registry = roster::registry<image_embedding>;
using loading = asio::awaitable<registry::model_ptr>;

namespace {

asio::any_io_executor executor_of(asio::io_context& loop, bool strand) {
  if (strand) return asio::make_strand(loop);
  return loop.get_executor();
}

loading never(roster::load_context& context) {
  asio::steady_timer timer(context.get_executor(), asio::steady_timer::time_point::max());
  co_await timer.async_wait(asio::use_awaitable);
  co_return nullptr;
}

/// Computes until it is told to stop.
void obey(engine_probe& probe, checkpoint& running) {
  probe.on_embed = [&](auto, auto&, auto& context) {
    running.arrive();
    while (!context.stop_requested())
      std::this_thread::yield();
  };
}

/// Suspends a few times, holding something in its frame.
loading make_slowly(float number, std::shared_ptr<int>) {
  for (int i = 0; i < 3; ++i)
    co_await asio::post(asio::use_awaitable);
  co_return make_model(number);
}

/// Holds something in its frame while an operation runs.
template <typename T>
asio::awaitable<T> holding(std::shared_ptr<int>, asio::awaitable<T> operation) {
  co_return co_await std::move(operation);
}

asio::awaitable<float> look_up_and_ask(registry& models, const char* key) {
  const auto model = co_await models.get(key);
  const auto vector = co_await model->embed(roster::image(1, 1));
  co_return vector.at(0);
}

/// Runs `count` handlers, waiting for each, unless the call ends before. Whether it has.
template <typename T>
bool run_steps(asio::io_context& loop, std::size_t count, const test::task<T>& call) {
  run_until(loop, [&] { return call.done() || count-- == 0; });
  return call.done();
}

}  // namespace

TEST_CASE("A context may be destroyed before a registry that has loaded nothing", "[b60]") {
  engine_probe probe;
  std::optional<asio::io_context> loop(std::in_place);
  roster::builtin_models<image_embedding> builtin;
  builtin.emplace_back("builtin", roster::pinned(maker<encoder>(probe)));
  auto models = std::make_unique<registry>(executor_of(*loop, GENERATE(false, true)), builtin);
  finish(*loop, models->add("lazy", model_info(), never));
  finish(*loop, models->add("pinned", roster::pinned(maker<encoder>(probe))));
  loop.reset();
  CHECK(models->try_get("lazy").error() == errc::not_loaded);
  models.reset();
  CHECK(probe.made() == 0);
}

TEST_CASE("A context may be destroyed before a registry whose models are in use", "[b60]") {
  engine_probe probe;
  checkpoint running;
  obey(probe, running);
  std::optional<asio::io_context> loop(std::in_place);
  std::optional<roster::blocking_pool> pool(std::in_place, 1U);
  auto models = std::make_unique<registry>(executor_of(*loop, GENERATE(false, true)));
  finish(*loop, models->add("pinned", roster::pinned(maker<encoder>(probe))));
  finish(*loop, models->add("pooled", roster::pooled(*pool, maker<encoder>(probe))));
  finish(*loop, models->add("slow", model_info(), never));
  auto pinned = finish(*loop, models->get("pinned"));
  auto pooled = finish(*loop, models->get("pooled"));
  auto load = spawn(*loop, models->get("slow"));
  auto replacing = spawn(*loop, models->replace("pooled", model_info(), never));
  auto first = spawn(*loop, pinned->embed(roster::image(1, 1)));
  auto second = spawn(*loop, pinned->embed(roster::image(1, 1)));
  auto third = spawn(*loop, pooled->embed(roster::image(1, 1)));
  auto fourth = spawn(*loop, pooled->embed(roster::image(1, 1)));
  test::drain(*loop);
  running.await(2);

  pool.reset();  // a pool before the contexts of its callers
  const bool stopped_first = GENERATE(false, true);
  if (stopped_first) loop->stop();
  loop.reset();  // joins the pinned engine's thread
  CHECK(probe.destroyed() >= 1);
  for (const auto& call : {&first, &second, &third, &fourth})
    CHECK((*call).completions() == 0);
  CHECK(load.completions() == 0);

  CHECK(models->try_get("pinned").has_value());
  models.reset();
  pinned = {};
  pooled = {};
  CHECK(probe.destroyed() == 2);
  CHECK(probe.life(0).destroyed_on == probe.life(0).made_on);
}

TEST_CASE("A context may be destroyed while a pinned engine is being made, and while its stream runs", "[b60]") {
  engine_probe probe;
  checkpoint running;
  probe.on_paint = [&](const auto&, auto& chunks, auto&) {
    running.arrive();
    while (chunks.push(roster::image_step(1, 1))) {
    }
  };
  std::optional<asio::io_context> loop(std::in_place);
  auto models = std::make_unique<roster::registry<text_to_image>>(executor_of(*loop, GENERATE(false, true)));
  finish(*loop, models->add("busy", roster::pinned(maker<painter>(probe))));
  auto canvas = finish(*loop, models->get("busy"));
  std::optional<roster::stream<roster::image_event>> drawing(canvas->generate(roster::image_request("x")));
  std::optional<roster::stream<roster::image_event>> queued(canvas->generate(roster::image_request("x")));
  test::drain(*loop);
  running.await();
  checkpoint making;
  probe.on_make = [&] { making.arrive(); };
  finish(*loop, models->add("slow", roster::pinned(maker<painter>(probe))));
  auto load = spawn(*loop, models->get("slow"));
  test::drain(*loop);
  making.await();

  const auto before = load.completions();  // the engine may have been quick
  loop.reset();
  CHECK(probe.destroyed() == 2);
  CHECK(load.completions() == before);
  drawing.reset();
  canvas = {};
  models.reset();
  queued.reset();
}

TEST_CASE("A model to be destroyed on an executor whose context has died is destroyed where its last lease drops", "[b60]") {
  auto destroyed_log = std::make_shared<destruction_logger::log>();
  std::optional<asio::io_context> loop(std::in_place);
  auto home = executor_of(*loop, GENERATE(false, true));
  auto models = std::make_unique<registry>(home);
  finish(*loop, models->add("key", std::make_shared<ready_model>(1.F, destroyed_log), executor_of(*loop, true)));
  home = nullptr;
  loop.reset();
  CHECK(destroyed_log->empty());
  models.reset();
  CHECK(destroyed_log->size() == 1);
}

TEST_CASE("A context that is stopped and restarted goes on where it was", "[b60]") {
  asio::io_context loop;
  registry models(loop);
  test::gate gate(loop);
  const auto slow = [&](roster::load_context&) -> loading {
    co_await gate.wait();
    co_return make_model(1);
  };
  finish(loop, models.add("key", model_info(), slow));
  auto call = spawn(loop, models.get("key"));
  loop.restart();
  loop.poll_one();
  loop.stop();
  gate.open();
  CHECK_FALSE(call.done());
  test::drain(loop);
  CHECK(ask(loop, call.value()) == 1);
}

TEST_CASE("A context may be destroyed at any step of a lookup that loads", "[b60]") {
  const bool on_strand = GENERATE(false, true);
  bool complete = false;
  for (std::size_t steps = 0; !complete; ++steps) {
    asio::io_context other;
    std::optional<asio::io_context> loop(std::in_place);
    registry models(executor_of(*loop, on_strand));
    auto alive = std::make_shared<int>();
    const auto slow = [&](roster::load_context&) { return make_slowly(1, alive); };
    finish(*loop, models.add("lazy", model_info(), slow));
    auto elsewhere = spawn(other, models.get("lazy"));
    test::drain(other);
    auto here = spawn(*loop, holding(alive, models.get("lazy")));
    complete = run_steps(*loop, steps, here);

    loop.reset();
    CAPTURE(on_strand, steps, complete);
    CHECK(here.completions() == (complete ? 1 : 0));
    CHECK(alive.use_count() == 1);
    test::drain(other);
    CHECK((elsewhere.succeeded() || elsewhere.aborted()));
    const auto late = models.try_get("lazy");
    CHECK(late.has_value() == elsewhere.succeeded());
    CHECK((late.has_value() || !complete));
    if (late)
      CHECK(ask(other, *late) == 1);
    else
      CHECK(failure_of(other, models.get("lazy")) == asio::error::operation_aborted);
    CHECK(failure_of([&] { (void)models.add("late", model_info(), slow); }) == errc::stopped);
    finish(other, models.add("ready", make_model(2)));
    CHECK(ask(other, finish(other, models.get("ready"))) == 2);
  }
}

TEST_CASE("A context may be destroyed at any step of a replacement that loads: the old model serves, or the new one", "[b60]") {
  const bool on_strand = GENERATE(false, true);
  bool complete = false;
  for (std::size_t steps = 0; !complete; ++steps) {
    asio::io_context other;
    std::optional<asio::io_context> loop(std::in_place);
    registry models(executor_of(*loop, on_strand));
    auto alive = std::make_shared<int>();
    const auto second = [&](roster::load_context&) { return make_slowly(2, alive); };
    const auto third = [&](roster::load_context&) { return make_slowly(3, alive); };
    finish(*loop, models.add("key", make_model(1)));
    const auto old = finish(*loop, models.get("key"));
    auto elsewhere = spawn(other, models.replace("key", model_info(), third));
    test::drain(other);
    auto here = spawn(*loop, holding(alive, models.replace("key", model_info(), second)));
    complete = run_steps(*loop, steps, here);

    loop.reset();
    CAPTURE(on_strand, steps, complete);
    CHECK(here.completions() == (complete ? 1 : 0));
    const auto now = ask(other, models.try_get("key").value());
    CHECK((now == 2 || (now == 1 && !complete)));
    test::drain(other);
    CHECK((elsewhere.succeeded() || elsewhere.aborted()));
    CHECK(ask(other, models.try_get("key").value()) == (elsewhere.succeeded() ? 3 : now));
    CHECK(ask(other, old) == 1);
    CHECK(failure_of([&] { (void)models.replace("key", model_info(), second); }) == errc::stopped);
    CHECK(alive.use_count() == 1);
  }
}

TEST_CASE("A context may be destroyed at any step of calls to a pooled model, after its pool or before", "[b60]") {
  const bool on_strand = GENERATE(false, true);
  const bool pool_first = GENERATE(false, true);
  bool complete = false;
  for (std::size_t steps = 0; !complete; ++steps) {
    engine_probe probe;
    checkpoint gate;
    probe.on_embed = [&](auto inputs, auto& outputs, auto&) {
      gate.pass();
      outputs.resize(inputs.size(), 1);
    };
    asio::io_context other;
    std::optional<asio::io_context> loop(std::in_place);
    std::optional<roster::blocking_pool> pool(std::in_place, 1U);
    registry models(executor_of(*loop, on_strand));
    finish(*loop, models.add("key", roster::pooled(*pool, maker<encoder>(probe)).queue_limit(2)));
    auto held = finish(*loop, models.get("key"));
    auto alive = std::make_shared<int>();
    auto first = spawn(*loop, holding(alive, held->embed(roster::image(1, 1))));
    auto second = spawn(*loop, holding(alive, held->embed(roster::image(1, 1))));
    const auto first_steps = std::min(steps, std::size_t{2});
    test::step(*loop, first_steps);  // one call gets the engine, the next waits for it
    auto elsewhere = spawn(other, held->embed(roster::image(1, 1)));
    test::drain(other);
    gate.open();
    complete = run_steps(*loop, steps - first_steps, second);

    if (pool_first)
      pool.reset();
    else
      pool->async_run([] {}, asio::use_future).get();  // whatever the pool ran before has been posted
    loop.reset();
    CAPTURE(on_strand, pool_first, steps, complete);
    CHECK(first.completions() <= 1);
    CHECK(second.completions() == (complete ? 1 : 0));
    CHECK(alive.use_count() == 1);
    run_until(other, [&] { return elsewhere.done(); });
    CHECK((elsewhere.succeeded() || elsewhere.aborted() || elsewhere.code() == errc::stopped));
    // Every place in the queue has come back, and the engine; only waiting for it is over.
    std::vector<test::task<std::vector<float>>> late;
    for (int i = 0; i < 3; ++i)
      late.push_back(spawn(other, held->embed(roster::image(1, 1))));
    run_until(other, [&] { return std::ranges::all_of(late, [](auto& each) { return each.done(); }); });
    CHECK(late[0].code() == (pool_first ? make_error_code(errc::stopped) : roster::error_code()));
    for (auto& each : late)
      CHECK((each.code() == late[0].code() || each.aborted()));
    CHECK_FALSE(probe.overlapped());
  }
}

TEST_CASE("A context may be destroyed at any step of a pinned model's load and call", "[b60]") {
  const bool on_strand = GENERATE(false, true);
  bool complete = false;
  for (std::size_t steps = 0; !complete; ++steps) {
    engine_probe probe;
    asio::io_context other;
    std::optional<asio::io_context> loop(std::in_place);
    registry models(executor_of(*loop, on_strand));
    finish(*loop, models.add("key", roster::pinned(maker<encoder>(probe))));
    auto alive = std::make_shared<int>();
    auto elsewhere = spawn(other, look_up_and_ask(models, "key"));
    test::drain(other);
    auto here = spawn(*loop, holding(alive, look_up_and_ask(models, "key")));
    complete = run_steps(*loop, steps, here);
    test::drain(other);  // a call of another context's, if the model is there

    loop.reset();
    CAPTURE(on_strand, steps, complete);
    CHECK(here.completions() == (complete ? 1 : 0));
    CHECK(alive.use_count() == 1);
    CHECK(probe.made() <= 1);
    CHECK(probe.destroyed() == probe.made());  // the thread was joined
    run_until(other, [&] { return elsewhere.done(); });
    CHECK((elsewhere.succeeded() || elsewhere.aborted() || elsewhere.code() == errc::stopped));
    if (const auto late = models.try_get("key"))
      CHECK(failure_of(other, (*late)->embed(roster::image(1, 1))) == errc::stopped);
    else
      CHECK(failure_of(other, models.get("key")) == asio::error::operation_aborted);
  }
}
