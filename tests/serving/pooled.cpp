#include <roster/registry/registry.hpp>
#include <roster/serving/pooled.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

namespace asio = boost::asio;
using namespace std::chrono_literals;
using roster::embed_options;
using roster::errc;
using roster::image;
using roster::image_embedding;
using test::ask;
using test::checkpoint;
using test::encoder;
using test::engine_probe;
using test::failure_of;
using test::finish;
using test::maker;
using test::message_of;
using test::spawn;
using lease = roster::lease<image_embedding>;

namespace {

/// A pooled encoder, loaded.
struct pooled_fixture {
  explicit pooled_fixture(std::size_t threads = 2) : pool(threads), models(loop) {}

  lease load(std::size_t instances, std::size_t queue_limit = 1024) {
    finish(loop, models.add("key", roster::pooled(pool, maker<encoder>(probe)).instances(instances).queue_limit(queue_limit)));
    return finish(loop, models.get("key"));
  }

  /// Calls that reach an engine wait at `busy`, whatever they are told.
  void ignore_stop() {
    probe.on_embed = [this](auto inputs, auto& outputs, auto&) {
      busy.pass();
      outputs.resize(inputs.size(), 1);
    };
  }

  auto call(const lease& model) {
    auto started = spawn(loop, model->embed(image(1, 1)));
    test::drain(loop);
    return started;
  }

  checkpoint busy;
  engine_probe probe;
  asio::io_context loop;
  roster::blocking_pool pool;
  roster::registry<image_embedding> models;
};

}  // namespace

TEST_CASE_METHOD(pooled_fixture, "An empty batch never reaches an engine, and takes no place") {
  ignore_stop();
  const auto model = load(1, 0);
  auto busy_call = call(model);
  busy.await();
  const auto nothing = finish(loop, model->embed(std::vector<image>()));
  CHECK(nothing.rows() == 0);
  CHECK(nothing.dimension() == 1);
  CHECK(finish(loop, model->call(std::vector<image>(), embed_options())).rows() == 0);
  CHECK(probe.runs() == 1);
  busy.open();
  test::run_until(loop, [&] { return busy_call.done(); });
}

TEST_CASE_METHOD(pooled_fixture, "Engines are made, run and destroyed on the pool, and the loop goes on meanwhile", "[b11]") {
  checkpoint ticks;
  probe.on_make = [&] { ticks.await(100); };
  probe.on_embed = [&](auto inputs, auto& outputs, auto&) {
    ticks.await(200);
    outputs.resize(inputs.size(), 1);
  };
  finish(loop, models.add("key", roster::pooled(pool, maker<encoder>(probe))));
  for (int i = 0; i < 100; ++i)
    asio::post(loop, [&] { ticks.arrive(); });
  auto model = finish(loop, models.get("key"));
  for (int i = 0; i < 100; ++i)
    asio::post(loop, [&] { ticks.arrive(); });
  finish(loop, model->embed(image(1, 1)));
  finish(loop, models.remove("key"));
  model = {};
  probe.await_destroyed(1);

  const auto life = probe.life(0);
  const auto here = std::this_thread::get_id();
  CHECK(life.made_on != here);
  CHECK(life.ran_on.at(0) != here);
  CHECK(life.destroyed_on != here);
}

TEST_CASE_METHOD(pooled_fixture, "Nothing is made before it is needed, and then once, however many ask", "[b17]") {
  finish(loop, models.add("key", roster::pooled(pool, maker<encoder>(probe)).instances(2)));
  CHECK(probe.attempts() == 0);
  auto first = spawn(loop, models.get("key"));
  auto second = spawn(loop, models.get("key"));
  test::run_until(loop, [&] { return first.done() && second.done(); });
  CHECK(first.value() == second.value());
  CHECK(probe.attempts() == 2);
  CHECK(probe.most_made_at_once() == 1);
}

TEST_CASE_METHOD(pooled_fixture, "N engines run N calls at once, never two in one", "[b12]") {
  ignore_stop();
  auto model = load(2);
  std::vector<test::task<roster::embedding>> calls;
  for (int i = 0; i < 5; ++i)
    calls.push_back(call(model));
  busy.await(2);
  CHECK(probe.runs() == 2);
  CHECK(pool.queued() == 0);  // the others leave the pool to other models

  busy.open();
  test::run_until(loop, [&] { return std::ranges::all_of(calls, [](auto& each) { return each.done(); }); });
  for (auto& each : calls)
    CHECK(each.succeeded());
  CHECK(probe.most_run_at_once() == 2);
  CHECK_FALSE(probe.overlapped());
}

TEST_CASE("One engine on many threads runs one call at a time", "[b12]") {
  pooled_fixture f(4);
  auto model = f.load(1);
  std::vector<test::task<roster::embedding>> calls;
  for (int i = 0; i < 50; ++i)
    calls.push_back(f.call(model));
  test::run_until(f.loop, [&] { return std::ranges::all_of(calls, [](auto& each) { return each.done(); }); });
  CHECK(f.probe.runs() == 50);
  CHECK_FALSE(f.probe.overlapped());
}

TEST_CASE_METHOD(pooled_fixture, "Calls for an engine run in the order they were made", "[b12]") {
  std::vector<std::size_t> order;
  probe.on_embed = [&](auto inputs, auto& outputs, auto&) {
    busy.pass();
    order.push_back(inputs[0].width());
    outputs.resize(inputs.size(), 1);
  };
  auto model = load(1);
  std::vector<test::task<roster::embedding>> calls;
  std::vector<std::size_t> expected;
  for (std::size_t i = 1; i <= 20; ++i) {
    calls.push_back(spawn(loop, model->embed(image(i, 1))));
    test::drain(loop);
    expected.push_back(i);
  }
  busy.open();
  test::run_until(loop, [&] { return std::ranges::all_of(calls, [](auto& each) { return each.done(); }); });
  CHECK(order == expected);
}

TEST_CASE_METHOD(pooled_fixture, "1024 calls wait for a pooled engine, unless told otherwise", "[b12]") {
  ignore_stop();
  finish(loop, models.add("key", roster::pooled(pool, maker<encoder>(probe))));
  const auto model = finish(loop, models.get("key"));
  std::vector<test::task<roster::embedding>> calls;
  for (int i = 0; i < 1 + 1024 + 1; ++i)
    calls.push_back(spawn(loop, model->embed(image(1, 1))));
  test::drain(loop);
  CHECK(std::ranges::count_if(calls, [](auto& each) { return each.done(); }) == 1);
  CHECK(calls.back().code() == errc::queue_full);
  busy.open();
  calls.pop_back();
  test::run_until(loop, [&] { return std::ranges::all_of(calls, [](auto& each) { return each.done(); }); });
}

TEST_CASE("A load has a thread of the pool like a call: on a pool of one thread other models wait for it") {
  pooled_fixture f(1);
  const auto model = f.load(1);
  checkpoint making;
  f.probe.on_make = [&] { making.pass(); };
  finish(f.loop, f.models.add("slow", roster::pooled(f.pool, maker<encoder>(f.probe))));
  auto load = spawn(f.loop, f.models.get("slow"));
  test::drain(f.loop);
  making.await();
  auto call = f.call(model);
  CHECK(f.pool.queued() == 1);
  CHECK(f.probe.runs() == 0);
  making.open();
  test::run_until(f.loop, [&] { return load.done() && call.done(); });
  CHECK(load.succeeded());
  CHECK(call.succeeded());
}

TEST_CASE_METHOD(pooled_fixture, "A batch goes in and comes out in order, and an empty one is no special case") {
  auto model = load(1);
  std::vector<image> batch;
  for (std::size_t i = 1; i <= 4; ++i)
    batch.emplace_back(i, 1);
  const auto rows = finish(loop, model->embed(std::move(batch)));
  REQUIRE(rows.rows() == 4);
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(rows[i][0] == static_cast<float>(i + 1));
  CHECK(finish(loop, model->embed(std::vector<image>())).rows() == 0);
  CHECK(model->dimension() == 1);
}

TEST_CASE_METHOD(pooled_fixture,
                 "Cancelling a running call resumes its caller at once, and frees its engine only when that has returned",
                 "[b13]") {
  ignore_stop();
  auto model = load(1, 1);
  auto running = call(model);
  busy.await();
  running.cancel();
  test::drain(loop);
  CHECK(running.aborted());
  CHECK(pool.running() == 1);

  auto next = call(model);
  CHECK_FALSE(next.done());
  CHECK(failure_of(loop, model->embed(image(1, 1))) == errc::queue_full);
  CHECK(probe.runs() == 1);
  busy.open();
  test::run_until(loop, [&] { return next.done(); });
  CHECK(next.succeeded());
  CHECK_FALSE(probe.overlapped());
}

TEST_CASE_METHOD(pooled_fixture, "Cancelling a running call asks its engine to stop", "[b13]") {
  checkpoint running;
  bool stopped = false;
  probe.on_embed = [&](auto, auto&, auto& context) {
    running.arrive();
    while (!context.stop_requested())
      std::this_thread::yield();
    stopped = true;
    context.throw_if_stop_requested();
  };
  auto model = load(1);
  auto cancelled = call(model);
  running.await();
  cancelled.cancel();
  test::drain(loop);
  CHECK(cancelled.aborted());
  finish(loop, pool.stop());
  CHECK(stopped);
}

TEST_CASE_METHOD(pooled_fixture,
                 "A call cancelled while it waits for an engine never reaches one, and leaves its place to the next", "[b13]") {
  ignore_stop();
  auto model = load(1, 2);
  auto running = call(model);
  busy.await();
  auto waiting = call(model);
  auto behind = call(model);
  CHECK(failure_of(loop, model->embed(image(1, 1))) == errc::queue_full);
  waiting.cancel();
  test::drain(loop);
  CHECK(waiting.aborted());
  auto late = call(model);
  CHECK_FALSE(late.done());

  busy.open();
  test::run_until(loop, [&] { return running.done() && behind.done() && late.done(); });
  CHECK(behind.succeeded());
  CHECK(late.succeeded());
  CHECK(probe.runs() == 3);
}

TEST_CASE("A call cancelled in the queue of the pool gives back engine, place and pool queue", "[b13]") {
  pooled_fixture f(1);
  auto model = f.load(1, 0);
  checkpoint busy;
  auto blocker = spawn(f.loop, f.pool.run(&checkpoint::pass, &busy));
  test::drain(f.loop);
  busy.await();
  auto queued = f.call(model);
  CHECK(f.pool.queued() == 1);
  queued.cancel();
  test::drain(f.loop);
  CHECK(queued.aborted());
  CHECK(f.pool.queued() == 0);

  auto next = f.call(model);
  CHECK_FALSE(next.done());
  busy.open();
  test::run_until(f.loop, [&] { return next.done() && blocker.done(); });
  CHECK(next.succeeded());
  CHECK(f.probe.runs() == 1);
}

TEST_CASE_METHOD(pooled_fixture, "A call that throws fails alone, also with something that is no exception", "[b15]") {
  int calls = 0;
  probe.on_embed = [&](auto inputs, auto& outputs, auto&) {
    if (++calls == 1) throw std::runtime_error("NaN in layer 3");
    if (calls == 2) throw 42;
    if (calls == 3) throw roster::error(errc::invalid_input, "grey");
    outputs.resize(inputs.size(), 1);
  };
  auto model = load(1, 0);
  CHECK(message_of(loop, model->embed(image(1, 1))) == "NaN in layer 3");
  CHECK_THROWS_AS(finish(loop, model->embed(image(1, 1))), int);
  CHECK(failure_of(loop, model->embed(image(1, 1))) == errc::invalid_input);
  CHECK(ask(loop, model) == 0);
  CHECK(probe.made() == 1);
}

TEST_CASE_METHOD(pooled_fixture, "An engine that returns the wrong number of results is told off, and its caller too",
                 "[b15]") {
  probe.on_embed = [](auto inputs, auto& outputs, auto&) { outputs.resize(inputs.size() + 1, 1); };
  auto model = load(1, 0);
  CHECK_THAT(message_of(loop, model->embed(image(1, 1))), Catch::Contains("2 results for 1 inputs"));
  CHECK(failure_of(loop, model->embed(image(1, 1))) == errc::bad_output);
}

TEST_CASE_METHOD(pooled_fixture, "A factory that fails at its second engine fails the load, and the first engine goes",
                 "[b19]") {
  probe.on_make = [&] {
    if (probe.attempts() == 2) throw std::runtime_error("out of memory");
  };
  finish(loop, models.add("key", roster::pooled(pool, maker<encoder>(probe)).instances(2)));
  CHECK_THAT(message_of(loop, models.get("key")), Catch::Contains("out of memory"));
  probe.await_destroyed(1);
  CHECK(probe.life(0).destroyed_on != std::this_thread::get_id());
  const auto model = finish(loop, models.get("key"));
  CHECK(probe.made() == 3);
}

TEST_CASE_METHOD(pooled_fixture,
                 "A load cancelled while an engine is being made ends when that is done, and only then starts another",
                 "[b9]") {
  checkpoint making;
  probe.on_make = [&] { making.pass(); };
  finish(loop, models.add("key", roster::pooled(pool, maker<encoder>(probe)).instances(2)));
  auto first = spawn(loop, models.get("key"));
  test::drain(loop);
  making.await();
  first.cancel();
  test::drain(loop);
  CHECK(first.aborted());
  auto second = spawn(loop, models.get("key"));
  test::drain(loop);
  CHECK(probe.attempts() == 1);
  making.open();
  test::run_until(loop, [&] { return second.done(); });
  CHECK(second.succeeded());
  CHECK(probe.most_made_at_once() == 1);
}

TEST_CASE_METHOD(pooled_fixture, "A call whose deadline passed while it waited is never started", "[b43]") {
  ignore_stop();
  auto model = load(1);
  auto running = call(model);
  busy.await();
  auto expired = spawn(loop, model->embed(image(1, 1), embed_options().deadline(embed_options::time_point::clock::now())));
  test::drain(loop);
  busy.open();
  test::run_until(loop, [&] { return running.done() && expired.done(); });
  CHECK(expired.code() == errc::deadline_exceeded);
  CHECK(probe.runs() == 1);
}

TEST_CASE_METHOD(pooled_fixture, "A call that asks for a device is refused, by name, since pooled engines choose theirs",
                 "[b18]") {
  auto model = load(1, 0);
  CHECK_THAT(message_of(loop, model->embed(image(1, 1), embed_options().on("cuda:1"))), Catch::Contains("'cuda:1'"));
  CHECK(failure_of(loop, model->embed(image(1, 1), embed_options().on("cuda:1"))) == errc::device_mismatch);
  CHECK(ask(loop, model) == 1);
}

TEST_CASE_METHOD(pooled_fixture, "A cancelled call still running when its model goes keeps its engine, which the pool destroys",
                 "[b36]") {
  ignore_stop();
  auto model = load(2);
  auto cancelled = call(model);
  busy.await();
  cancelled.cancel();
  test::drain(loop);
  finish(loop, models.remove("key"));
  model = {};
  CHECK(probe.destroyed() == 0);  // one set of engines, destroyed together
  busy.open();
  probe.await_destroyed(2);
  CHECK(probe.life(0).destroyed_on != std::this_thread::get_id());
  CHECK(probe.life(1).destroyed_on != std::this_thread::get_id());
}

TEST_CASE_METHOD(pooled_fixture, "A call and its inputs keep the model, whoever drops it", "[b36]") {
  ignore_stop();
  auto model = load(1);
  auto running = call(model);
  auto waiting = call(model);
  busy.await();
  finish(loop, models.remove("key"));
  model = {};
  busy.open();
  test::run_until(loop, [&] { return running.done() && waiting.done(); });
  CHECK(running.succeeded());
  CHECK(waiting.succeeded());
  probe.await_destroyed(1);
}

TEST_CASE("Engines are destroyed before whatever else is queued on their pool", "[b36]") {
  asio::io_context loop;
  engine_probe probe;
  roster::blocking_pool pool(1);
  roster::registry<roster::image_embedding> models(loop);
  finish(loop, models.add("key", roster::pooled(pool, maker<encoder>(probe))));
  auto model = finish(loop, models.get("key"));
  test::checkpoint gate;
  auto busy = spawn(loop, pool.run(&test::checkpoint::pass, &gate));
  auto queued = spawn(loop, pool.run([](engine_probe* watched) { return watched->destroyed(); }, &probe));
  test::drain(loop);
  gate.await();
  finish(loop, models.remove("key"));
  model = {};
  CHECK(probe.destroyed() == 0);
  gate.open();
  test::run_until(loop, [&] { return busy.done() && queued.done(); });
  CHECK(queued.value() == 1);
}

TEST_CASE("Placements refuse what makes no sense") {
  engine_probe probe;
  roster::blocking_pool pool(1);
  CHECK(failure_of([&] { roster::pooled(pool, maker<encoder>(probe)).instances(0); }) == errc::invalid_argument);
}
