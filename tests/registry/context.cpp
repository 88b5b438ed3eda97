#include <roster/registry/catalog.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <boost/asio/strand.hpp>

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
using test::encoder;
using test::engine_probe;
using test::finish;
using test::make_model;
using test::maker;
using test::painter;
using test::ready_model;
using test::spawn;
using test::witness;
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
  auto grave = std::make_shared<witness::log>();
  std::optional<asio::io_context> loop(std::in_place);
  const auto home = executor_of(*loop, GENERATE(false, true));
  auto models = std::make_unique<registry>(home);
  finish(*loop, models->add("key", std::make_shared<ready_model>(1.F, grave), executor_of(*loop, true)));
  const_cast<asio::any_io_executor&>(home) = nullptr;
  loop.reset();
  CHECK(grave->empty());
  models.reset();
  CHECK(grave->size() == 1);
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
