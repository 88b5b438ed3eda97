#include <roster/registry/catalog.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace asio = boost::asio;
using roster::errc;
using roster::image_embedding;
using roster::load_context;
using roster::load_state;
using roster::model_info;
using roster::text_to_image;
using test::ask;
using test::encoder;
using test::engine_probe;
using test::failure_of;
using test::finish;
using test::make_model;
using test::maker;
using test::message_of;
using test::painter;
using test::spawn;
using registry = roster::registry<image_embedding>;
using loading = asio::awaitable<registry::model_ptr>;

namespace {

/// A loader that first needs another model of the same registry.
auto needs(registry& from, const char* key) {
  return [&from, key](load_context& context) -> loading {
    auto other = co_await context.get(from, key);
    co_return make_model(static_cast<float>(1 + other->info().name.size()));
  };
}

}  // namespace

TEST_CASE("A loader may load other models, of other capabilities too", "[b39]") {
  engine_probe probe;
  asio::io_context loop;
  roster::blocking_pool pool(1);
  roster::catalog<image_embedding, text_to_image> models{loop.get_executor()};
  auto& encoders = models.of<image_embedding>();
  auto& painters = models.of<text_to_image>();
  finish(loop, encoders.add("base", roster::pooled(pool, maker<encoder>(probe))));
  finish(loop, painters.add("painter", roster::pinned(maker<painter>(probe))));
  const auto both = [&](load_context& context) -> loading {
    CHECK(context.key() == "both");
    CHECK(context.info().provider == "somebody");
    auto base = co_await context.get(encoders, "base");
    auto drawing = (co_await context.get(painters, "painter"))->generate(roster::image_request("x"));
    std::size_t events = 0;
    while (co_await drawing.next())
      ++events;
    const auto vector = co_await base->embed(roster::image(10, 1));
    co_return make_model(vector.at(0) + static_cast<float>(events));
  };
  finish(loop, encoders.add("both", model_info("somebody", "composed"), both));

  CHECK(ask(loop, finish(loop, encoders.get("both"))) == 13);
  CHECK(encoders.try_get("base").has_value());
}

TEST_CASE("Chains of loads do not exhaust a pool of one thread", "[b39]") {
  engine_probe probe;
  asio::io_context loop;
  roster::blocking_pool pool(1, 0);
  registry models(loop);
  finish(loop, models.add("0", roster::pooled(pool, maker<encoder>(probe))));
  const auto link = [&](load_context& context) -> loading {
    const auto next = std::to_string(std::stoi(context.key()) - 1);
    auto other = co_await context.get(models, next);
    const auto vector = co_await other->embed(roster::image(3, 1));
    co_return make_model(vector.at(0) + 1);
  };
  for (int i = 1; i <= 20; ++i)
    finish(loop, models.add(std::to_string(i), model_info(), link));

  auto last = spawn(loop, models.get("20"));
  auto middle = spawn(loop, models.get("10"));
  test::run_until(loop, [&] { return last.done() && middle.done(); });
  CHECK(ask(loop, last.value()) == 23);
  CHECK(ask(loop, middle.value()) == 13);
}

TEST_CASE("A loader that needs its own model is told of the cycle", "[b39]") {
  asio::io_context loop;
  registry models(loop);
  finish(loop, models.add("self", model_info(), needs(models, "self")));

  auto call = spawn(loop, models.get("self"));
  test::drain(loop);
  REQUIRE(call.done());
  CHECK(call.code() == errc::load_failed);
  try {
    std::rethrow_exception(call.failure());
  } catch (const roster::load_error& e) {
    CHECK(test::code_of(e.cause()) == errc::load_cycle);
    CHECK_THAT(e.what(), Catch::Contains("image_embedding 'self'"));
  }
}

TEST_CASE("A loader that asks the registry directly for its own model is told as well", "[b10][b39]") {
  asio::io_context loop;
  registry models(loop);
  const auto careless = [&](load_context&) -> loading {
    auto self = co_await models.get("self");
    co_return make_model(1);
  };
  finish(loop, models.add("self", model_info(), careless));
  auto call = spawn(loop, models.get("self"));
  test::drain(loop);
  REQUIRE(call.done());
  CHECK(call.code() == errc::load_failed);
}

TEST_CASE("A cycle within one chain of loads is reported, and nothing is left waiting", "[b39]") {
  asio::io_context loop;
  registry models(loop);
  finish(loop, models.add("a", model_info(), needs(models, "b")));
  finish(loop, models.add("b", model_info(), needs(models, "c")));
  finish(loop, models.add("c", model_info(), needs(models, "a")));

  for (const auto* key : {"a", "b", "c", "a"}) {
    auto call = spawn(loop, models.get(key));
    test::drain(loop);
    REQUIRE(call.done());
    CHECK(call.code() == errc::load_failed);
  }
  for (const auto& row : finish(loop, models.list())) {
    CHECK(row.state == load_state::failed);
    CHECK_THAT(row.last_error, Catch::Contains("which waits for it"));
  }

  finish(loop, models.replace("a", make_model(1)));  // the knot is cut
  CHECK(ask(loop, finish(loop, models.get("b"))) > 0);
}

TEST_CASE("A cycle closed by two loads that started apart is reported to both", "[b39]") {
  asio::io_context loop;
  registry models(loop);
  test::gate gate(loop);
  const auto crossed = [&](std::string other) {
    return [&, other](load_context& context) -> loading {
      co_await gate.wait();
      auto needed = co_await context.get(models, other);
      co_return make_model(1);
    };
  };
  const auto needs_b = crossed("b"), needs_a = crossed("a");
  finish(loop, models.add("a", model_info(), needs_b));
  finish(loop, models.add("b", model_info(), needs_a));
  auto a = spawn(loop, models.get("a"));
  auto b = spawn(loop, models.get("b"));
  test::drain(loop);
  REQUIRE(gate.waiting() == 2);
  gate.open();
  test::drain(loop);

  REQUIRE(a.done());
  REQUIRE(b.done());
  CHECK(a.code() == errc::load_failed);
  CHECK(b.code() == errc::load_failed);
}

TEST_CASE("Two loads that need the same third one are no cycle", "[b39]") {
  asio::io_context loop;
  registry models(loop);
  test::gate gate(loop);
  int loads = 0;
  const auto shared = [&](load_context&) -> loading {
    ++loads;
    co_await gate.wait();
    co_return make_model(1);
  };
  const auto both = [&](load_context& context) -> loading {
    auto left = co_await context.get(models, "left");
    auto right = co_await context.get(models, "right");
    co_return make_model(2);
  };
  finish(loop, models.add("shared", model_info(), shared));
  finish(loop, models.add("left", model_info(), needs(models, "shared")));
  finish(loop, models.add("right", model_info(), needs(models, "shared")));
  finish(loop, models.add("top", model_info(), both));
  auto top = spawn(loop, models.get("top"));
  auto right = spawn(loop, models.get("right"));
  test::drain(loop);
  gate.open();
  test::drain(loop);
  CHECK(top.succeeded());
  CHECK(right.succeeded());
  CHECK(loads == 1);
}

TEST_CASE("The error of an inner load reaches the outer one's callers, and passes with it", "[b39]") {
  asio::io_context loop;
  registry models(loop);
  bool broken = true;
  const auto inner = [&](load_context&) -> loading {
    if (broken) throw std::runtime_error("inner trouble");
    co_return make_model(1);
  };
  finish(loop, models.add("inner", model_info(), inner));
  finish(loop, models.add("outer", model_info(), needs(models, "inner")));
  const auto message = message_of(loop, models.get("outer"));
  CHECK_THAT(message, Catch::Contains("'outer'") && Catch::Contains("'inner'") && Catch::Contains("inner trouble"));

  finish(loop, models.add("orphan", model_info(), needs(models, "nowhere")));
  CHECK_THAT(message_of(loop, models.get("orphan")), Catch::Contains("'nowhere'"));
  CHECK(failure_of(loop, models.get("orphan")) == errc::load_failed);

  broken = false;
  CHECK(ask(loop, finish(loop, models.get("outer"))) > 0);
}

TEST_CASE("When nobody waits for the outer load any more, the inner one is cancelled with it", "[b39]") {
  asio::io_context loop;
  registry models(loop);
  test::gate gate(loop);
  int running = 0;
  const auto inner = [&](load_context&) -> loading {
    ++running;
    try {
      co_await gate.wait();
    } catch (...) {
      --running;
      throw;
    }
    --running;
    co_return make_model(1);
  };
  finish(loop, models.add("inner", model_info(), inner));
  finish(loop, models.add("outer", model_info(), needs(models, "inner")));
  auto outer = spawn(loop, models.get("outer"));
  test::drain(loop);
  REQUIRE(running == 1);
  outer.cancel();
  test::drain(loop);
  CHECK(outer.aborted());
  CHECK(running == 0);

  auto again = spawn(loop, models.get("outer"));
  auto direct = spawn(loop, models.get("inner"));
  test::drain(loop);
  again.cancel();
  test::drain(loop);
  CHECK(running == 1);  // wanted by somebody else
  gate.open();
  test::drain(loop);
  CHECK(direct.succeeded());
}
