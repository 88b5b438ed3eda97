#include <roster/registry/catalog.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <algorithm>
#include <cstddef>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <random>
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

/// A loader of "i" that needs "i + 1"; of the last one of `count`, that needs `after`.
auto chained(registry& from, int count, std::string after) {
  return [&from, count, after](load_context& context) -> loading {
    const int next = std::stoi(context.key()) + 1;
    const auto key = next < count ? std::to_string(next) : after;
    auto other = co_await context.get(from, key);
    co_return make_model(1);
  };
}

template <typename Loader>
asio::awaitable<void> add_numbered(registry& models, int count, const Loader& loader) {
  for (int i = 0; i < count; ++i) {
    const auto key = std::to_string(i);
    co_await models.add(key, model_info(), loader);
  }
}

std::size_t waits_followed() {
  return roster::detail::load_graph::instance().followed();
}

/// A loader that waits for a gate.
auto gated(test::gate& gate) {
  return [&gate](load_context&) -> loading {
    co_await gate.wait();
    co_return make_model(1);
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
  roster::error_code told;
  const auto careless = [&](load_context&) -> loading {
    try {
      auto self = co_await models.get("self");
    } catch (const boost::system::system_error& e) {
      told = e.code();
      throw;
    }
    co_return make_model(1);
  };
  finish(loop, models.add("self", model_info(), careless));
  auto call = spawn(loop, models.get("self"));
  test::drain(loop);
  REQUIRE(call.done());
  CHECK(call.code() == errc::load_failed);
  CHECK(told == errc::would_deadlock);
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

TEST_CASE("A circle of ten thousand loads is followed once, and reported by its ends", "[b39]") {
  constexpr int count = 10'000;
  asio::io_context loop;
  registry models(loop);
  const auto loader = chained(models, count, "0");
  finish(loop, add_numbered(models, count, loader));
  const auto before = waits_followed();
  auto call = spawn(loop, models.get("0"));
  test::drain(loop);
  REQUIRE(call.done());
  CHECK(call.code() == errc::load_failed);
  CHECK(waits_followed() - before <= count);

  const auto rows = finish(loop, models.list());
  const auto last = std::ranges::find(rows, "9999", &roster::registered_model::key);
  CHECK_THAT(last->last_error, Catch::StartsWith("loading image_embedding '9999' needs image_embedding '0', which waits for it "
                                                 "through image_embedding '1', image_embedding '2', image_embedding '3', "
                                                 "... 9992 more ..., image_embedding '9996', image_embedding '9997', "
                                                 "image_embedding '9998'"));
  const auto first = std::ranges::find(rows, "0", &roster::registered_model::key);
  CHECK_THAT(first->last_error, Catch::StartsWith("'1': '2': '3': ") && Catch::Contains(" ... ") &&
                                    Catch::Contains("image_embedding '9998': cycle among model loads"));
  for (const auto& row : rows)
    REQUIRE(row.last_error.size() < 1100);
}

TEST_CASE("A circle names all that it leads through, if they are few", "[b39]") {
  asio::io_context loop;
  registry models(loop);
  const int count = GENERATE(2, 3, 8, 9);
  const auto loader = chained(models, count, "0");
  finish(loop, add_numbered(models, count, loader));
  CHECK(failure_of(loop, models.get("0")) == errc::load_failed);
  const auto rows = finish(loop, models.list());
  const auto& message = rows.back().last_error;
  CAPTURE(message);
  CHECK((message.find("through") != std::string::npos) == (count > 2));
  for (int i = 0; i < count; ++i) {
    const bool left_out = count == 9 && i == 4;
    CHECK((message.find('\'' + std::to_string(i) + '\'') == std::string::npos) == left_out);
  }
  CHECK((message.find("... 1 more ...") != std::string::npos) == (count == 9));
}

TEST_CASE("Five thousand loads that wait for one base follow no wait", "[b39]") {
  constexpr int count = 5'000;
  asio::io_context loop;
  registry models(loop);
  test::gate gate(loop);
  const auto derived = [&](load_context& context) -> loading {
    auto other = co_await context.get(models, "base");
    co_return make_model(2);
  };
  finish(loop, models.add("base", model_info(), gated(gate)));
  finish(loop, add_numbered(models, count, derived));
  const auto before = waits_followed();
  int loaded = 0;
  for (int i = 0; i < count; ++i)
    models.async_get(std::to_string(i), [&](std::exception_ptr failure, auto) { loaded += !failure; });
  test::drain(loop);
  CHECK(loaded == 0);
  gate.open();
  test::drain(loop);
  CHECK(loaded == count);
  CHECK(waits_followed() == before);
}

TEST_CASE("A chain of two thousand loads costs the same from whichever end it is asked for", "[b39]") {
  constexpr int count = 2'000;
  asio::io_context loop;
  registry models(loop);
  test::gate gate(loop);
  finish(loop, models.add("base", model_info(), gated(gate)));
  const auto loader = chained(models, count, "base");
  finish(loop, add_numbered(models, count, loader));
  const auto before = waits_followed();
  int loaded = 0;
  const auto ask_for = [&](int key) {
    models.async_get(std::to_string(key), [&](std::exception_ptr failure, auto) { loaded += !failure; });
    test::drain(loop);
  };
  int asked = count;
  SECTION("from its end") {
    for (int i = count - 1; i >= 0; --i)
      ask_for(i);
    CHECK(waits_followed() == before);
  }
  SECTION("from its beginning") {
    asked = 1;
    ask_for(0);
    CHECK(waits_followed() == before);
  }
  SECTION("from everywhere") {
    for (int i = 0; i < count; ++i)
      ask_for(static_cast<int>(i * 7'919LL % count));
    CHECK(waits_followed() - before < 20 * count);
  }
  gate.open();
  test::drain(loop);
  CHECK(loaded == asked);
}

TEST_CASE("A circle that closes where chains meet is found, in whatever order they began", "[b39]") {
  // Each of `count` nodes waits for some others; the order of the waits is random. The oracle follows everything.
  constexpr int count = 12;
  std::minstd_rand random(7);
  int refused = 0, accepted = 0;
  for (int round = 0; round < 200; ++round) {
    std::deque<roster::detail::load_node> nodes;
    for (int i = 0; i < count; ++i)
      nodes.emplace_back(std::to_string(i));
    std::map<std::pair<int, int>, std::unique_ptr<roster::detail::load_wait>> waits;
    const auto reaches = [&](const auto& self, int from, int to) -> bool {
      if (from == to) return true;
      for (const auto& [edge, wait] : waits)
        if (edge.first == from && self(self, edge.second, to)) return true;
      return false;
    };
    for (int step = 0; step < 60; ++step) {
      const int from = static_cast<int>(random() % count), to = static_cast<int>(random() % count);
      if (waits.erase({from, to}) == 1) continue;
      const bool circle = reaches(reaches, to, from);
      const auto code = failure_of([&] {
        waits[{from, to}] = std::make_unique<roster::detail::load_wait>(nodes[static_cast<std::size_t>(from)],
                                                                        nodes[static_cast<std::size_t>(to)]);
      });
      if (code) waits.erase({from, to});
      REQUIRE((code == errc::load_cycle) == circle);
      ++(circle ? refused : accepted);
    }
  }
  CHECK(refused > 100);
  CHECK(accepted > 100);
}
