#include <roster/registry/registry.hpp>
#include <roster/serving/detail/admission_gate.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/policy/admission.hpp>
#include <roster/serving/pooled.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace asio = boost::asio;
using roster::admission;
using roster::errc;
using roster::image;
using roster::image_embedding;
using test::checkpoint;
using test::encoder;
using test::engine_probe;
using test::failure_of;
using test::finish;
using test::maker;
using test::message_of;
using test::spawn;

TEST_CASE("Admission accepts as many calls as may run and wait, and a call that ends makes room for one", "[b12]") {
  admission rules(2, 1);
  CHECK(rules.limit() == 3);
  for (int i = 0; i < 3; ++i)
    CHECK(rules.arrive());
  CHECK_FALSE(rules.arrive());
  CHECK(rules.depth() == 3);  // a refused call leaves the count as it was
  rules.leave();
  CHECK(rules.arrive());
  CHECK_FALSE(rules.arrive());
}

TEST_CASE("With a queue limit of 0 a call is accepted only if the model is idle", "[b12]") {
  admission rules(1, 0);
  CHECK(rules.arrive());
  CHECK_FALSE(rules.arrive());
  rules.leave();
  CHECK(rules.arrive());
}

TEST_CASE("A ticket is given back once, however it travels, and may outlive its owner", "[b12]") {
  auto gate = std::make_shared<roster::detail::admission_gate>(admission(1, 1));
  {
    auto first = gate->enter();
    auto moved = std::move(first);
    std::optional<roster::detail::admission_gate::ticket> second(gate->enter());
    CHECK(gate->depth() == 2);
    CHECK(failure_of([&] { (void)gate->enter(); }) == errc::queue_full);
    CHECK(gate->depth() == 2);
    second.reset();
    CHECK(gate->depth() == 1);
  }
  CHECK(gate->depth() == 0);
  auto last = gate->enter();
  gate.reset();
}

TEST_CASE("A limit as large as it can be is no limit", "[b12]") {
  admission rules(2, std::numeric_limits<std::size_t>::max());
  CHECK(rules.arrive());
  CHECK(rules.arrive());
  CHECK(rules.arrive());
}

TEST_CASE("A refusal comes at once, is typed, says the limit, and changes nothing", "[b12][b41]") {
  engine_probe probe;
  checkpoint busy;
  probe.on_embed = [&](auto inputs, auto& outputs, auto&) {
    busy.pass();
    outputs.resize(inputs.size(), 1);
  };
  asio::io_context loop;
  roster::blocking_pool pool(4);
  roster::registry<image_embedding> models(loop);
  const bool on_pool = GENERATE(true, false);
  if (on_pool)
    finish(loop, models.add("key", roster::pooled(pool, maker<encoder>(probe)).instances(2).queue_limit(1)));
  else
    finish(loop, models.add("key", roster::pinned(maker<encoder>(probe)).queue_limit(2)));
  const auto model = finish(loop, models.get("key"));

  std::vector<test::task<roster::embedding>> accepted;
  for (int i = 0; i < 3; ++i)
    accepted.push_back(spawn(loop, model->embed(image(1, 1))));
  test::drain(loop);
  busy.await(on_pool ? 2 : 1);
  for (int i = 0; i < 10; ++i) {
    auto refused = spawn(loop, model->embed(image(1, 1)));
    test::drain(loop);
    REQUIRE(refused.done());  // no engine had to return for that
    CHECK(refused.code() == errc::queue_full);
  }
  CHECK_THAT(message_of(loop, model->embed(image(1, 1))), Catch::Contains("at most 3 at a time"));
  auto batch = spawn(loop, model->embed(std::vector<image>(5)));
  test::drain(loop);
  CHECK(batch.code() == errc::queue_full);

  busy.open();
  test::run_until(loop, [&] { return std::ranges::all_of(accepted, [](auto& each) { return each.done(); }); });
  for (auto& each : accepted)
    CHECK(each.succeeded());
  CHECK(probe.runs() == 3);
  for (int i = 0; i < 20; ++i)
    CHECK(finish(loop, model->embed(image(1, 1))).size() == 1);
}

TEST_CASE("A call that nobody awaits takes no place", "[b12]") {
  engine_probe probe;
  asio::io_context loop;
  roster::blocking_pool pool(1);
  roster::registry<image_embedding> models(loop);
  finish(loop, models.add("key", roster::pooled(pool, maker<encoder>(probe)).queue_limit(0)));
  const auto model = finish(loop, models.get("key"));
  { auto forgotten = model->embed(image(1, 1)); }
  auto later = model->embed(image(1, 1));
  CHECK(finish(loop, model->embed(image(1, 1))).size() == 1);
  CHECK(finish(loop, std::move(later)).size() == 1);
  CHECK(probe.runs() == 2);
}
