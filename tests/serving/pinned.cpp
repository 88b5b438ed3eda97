#include <roster/registry/registry.hpp>
#include <roster/serving/pinned.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

namespace asio = boost::asio;
using roster::embed_options;
using roster::errc;
using roster::image;
using roster::image_embedding;
using test::ask;
using test::checkpoint;
using test::device_maker;
using test::encoder;
using test::engine_probe;
using test::failure_of;
using test::finish;
using test::maker;
using test::message_of;
using test::spawn;
using lease = roster::lease<image_embedding>;

namespace {

struct pinned_fixture {
  lease load(std::size_t queue_limit = 1024) {
    finish(loop, models.add("key", roster::pinned(maker<encoder>(probe)).queue_limit(queue_limit)));
    return finish(loop, models.get("key"));
  }

  void ignore_stop() {
    probe.on_embed = [this](auto inputs, auto& outputs, auto&) {
      busy.pass();
      outputs.resize(inputs.size(), 1);
    };
  }

  auto call(const lease& model, embed_options options = embed_options()) {
    auto started = spawn(loop, model->embed(image(1, 1), std::move(options)));
    test::drain(loop);
    return started;
  }

  checkpoint busy;
  engine_probe probe;
  asio::io_context loop;
  roster::registry<image_embedding> models{loop};
};

}  // namespace

TEST_CASE_METHOD(pinned_fixture, "An engine is made, used and destroyed on one thread of its own, by one call at a time",
                 "[b16]") {
  finish(loop, models.add("key", roster::pinned(maker<encoder>(probe))));
  CHECK(probe.attempts() == 0);  // registering starts nothing
  auto model = finish(loop, models.get("key"));
  std::vector<test::task<roster::embedding>> calls;
  for (int i = 0; i < 20; ++i)
    calls.push_back(call(model));
  test::run_until(loop, [&] { return std::ranges::all_of(calls, [](auto& each) { return each.done(); }); });
  finish(loop, models.remove("key"));
  calls.clear();
  model = {};
  probe.await_destroyed(1);

  const auto life = probe.life(0);
  CHECK(life.made_on != std::this_thread::get_id());
  CHECK(life.destroyed_on == life.made_on);
  CHECK(life.ran_on == std::vector(20, life.made_on));
  CHECK_FALSE(probe.overlapped());
}

TEST_CASE_METHOD(pinned_fixture, "The loop goes on while an engine is made and while it runs", "[b11]") {
  checkpoint ticks;
  probe.on_make = [&] { ticks.await(100); };
  probe.on_embed = [&](auto inputs, auto& outputs, auto&) {
    ticks.await(200);
    outputs.resize(inputs.size(), 1);
  };
  finish(loop, models.add("key", roster::pinned(maker<encoder>(probe))));
  for (int i = 0; i < 200; ++i)
    asio::post(loop, [&] { ticks.arrive(); });
  CHECK(ask(loop, finish(loop, models.get("key"))) == 0);
}

TEST_CASE_METHOD(pinned_fixture, "Two concurrent first lookups, and two concurrent first calls, start one thread and load once",
                 "[b17]") {
  finish(loop, models.add("now", roster::pinned(maker<encoder>(probe))));
  finish(loop, models.add("later", roster::pinned(device_maker<encoder>(probe))));
  auto first = spawn(loop, models.get("now"));
  auto second = spawn(loop, models.get("now"));
  test::run_until(loop, [&] { return first.done() && second.done(); });
  CHECK(first.value() == second.value());
  CHECK(probe.attempts() == 1);

  auto model = finish(loop, models.get("later"));
  CHECK(probe.attempts() == 1);
  auto third = call(model), fourth = call(model);
  test::run_until(loop, [&] { return third.done() && fourth.done(); });
  CHECK(third.succeeded());
  CHECK(fourth.succeeded());
  CHECK(probe.attempts() == 2);
}

TEST_CASE_METHOD(pinned_fixture, "A factory that takes a device waits for the first call, whose device it gets", "[b18]") {
  finish(loop, models.add("key", roster::pinned(device_maker<encoder>(probe))));
  auto model = finish(loop, models.get("key"));
  CHECK(probe.attempts() == 0);
  CHECK(model->dimension() == 0);  // not known yet

  auto first = call(model, embed_options().on("cuda:1"));
  auto other = call(model, embed_options().on("cpu"));
  auto any = call(model);
  test::run_until(loop, [&] { return first.done() && other.done() && any.done(); });
  CHECK(first.succeeded());
  CHECK(any.succeeded());
  CHECK(other.code() == errc::device_mismatch);
  CHECK(probe.made() == 1);
  CHECK(probe.life(0).target == roster::device("cuda:1"));
  CHECK_THAT(message_of(loop, model->embed(image(1, 1), embed_options().on("cpu"))),
             Catch::Contains("'cuda:1'") && Catch::Contains("'cpu'"));
  CHECK(probe.runs() == 2);
}

TEST_CASE_METHOD(pinned_fixture, "A default device is fixed at the load, and a call for another is refused with both names",
                 "[b18]") {
  finish(loop, models.add("key", roster::pinned(device_maker<encoder>(probe), "cuda:0").queue_limit(0)));
  auto model = finish(loop, models.get("key"));
  CHECK(probe.life(0).target == roster::device("cuda:0"));
  CHECK(model->dimension() == 1);
  CHECK_THAT(message_of(loop, model->embed(image(1, 1), embed_options().on("cpu"))),
             Catch::Contains("'cuda:0'") && Catch::Contains("'cpu'"));
  CHECK(finish(loop, model->embed(image(1, 1), embed_options().on("cuda:0"))).size() == 1);
}

TEST_CASE_METHOD(pinned_fixture, "A device may be given with a factory that does not care, too", "[b18]") {
  finish(loop, models.add("key", roster::pinned(maker<encoder>(probe), "cuda:0")));
  const auto model = finish(loop, models.get("key"));
  CHECK(probe.made() == 1);
  CHECK(failure_of(loop, model->embed(image(1, 1), embed_options().on("cpu"))) == errc::device_mismatch);
  CHECK(finish(loop, model->embed(image(1, 1), embed_options().on("cuda:0"))).size() == 1);
  CHECK(ask(loop, model) == 1);
}

TEST_CASE_METHOD(pinned_fixture,
                 "A first call that fails to start gives every waiting caller the cause, and the next one tries again",
                 "[b19]") {
  checkpoint making;
  probe.on_make = [&] {
    if (probe.attempts() > 1) return;
    making.pass();
    throw std::runtime_error("no such file");
  };
  finish(loop, models.add("key", roster::pinned(device_maker<encoder>(probe))));
  auto model = finish(loop, models.get("key"));
  std::vector<test::task<roster::embedding>> calls;
  for (int i = 0; i < 5; ++i)
    calls.push_back(call(model));
  making.open();
  test::run_until(loop, [&] { return std::ranges::all_of(calls, [](auto& each) { return each.done(); }); });
  for (auto& each : calls)
    CHECK_THROWS_WITH(std::rethrow_exception(each.failure()), "no such file");
  CHECK(probe.attempts() == 1);
  CHECK(ask(loop, model) == 1);
  CHECK(probe.made() == 1);
}

TEST_CASE_METHOD(pinned_fixture, "A load that fails reaches every getter with its cause, and the next lookup tries again",
                 "[b19]") {
  probe.on_make = [&] {
    if (probe.attempts() == 1) throw 42;
    if (probe.attempts() == 2) throw std::runtime_error("no such file");
  };
  finish(loop, models.add("key", roster::pinned(maker<encoder>(probe))));
  CHECK(failure_of(loop, models.get("key")) == errc::load_failed);
  auto first = spawn(loop, models.get("key"));
  auto second = spawn(loop, models.get("key"));
  test::run_until(loop, [&] { return first.done() && second.done(); });
  for (const auto* each : {&first, &second})
    CHECK_THROWS_WITH(std::rethrow_exception(each->failure()), Catch::Contains("no such file"));
  CHECK(ask(loop, finish(loop, models.get("key"))) == 1);
  CHECK(probe.attempts() == 3);
}

TEST_CASE_METHOD(pinned_fixture, "A thread that cannot be made is an error of the load, which can be retried", "[b20]") {
  finish(loop, models.add("key", roster::pinned(maker<encoder>(probe))));
  roster::detail::before_thread_creation = [] {
    throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
  };
  const auto message = message_of(loop, models.get("key"));
  roster::detail::before_thread_creation = nullptr;
  CHECK_THAT(message, Catch::Contains("'key'"));
  CHECK(probe.attempts() == 0);
  CHECK(ask(loop, finish(loop, models.get("key"))) == 1);
}

TEST_CASE_METHOD(pinned_fixture, "A load cancelled while its engine is being made never makes a second one beside it", "[b9]") {
  checkpoint making;
  probe.on_make = [&] { making.pass(); };
  finish(loop, models.add("key", roster::pinned(maker<encoder>(probe))));
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
  CHECK(probe.made() == 1);
}

TEST_CASE_METHOD(pinned_fixture, "A first call cancelled while the engine is being made leaves it to the next call", "[b9]") {
  checkpoint making;
  probe.on_make = [&] { making.pass(); };
  finish(loop, models.add("key", roster::pinned(device_maker<encoder>(probe)).queue_limit(0)));
  auto model = finish(loop, models.get("key"));
  auto first = call(model);
  making.await();
  first.cancel();
  test::drain(loop);
  CHECK(first.aborted());
  auto second = call(model);  // the place of the first is free again
  CHECK_FALSE(second.done());
  making.open();
  test::run_until(loop, [&] { return second.done(); });
  CHECK(second.succeeded());
  CHECK(probe.attempts() == 1);
}

TEST_CASE_METHOD(pinned_fixture, "Calls run in the order they were made, and those beyond the limit are refused at once",
                 "[b12]") {
  std::vector<std::size_t> order;
  probe.on_embed = [&](auto inputs, auto& outputs, auto&) {
    busy.pass();
    order.push_back(inputs[0].width());
    outputs.resize(inputs.size(), 1);
  };
  auto model = load(2);
  std::vector<test::task<roster::embedding>> calls;
  for (std::size_t i = 1; i <= 5; ++i) {
    calls.push_back(spawn(loop, model->embed(image(i, 1))));
    test::drain(loop);
  }
  for (const auto i : {3U, 4U})
    CHECK(calls[i].code() == errc::queue_full);
  busy.open();
  test::run_until(loop, [&] { return calls[0].done() && calls[1].done() && calls[2].done(); });
  CHECK(order == std::vector<std::size_t>{1, 2, 3});
}

TEST_CASE_METHOD(pinned_fixture,
                 "Cancelled calls, running or queued, end at once, and a deaf engine keeps its place until it returns",
                 "[b13]") {
  ignore_stop();
  auto model = load(1);
  auto running = call(model);
  busy.await();
  auto queued = call(model);
  running.cancel();
  queued.cancel();
  test::drain(loop);
  CHECK(running.aborted());
  CHECK(queued.aborted());

  auto next = call(model);
  CHECK_FALSE(next.done());
  CHECK(failure_of(loop, model->embed(image(1, 1))) == errc::queue_full);
  busy.open();
  test::run_until(loop, [&] { return next.done(); });
  CHECK(next.succeeded());
  CHECK(probe.runs() == 2);
}

TEST_CASE_METHOD(pinned_fixture, "Cancelling a running call asks its pinned engine to stop", "[b13]") {
  checkpoint running, stopped;
  probe.on_embed = [&](auto, auto&, auto& context) {
    running.arrive();
    while (!context.stop_requested())
      std::this_thread::yield();
    stopped.arrive();
  };
  auto model = load();
  auto cancelled = call(model);
  running.await();
  cancelled.cancel();
  test::drain(loop);
  CHECK(cancelled.aborted());
  stopped.await();
}

TEST_CASE_METHOD(pinned_fixture, "A call for a pinned engine whose deadline passed while it waited is never started", "[b43]") {
  ignore_stop();
  auto model = load();
  auto running = call(model);
  busy.await();
  auto expired = call(model, embed_options().deadline(embed_options::time_point::clock::now()));
  busy.open();
  test::run_until(loop, [&] { return running.done() && expired.done(); });
  CHECK(running.succeeded());
  CHECK(expired.code() == errc::deadline_exceeded);
  CHECK(probe.runs() == 1);
}

TEST_CASE_METHOD(pinned_fixture, "1024 calls wait for a pinned engine, unless told otherwise", "[b12]") {
  ignore_stop();
  finish(loop, models.add("key", roster::pinned(maker<encoder>(probe))));
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

TEST_CASE_METHOD(pinned_fixture,
                 "A call that throws fails alone and leaves its thread healthy, also with something that is no exception",
                 "[b15]") {
  int calls = 0;
  probe.on_embed = [&](auto inputs, auto& outputs, auto&) {
    if (++calls == 1) throw std::runtime_error("NaN");
    if (calls == 2) throw 42;
    outputs.resize(inputs.size() - (calls == 3 ? 1 : 0), 1);
  };
  auto model = load(0);
  CHECK(message_of(loop, model->embed(image(1, 1))) == "NaN");
  CHECK_THROWS_AS(finish(loop, model->embed(image(1, 1))), int);
  CHECK(failure_of(loop, model->embed(image(1, 1))) == errc::bad_output);
  CHECK(ask(loop, model) == 0);
  CHECK(probe.made() == 1);
}

TEST_CASE_METHOD(pinned_fixture,
                 "Dropping a model whose engine is deaf waits for nothing, and the engine goes when it has returned", "[b36]") {
  ignore_stop();
  auto model = load();
  auto running = call(model);
  busy.await();
  running.cancel();
  test::drain(loop);
  finish(loop, models.remove("key"));
  model = {};
  CHECK(probe.destroyed() == 0);
  busy.open();
  probe.await_destroyed(1);
  CHECK(probe.life(0).destroyed_on == probe.life(0).made_on);
}

TEST_CASE_METHOD(pinned_fixture, "Loading and dropping many times leaves one engine at a time, each on its own thread",
                 "[b16]") {
  for (std::size_t i = 0; i < 50; ++i) {
    auto model = load();
    CHECK(ask(loop, model) == 1);
    finish(loop, models.remove("key"));
    model = {};
    probe.await_destroyed(i + 1);
    CHECK(probe.life(i).destroyed_on == probe.life(i).made_on);
  }
}
