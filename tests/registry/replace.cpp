#include <roster/registry/registry.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <memory>
#include <stdexcept>

namespace asio = boost::asio;
using roster::errc;
using roster::image_embedding;
using roster::load_context;
using roster::model_info;
using test::ask;
using test::checkpoint;
using test::encoder;
using test::engine_probe;
using test::failure_of;
using test::finish;
using test::make_model;
using test::maker;
using test::message_of;
using test::spawn;
using registry = roster::registry<image_embedding>;
using loading = asio::awaitable<registry::model_ptr>;

TEST_CASE("After replace, leases of the old model answer with it and lookups find the new one", "[b33]") {
  asio::io_context loop;
  registry models(loop);
  finish(loop, models.add("key", make_model(1)));
  const auto old = finish(loop, models.get("key"));
  finish(loop, models.replace("key", make_model(2)));
  CHECK(ask(loop, old) == 1);
  CHECK(ask(loop, finish(loop, models.get("key"))) == 2);
  CHECK(finish(loop, models.list()).at(0).info.name == "2");
}

TEST_CASE("replace loads the new model first, and the old one serves until then", "[b33]") {
  asio::io_context loop;
  registry models(loop);
  test::gate gate(loop);
  const auto slow = [&](load_context&) -> loading {
    co_await gate.wait();
    co_return make_model(2);
  };
  finish(loop, models.add("key", make_model(1)));
  auto replacing = spawn(loop, models.replace("key", model_info(), slow));
  test::drain(loop);
  REQUIRE(gate.waiting() == 1);
  CHECK(ask(loop, models.try_get("key").value()) == 1);
  gate.open();
  test::drain(loop);
  CHECK(replacing.succeeded());
  CHECK(ask(loop, models.try_get("key").value()) == 2);
}

TEST_CASE("When the new model fails to load, the old one keeps serving and the error is reported", "[b33]") {
  engine_probe probe;
  asio::io_context loop;
  roster::blocking_pool pool(1);
  probe.on_make = [] { throw std::runtime_error("no such device"); };
  registry models(loop);
  finish(loop, models.add("key", make_model(1)));
  const auto old = finish(loop, models.get("key"));

  CHECK_THAT(message_of(loop, models.replace("key", roster::pooled(pool, maker<encoder>(probe)))),
             Catch::Contains("no such device"));
  CHECK_THAT(message_of(loop, models.replace("key", roster::pinned(maker<encoder>(probe)))), Catch::Contains("no such device"));
  CHECK(finish(loop, models.get("key")) == old);
  CHECK(probe.attempts() == 2);
}

TEST_CASE("A cancelled replace leaves the old model, and cancels the load", "[b33]") {
  asio::io_context loop;
  registry models(loop);
  test::gate gate(loop);
  const auto slow = [&](load_context&) -> loading {
    co_await gate.wait();
    co_return make_model(2);
  };
  finish(loop, models.add("key", make_model(1)));
  auto replacing = spawn(loop, models.replace("key", model_info(), slow));
  test::drain(loop);
  replacing.cancel();
  test::drain(loop);
  CHECK(replacing.aborted());
  gate.open();
  CHECK(ask(loop, finish(loop, models.get("key"))) == 1);
}

TEST_CASE("replace of an unknown key loads nothing", "[b33]") {
  asio::io_context loop;
  registry models(loop);
  int loads = 0;
  const auto counting = [&](load_context&) -> loading {
    ++loads;
    co_return make_model(2);
  };
  CHECK(failure_of(loop, models.replace("key", model_info(), counting)) == errc::not_found);
  CHECK(loads == 0);
}

TEST_CASE("A key removed while its replacement loads stays removed", "[b33]") {
  asio::io_context loop;
  registry models(loop);
  test::gate gate(loop);
  const auto slow = [&](load_context&) -> loading {
    co_await gate.wait();
    co_return make_model(2);
  };
  finish(loop, models.add("key", make_model(1)));
  auto replacing = spawn(loop, models.replace("key", model_info(), slow));
  test::drain(loop);
  finish(loop, models.remove("key"));
  gate.open();
  test::drain(loop);
  CHECK(replacing.code() == errc::not_found);
  CHECK(failure_of(loop, models.get("key")) == errc::not_found);
}

TEST_CASE("A replacement may be made from the model it replaces", "[b33]") {
  asio::io_context loop;
  registry models(loop);
  const auto from_old = [&](load_context& context) -> loading {
    auto old = co_await context.get(models, "key");
    const auto vector = co_await old->embed(roster::image(1, 1));
    co_return make_model(vector.at(0) + 1);
  };
  const auto first = [&](load_context&) -> loading { co_return make_model(1); };
  finish(loop, models.add("key", model_info(), first));
  finish(loop, models.replace("key", model_info(), from_old));
  CHECK(ask(loop, finish(loop, models.get("key"))) == 2);
}

TEST_CASE("Calls accepted before a replace run on the old engine, calls after it on the new one", "[b33]") {
  engine_probe old_probe, new_probe;
  checkpoint busy;
  asio::io_context loop;
  roster::blocking_pool pool(2);
  old_probe.on_embed = [&](auto inputs, auto& outputs, auto&) {
    busy.pass();
    outputs.resize(inputs.size(), 1);
  };
  registry models(loop);
  finish(loop, models.add("key", roster::pooled(pool, maker<encoder>(old_probe))));
  auto old = finish(loop, models.get("key"));
  auto running = spawn(loop, old->embed(roster::image(1, 1)));
  auto queued = spawn(loop, old->embed(roster::image(1, 1)));
  test::drain(loop);
  busy.await();
  old = {};

  finish(loop, models.replace("key", roster::pooled(pool, maker<encoder>(new_probe))));
  CHECK(ask(loop, finish(loop, models.get("key"))) == 1);
  CHECK(new_probe.runs() == 1);
  CHECK(old_probe.destroyed() == 0);

  busy.open();
  test::run_until(loop, [&] { return running.done() && queued.done(); });
  CHECK(running.succeeded());
  CHECK(queued.succeeded());
  CHECK(old_probe.runs() == 2);
  old_probe.await_destroyed(1);
}
