#include <roster/registry/catalog.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
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
using test::finish;
using test::make_model;
using test::maker;
using test::painter;
using test::ready_model;
using test::spawn;
using registry = roster::registry<image_embedding>;
using loading = asio::awaitable<registry::model_ptr>;

namespace {

std::thread::id thread_of(asio::io_context& loop, roster::blocking_pool& pool) {
  return finish(loop, pool.run([] { return std::this_thread::get_id(); }));
}

/// Answers when it is told to.
class patient_model final : public image_embedding::model {
 public:
  patient_model(test::gate& gate, std::shared_ptr<destruction_logger::log> destroyed_log)
      : gate_(gate), end_(std::move(destroyed_log)) {}

 private:
  asio::awaitable<roster::embeddings> run(std::vector<roster::image> inputs, roster::embed_options) override {
    co_await gate_.wait();
    co_return roster::embeddings(inputs.size(), 1);
  }

  test::gate& gate_;
  destruction_logger end_;
};

}  // namespace

TEST_CASE("The last lease of a pooled model, dropped on the loop, leaves the engine to the pool", "[b36]") {
  engine_probe probe;
  asio::io_context loop;
  roster::blocking_pool pool(1);
  registry models(loop);
  finish(loop, models.add("key", roster::pooled(pool, maker<encoder>(probe)).instances(3)));
  auto held = finish(loop, models.get("key"));
  finish(loop, models.remove("key"));
  CHECK(probe.destroyed() == 0);

  held = {};
  probe.await_destroyed(3);
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(probe.life(i).destroyed_on == thread_of(loop, pool));
}

TEST_CASE("The last lease of a pinned model, dropped on the loop, leaves the engine to its thread", "[b36]") {
  engine_probe probe;
  asio::io_context loop;
  registry models(loop);
  finish(loop, models.add("key", roster::pinned(maker<encoder>(probe))));
  auto held = finish(loop, models.get("key"));
  CHECK(ask(loop, held) == 1);
  finish(loop, models.remove("key"));
  held = {};
  probe.await_destroyed(1);
  const auto life = probe.life(0);
  CHECK(life.destroyed_on != std::this_thread::get_id());
  CHECK(life.destroyed_on == life.made_on);
  CHECK(life.ran_on.at(0) == life.made_on);
}

TEST_CASE("Engines are destroyed on the pool though all its threads are busy, and before what is queued", "[b36]") {
  engine_probe probe;
  asio::io_context loop;
  roster::blocking_pool pool(1);
  registry models(loop);
  finish(loop, models.add("key", roster::pooled(pool, maker<encoder>(probe))));
  finish(loop, models.preload("key"));
  const auto home = thread_of(loop, pool);

  checkpoint busy;
  auto blocker = spawn(loop, pool.run(&checkpoint::pass, &busy));
  auto queued = spawn(loop, pool.run([](engine_probe* p) { return p->destroyed(); }, &probe));
  test::drain(loop);
  busy.await();
  finish(loop, models.remove("key"));  // drops the model
  CHECK(probe.destroyed() == 0);
  busy.open();
  test::run_until(loop, [&] { return queued.done() && blocker.done(); });
  CHECK(queued.value() == 1);
  CHECK(probe.life(0).destroyed_on == home);
}

TEST_CASE("Engines of a stopped pool are destroyed on it", "[b36]") {
  engine_probe probe;
  asio::io_context loop;
  roster::blocking_pool pool(1);
  registry models(loop);
  const auto home = thread_of(loop, pool);
  finish(loop, models.add("key", roster::pooled(pool, maker<encoder>(probe))));
  auto held = finish(loop, models.get("key"));
  finish(loop, pool.stop());
  CHECK(test::failure_of(loop, held->embed(roster::image(1, 1))) == errc::stopped);

  finish(loop, models.remove("key"));
  held = {};
  probe.await_destroyed(1);
  CHECK(probe.life(0).destroyed_on == home);
}

TEST_CASE("Engines outlive their pool harmlessly, and calls fail with stopped", "[b36]") {
  engine_probe probe;
  asio::io_context loop;
  roster::catalog<image_embedding, text_to_image> models{loop.get_executor()};
  std::optional<roster::blocking_pool> pool(std::in_place, 1U);
  finish(loop, models.add<image_embedding>("key", roster::pooled(*pool, maker<encoder>(probe))));
  finish(loop, models.add<text_to_image>("key", roster::pooled(*pool, maker<painter>(probe))));
  finish(loop, models.add<image_embedding>("late", roster::pooled(*pool, maker<encoder>(probe))));
  auto held = finish(loop, models.get<image_embedding>("key"));
  auto canvas = finish(loop, models.get<text_to_image>("key"));
  pool.reset();

  CHECK(test::failure_of(loop, held->embed(roster::image(1, 1))) == errc::stopped);
  auto drawing = canvas->generate(roster::image_request("x"));
  CHECK(test::failure_of(loop, drawing.next()) == errc::stopped);
  CHECK(test::failure_of(loop, models.get<image_embedding>("late")) == errc::load_failed);
  CHECK(finish(loop, models.of<image_embedding>().remove("key")));
  held = {};
  CHECK(probe.destroyed() == 1);
}

TEST_CASE("A ready model is destroyed where its last lease drops, or on the executor given for that", "[b36]") {
  asio::io_context loop;
  asio::thread_pool destroyer(1);
  auto destroyed_log = std::make_shared<destruction_logger::log>();
  registry models(loop);
  const bool with_executor = GENERATE(false, true);
  if (with_executor)
    finish(loop, models.add("key", std::make_shared<ready_model>(1.F, destroyed_log), destroyer.get_executor()));
  else
    finish(loop, models.add("key", std::make_shared<ready_model>(1.F, destroyed_log)));
  auto held = finish(loop, models.get("key"));
  finish(loop, models.remove("key"));
  CHECK(ask(loop, held) == 1);
  held = {};
  destroyer.join();
  REQUIRE(destroyed_log->size() == 1);
  CHECK((destroyed_log->at(0) == std::this_thread::get_id()) == !with_executor);
}

TEST_CASE("A ready model whose call outlives the last lease is destroyed on the executor given for that", "[b36]") {
  asio::io_context loop;
  asio::thread_pool destroyer(1);
  auto destroyed_log = std::make_shared<destruction_logger::log>();
  test::gate gate(loop);
  registry models(loop);
  finish(loop, models.add("key", std::make_shared<patient_model>(gate, destroyed_log), destroyer.get_executor()));
  auto held = finish(loop, models.get("key"));
  auto call = spawn(loop, held->embed(roster::image(1, 1)));
  test::drain(loop);
  finish(loop, models.remove("key"));
  held = {};
  CHECK(destroyed_log->empty());
  gate.open();
  test::drain(loop);
  CHECK(call.succeeded());
  destroyer.join();
  REQUIRE(destroyed_log->size() == 1);
  CHECK(destroyed_log->at(0) != std::this_thread::get_id());
}

TEST_CASE("A registry may be destroyed while leases are out", "[b59]") {
  engine_probe probe;
  asio::io_context loop;
  roster::blocking_pool pool(1);
  std::vector<roster::lease<image_embedding>> held;
  {
    registry models(loop);
    finish(loop, models.add("ready", make_model(7)));
    finish(loop, models.add("pooled", roster::pooled(pool, maker<encoder>(probe))));
    finish(loop, models.add("pinned", roster::pinned(maker<encoder>(probe))));
    for (const auto* key : {"ready", "pooled", "pinned"})
      held.push_back(finish(loop, models.get(key)));
  }
  CHECK(ask(loop, held[0]) == 7);
  CHECK(ask(loop, held[1]) == 1);
  CHECK(ask(loop, held[2]) == 1);
  CHECK(probe.destroyed() == 0);
  held.clear();
  probe.await_destroyed(2);
}

TEST_CASE("A registry may be destroyed during loads and other operations, which end as if it were there", "[b59]") {
  engine_probe probe;
  checkpoint made;
  probe.on_make = [&] { made.pass(); };
  asio::io_context loop;
  roster::blocking_pool pool(1);
  test::gate gate(loop);
  const auto slow = [&](roster::load_context&) -> loading {
    co_await gate.wait();
    co_return make_model(3);
  };
  std::optional<registry> models(std::in_place, loop);
  finish(loop, models->add("slow", model_info(), slow));
  finish(loop, models->add("pooled", roster::pooled(pool, maker<encoder>(probe))));
  finish(loop, models->add("pinned", roster::pinned(maker<encoder>(probe))));
  auto first = spawn(loop, models->get("slow"));
  auto second = spawn(loop, models->get("pooled"));
  auto third = spawn(loop, models->get("pinned"));
  test::drain(loop);
  made.await(2);
  auto unstarted = models->list();
  models.reset();

  gate.open();
  made.open();
  test::run_until(loop, [&] { return first.done() && second.done() && third.done(); });
  CHECK(ask(loop, first.value()) == 3);
  CHECK(ask(loop, second.value()) == 1);
  CHECK(ask(loop, third.value()) == 1);
  CHECK(finish(loop, std::move(unstarted)).size() == 3);
}

TEST_CASE("A loader may destroy its own registry: its load ends as if it were there", "[b59]") {
  asio::io_context loop;
  auto destroyed_log = std::make_shared<destruction_logger::log>();
  auto models = std::make_unique<registry>(loop);
  const bool suspends_before = GENERATE(false, true);
  const bool fails = GENERATE(false, true);
  const auto destroy = [&](roster::load_context& context) -> loading {
    if (suspends_before) co_await asio::post(asio::use_awaitable);
    models.reset();
    for (int i = 0; i < 3; ++i)
      co_await asio::post(context.get_executor(), asio::use_awaitable);
    if (fails) throw std::runtime_error(context.key() + " of " + context.info().provider);
    co_return std::make_shared<ready_model>(3.F, destroyed_log);
  };
  finish(loop, models->add("key", model_info("somebody", "x"), destroy));

  SECTION("for several lookups") {
    auto first = spawn(loop, models->get("key"));
    auto second = spawn(loop, models->get("key"));
    test::drain(loop);
    for (auto* each : {&first, &second}) {
      CHECK(each->code() == (fails ? make_error_code(errc::load_failed) : roster::error_code()));
      if (!fails) CHECK(ask(loop, each->value()) == 3);
    }
    CHECK(destroyed_log->empty());
  }
  SECTION("for a caller who leaves") {
    auto call = spawn(loop, models->preload("key"));
    while (models)
      test::step(loop);
    call.cancel();
    test::drain(loop);
    CHECK(call.aborted());
  }
  SECTION("for a replacement") {
    auto old = make_model(1);
    const std::weak_ptr<void> watched = old;
    finish(loop, models->add("old", std::move(old)));
    auto call = spawn(loop, models->replace("old", model_info("somebody", "x"), destroy));
    test::drain(loop);
    CHECK(call.code() == (fails ? make_error_code(errc::load_failed) : roster::error_code()));
    CHECK(watched.expired());
  }
  SECTION("for another loader") {
    const auto outer = [&](roster::load_context& context) -> loading {
      const auto needed = co_await context.get(*models, "key");
      const auto vector = co_await needed->embed(roster::image(1, 1));
      co_return make_model(vector.at(0) + 1);
    };
    finish(loop, models->add("outer", model_info(), outer));
    auto call = spawn(loop, models->get("outer"));
    test::drain(loop);
    if (fails)
      CHECK_THROWS_WITH(std::rethrow_exception(call.failure()), Catch::Contains("key of somebody"));
    else
      CHECK(ask(loop, call.value()) == 4);
  }
  CHECK_FALSE(models);
  test::drain(loop);
}

TEST_CASE("An engine may destroy the registry that it serves, while it is made and while it runs", "[b59]") {
  const bool on_a_pool = GENERATE(false, true);
  const bool while_made = GENERATE(false, true);
  engine_probe probe;
  asio::io_context loop;
  roster::blocking_pool pool(1);
  auto models = std::make_unique<registry>(loop);
  if (while_made)
    probe.on_make = [&] { models.reset(); };
  else
    probe.on_embed = [&](auto inputs, auto& outputs, auto&) {
      models.reset();
      outputs.resize(inputs.size(), 1);
    };
  if (on_a_pool)
    finish(loop, models->add("key", roster::pooled(pool, maker<encoder>(probe))));
  else
    finish(loop, models->add("key", roster::pinned(maker<encoder>(probe))));

  auto held = finish(loop, models->get("key"));
  auto call = spawn(loop, held->embed(roster::image(1, 1)));
  held = {};  // the call keeps the model
  test::run_until(loop, [&] { return call.done(); });
  CHECK(call.succeeded());
  CHECK_FALSE(models);
  probe.await_destroyed(1);
  CHECK(probe.life(0).destroyed_on == probe.life(0).made_on);
}

TEST_CASE("An engine whose caller has left may destroy its registry, and with it the model's last owner", "[b59]") {
  const bool on_a_pool = GENERATE(false, true);
  engine_probe probe;
  checkpoint running;
  asio::io_context loop;
  roster::blocking_pool pool(1);
  auto models = std::make_unique<registry>(loop);
  probe.on_embed = [&](auto, auto&, auto&) {
    running.pass();
    models.reset();
  };
  if (on_a_pool)
    finish(loop, models->add("key", roster::pooled(pool, maker<encoder>(probe))));
  else
    finish(loop, models->add("key", roster::pinned(maker<encoder>(probe))));
  auto call = spawn(loop, finish(loop, models->get("key"))->embed(roster::image(1, 1)));
  test::drain(loop);
  running.await();
  call.cancel();
  test::drain(loop);
  CHECK(call.aborted());

  running.open();
  probe.await_destroyed(1);
  CHECK_FALSE(models);
  CHECK(probe.life(0).destroyed_on == probe.life(0).made_on);
}

TEST_CASE("What is told of a load or of a call may destroy the registry, and the last lease", "[b59]") {
  const bool on_a_pool = GENERATE(false, true);
  engine_probe probe;
  asio::io_context loop;
  roster::blocking_pool pool(1);
  auto models = std::make_unique<registry>(loop);
  if (on_a_pool)
    finish(loop, models->add("key", roster::pooled(pool, maker<encoder>(probe))));
  else
    finish(loop, models->add("key", roster::pinned(maker<encoder>(probe))));
  int told = 0;

  SECTION("a load") {
    const auto end = [&](const std::exception_ptr& failure, const registry::lease_type& model) {
      models.reset();
      told += !failure && model;
    };
    models->async_get("key", asio::bind_executor(loop, end));
  }
  SECTION("a call") {
    auto held = std::make_shared<registry::lease_type>(finish(loop, models->get("key")));
    const auto end = [&models, &told, held](const std::exception_ptr& failure, const roster::embeddings& outputs) {
      models.reset();
      *held = {};
      told += !failure && outputs.rows() == 2;
    };
    const std::vector<roster::image> inputs(2, roster::image(1, 1));
    (*held)->async_call(inputs, roster::embed_options(), asio::bind_executor(loop, end));
  }
  test::run_until(loop, [&] { return told == 1; });
  CHECK_FALSE(models);
  probe.await_destroyed(1);
  CHECK(probe.life(0).destroyed_on == probe.life(0).made_on);
}
