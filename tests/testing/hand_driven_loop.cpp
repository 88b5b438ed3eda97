#include <roster/capability/image_embedding.hpp>
#include <roster/capability/text_embedding.hpp>
#include <roster/exec/within.hpp>
#include <roster/exec/worker_thread.hpp>
#include <roster/registry/catalog.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>
#include <roster/testing/hand_driven_loop.hpp>
#include <roster/testing/scripted_engine.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

namespace asio = boost::asio;
using namespace std::chrono_literals;
using roster::errc;
using roster::hand_driven_loop;
using roster::image;
using roster::image_embedding;
using roster::scripted_engine;
using test::spawn;

namespace {

void one_row(std::span<const image> inputs, const roster::embed_options&, roster::embeddings& outputs) {
  outputs.resize(inputs.size(), 1);
}

/// A model whose engine follows a script, on a pool or on a thread of its own.
struct scripted_model {
  explicit scripted_model(bool on_pool) {
    loop.watch(pool);
    if (on_pool)
      loop.run(models.add("key", roster::pooled(pool, engine.factory())));
    else
      loop.run(models.add("key", roster::pinned(engine.factory())));
    model = loop.run(models.get("key"));
  }

  auto call(roster::embed_options options = {}) { return spawn(loop.context(), model->embed(image(1, 1), std::move(options))); }

  hand_driven_loop loop;
  roster::blocking_pool pool{1, 16, loop.time()};
  roster::registry<image_embedding> models{loop.context(), {}, loop.time()};
  scripted_engine<image_embedding> engine;
  roster::lease<image_embedding> model;
};

}  // namespace

TEST_CASE("A loop runs until nothing can run, and says what waits", "[time]") {
  scripted_model made(GENERATE(true, false));
  made.engine.other_calls().wait(1).answer(one_row);
  auto first = made.call();
  auto second = made.call();
  made.loop.run();
  CHECK(made.engine.counts().started == 1);
  CHECK(made.loop.waiting().operations);

  made.engine.tick();
  made.loop.run();
  CHECK(first.succeeded());
  CHECK_FALSE(second.done());
  CHECK(made.engine.counts().started == 2);

  made.engine.tick();
  made.loop.run();
  CHECK(second.succeeded());
  CHECK_FALSE(made.loop.waiting().operations);
  CHECK(to_string(made.loop.waiting()) == "nothing");
}

TEST_CASE("What waits is counted and put into words", "[time]") {
  scripted_model made(true);
  made.engine.other_calls().wait(1).answer(one_row);
  auto first = made.call();
  auto second = spawn(made.loop.context(), made.pool.run([] {}));
  made.loop.run();
  const auto what = made.loop.waiting();
  CHECK(what.running == 1);
  CHECK(what.queued == 1);
  CHECK_FALSE(what.next_alarm);
  CHECK(to_string(what) == "operations pending, 1 running, 1 queued");

  auto alarm = made.loop.time()->make_alarm(made.loop.get_executor(), [] {});
  alarm->set(made.loop.time()->from_now(1500ms));
  CHECK_THAT(to_string(made.loop.waiting()), Catch::Contains("next alarm in 1500 ms"));
}

TEST_CASE("A coroutine is run to its end, with its value or exception, and one that cannot end is an error that says why",
          "[time]") {
  hand_driven_loop loop;
  roster::blocking_pool pool(1);
  loop.watch(pool);
  const auto seven = [] { return 7; };
  CHECK(loop.run(pool.run(seven)) == 7);
  const auto fails = [] { throw std::runtime_error("why"); };
  CHECK_THROWS_WITH(loop.run(pool.run(fails)), "why");
  test::gate closed(loop.context());
  CHECK_THROWS_WITH(loop.run(closed.wait()), Catch::Contains("cannot end: operations pending"));
}

TEST_CASE("Handlers' exceptions come out of run, which may go on", "[time]") {
  hand_driven_loop loop;
  asio::post(loop.context(), [] { throw std::runtime_error("from a handler"); });
  int later = 0;
  asio::post(loop.context(), [&] { ++later; });
  CHECK_THROWS_WITH(loop.run(), "from a handler");
  loop.run();
  CHECK(later == 1);
}

TEST_CASE("Time passes from alarm to alarm, and what each brings is run before the next", "[time]") {
  hand_driven_loop loop;
  std::string order;
  const auto start = loop.time()->now();
  std::unique_ptr<roster::alarm> second;
  const auto first = loop.time()->make_alarm(loop.get_executor(), [&] {
    CHECK(loop.time()->now() == start + 1min);
    order += 'a';
    second->set(loop.time()->from_now(2min));
  });
  second = loop.time()->make_alarm(loop.get_executor(), [&] {
    CHECK(loop.time()->now() == start + 3min);
    order += 'b';
  });
  first->set(start + 1min);
  loop.advance(5min);
  CHECK(order == "ab");
  CHECK(loop.time()->now() == start + 5min);
}

TEST_CASE("A call whose deadline passes while it waits is never started, by the time that the model was given",
          "[time][b43][b44]") {
  scripted_model made(GENERATE(true, false));
  made.engine.other_calls().wait(1).answer(one_row);
  auto running = made.call();
  const auto soon = roster::embed_options().deadline(made.loop.time()->from_now(5min));
  const auto late = roster::embed_options().deadline(made.loop.time()->from_now(10min));
  auto expires = made.call(soon);
  auto starts = made.call(late);
  made.loop.advance(7min);
  CHECK(expires.done());
  made.engine.tick();
  made.loop.run();
  CHECK(running.succeeded());
  CHECK(expires.code() == errc::deadline_exceeded);
  made.engine.tick();
  made.loop.run();
  CHECK(starts.succeeded());
  CHECK(made.engine.counts().started == 2);
}

TEST_CASE("Running work and streams tell by the same time whether they have expired", "[time][b43]") {
  hand_driven_loop loop;
  roster::blocking_pool pool(1, 16, loop.time());
  roster::worker_thread<int> worker(
      loop.get_executor(), [] { return 0; }, roster::device(), 16, loop.time());
  loop.watch(pool);
  const auto options = roster::call_options().deadline(loop.time()->from_now(1min));
  const auto passes = [&](roster::run_context& context) {
    const bool before = context.expired();
    loop.time()->advance(2min);
    return !before && context.expired();
  };
  CHECK(loop.run(pool.run(options, passes)));

  const auto later = roster::call_options().deadline(loop.time()->from_now(1min));
  bool expired = false;
  auto stream = worker.start_stream<bool>(later, [&](int&, roster::sink<bool>& out, roster::run_context& context) {
    out.push(context.expired());
    loop.time()->advance(2min);
    expired = context.expired();
  });
  CHECK(loop.run(stream.next()) == false);
  CHECK(expired);
}

TEST_CASE("within ends what has not ended by a time that passes by hand", "[time][b43]") {
  hand_driven_loop loop;
  test::gate closed(loop.context());
  const auto deadline = loop.time()->from_now(1min);
  auto call = spawn(loop.context(), roster::within(loop.time(), deadline, closed.wait()));
  loop.advance(59s);
  CHECK_FALSE(call.done());
  loop.advance(1s);
  CHECK(call.code() == errc::deadline_exceeded);
  CHECK_FALSE(loop.time()->next_alarm());
}

TEST_CASE("The registries of a catalog have its time", "[time]") {
  hand_driven_loop loop;
  roster::catalog<image_embedding, roster::text_embedding> models(loop.get_executor(), loop.time());
  const auto noted = std::make_shared<std::shared_ptr<roster::time_source>>();
  const auto loader = [noted](roster::load_context& context) -> asio::awaitable<std::shared_ptr<image_embedding::model>> {
    *noted = context.time();
    throw std::runtime_error("noted");
    co_return nullptr;
  };
  loop.run(models.add<image_embedding>("key", roster::model_info(), loader));
  CHECK_THROWS_AS(loop.run(models.get<image_embedding>("key")), roster::load_error);
  CHECK(*noted == loop.time());
}

TEST_CASE("Clean-up that waits behind a call does not keep a loop running", "[time]") {
  scripted_model made(GENERATE(true, false));
  made.engine.other_calls().wait(1).answer(one_row);
  made.loop.run(made.models.add("other", roster::pooled(made.pool, made.engine.factory())));
  auto other = made.loop.run(made.models.get("other"));
  auto waits = made.call();
  made.loop.run();
  made.loop.run(made.models.remove("other"));
  other = {};
  made.loop.run();
  made.engine.tick();
  made.loop.run();
  CHECK(waits.succeeded());
  CHECK(made.engine.counts().destroyed == 1);
}

TEST_CASE("A loop waits for the end of a worker's thread, which destroys its engine", "[time]") {
  for (int i = 0; i < 20; ++i) {
    scripted_model made(false);
    made.loop.run(made.models.remove("key"));
    made.model = {};
    made.loop.run();
    REQUIRE(made.engine.counts().destroyed == 1);
  }
}

TEST_CASE("A worker whose model is gone is waited for while its last call does anything", "[time]") {
  scripted_model made(false);
  made.engine.next_call().wait(1);
  auto call = made.call();
  made.loop.run();
  CHECK(made.loop.waiting().running == 1);
  call.cancel();
  made.loop.run(made.models.remove("key"));
  made.model = {};
  made.loop.run();
  CHECK(call.aborted());
  made.engine.tick();
  made.loop.run();
  CHECK(made.engine.counts().stopped == 1);
  CHECK(made.engine.counts().destroyed == 1);
}

TEST_CASE("An engine that waits for room in its stream does nothing", "[time][b24]") {
  hand_driven_loop loop;
  roster::blocking_pool pool(1, 16, loop.time());
  loop.watch(pool);
  roster::worker_thread<int> worker(loop.get_executor(), [] { return 0; });
  auto stream = worker.start_stream<int>(
      roster::call_options(),
      [](int&, roster::sink<int>& out, roster::run_context&) {
        for (int i = 0; i < 100; ++i)
          out.push(i);
      },
      4);
  loop.run();
  CHECK(loop.waiting().running == 1);
  for (int i = 0; i < 100; ++i) {
    REQUIRE(loop.run(stream.next()) == i);
    loop.run();
  }
  CHECK(loop.run(stream.next()) == std::nullopt);
  CHECK(loop.waiting().running == 0);
}

TEST_CASE("There is no pool, worker, registry or deadline without a time", "[time]") {
  asio::io_context loop;
  CHECK(test::failure_of([] { roster::blocking_pool pool(1, 16, nullptr); }) == errc::invalid_argument);
  CHECK(test::failure_of([&] { roster::registry<image_embedding>(loop, {}, nullptr); }) == errc::invalid_argument);
  const auto make_worker = [&] {
    roster::worker_thread<int> worker(
        loop.get_executor(), [] { return 0; }, roster::device(), 16, nullptr);
  };
  CHECK(test::failure_of(make_worker) == errc::invalid_argument);
  test::gate open(loop);
  CHECK(test::failure_of(loop, roster::within(nullptr, roster::clock::time_point(), open.wait())) == errc::invalid_argument);
}

TEST_CASE("A pool that ends, or a worker that is stopped, is still", "[time]") {
  hand_driven_loop loop;
  {
    roster::blocking_pool pool(3);
    loop.watch(pool);
    loop.run();
  }
  loop.run();
  roster::worker_thread<int> worker(loop.get_executor(), [] { return 0; });
  loop.run(worker.start());
  loop.run(worker.stop());
  loop.run();
  CHECK_FALSE(loop.waiting().operations);
}

TEST_CASE("Whatever calls do, and on however many threads, nothing is missed when a loop says that nothing can run",
          "[time][stress]") {
  hand_driven_loop loop;
  roster::blocking_pool first(2, 16, loop.time()), second(1, 16, loop.time());
  loop.watch(first);
  loop.watch(second);
  // Each call hops between the pools, whose threads hand it on.
  const auto hop = [](roster::blocking_pool& from, roster::blocking_pool& to, int times,
                      int& arrived) -> asio::awaitable<void> {
    const auto nothing = [] {};
    for (int i = 0; i < times; ++i)
      co_await (i % 2 ? from : to).run(nothing);
    ++arrived;
  };
  for (int round = 0; round < 50; ++round) {
    int arrived = 0;
    for (int i = 0; i < 10; ++i)
      asio::co_spawn(loop.context(), hop(first, second, round % 7 + i, arrived), asio::detached);
    loop.run();
    REQUIRE(arrived == 10);
  }
}
