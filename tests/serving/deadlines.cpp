#include <roster/capability/image_embedding.hpp>
#include <roster/capability/text_to_text.hpp>
#include <roster/registry/registry.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>
#include <roster/testing/hand_driven_loop.hpp>
#include <roster/testing/scripted_engine.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <variant>

using namespace std::chrono_literals;
using roster::errc;
using roster::hand_driven_loop;
using roster::image;
using roster::scripted_engine;
using test::spawn;

namespace {

/// A model of one engine that takes one more call, on a pool or on a thread of its own.
template <typename Capability>
struct bounded_model {
  explicit bounded_model(bool on_pool) {
    loop.watch(pool);
    if (on_pool)
      loop.run(models.add("key", roster::pooled(pool, engine.factory()).queue_limit(1)));
    else
      loop.run(models.add("key", roster::pinned(engine.factory()).queue_limit(1)));
    model = loop.run(models.get("key"));
  }

  hand_driven_loop loop;
  roster::blocking_pool pool{1, 16, loop.time()};
  roster::registry<Capability> models{loop.context(), {}, loop.time()};
  scripted_engine<Capability> engine;
  roster::lease<Capability> model;
};

struct bounded_unary : bounded_model<roster::image_embedding> {
  using bounded_model::bounded_model;

  auto call(roster::embed_options options = {}) { return spawn(loop.context(), model->embed(image(1, 1), std::move(options))); }
};

struct bounded_streaming : bounded_model<roster::text_to_text> {
  using bounded_model::bounded_model;

  roster::stream<roster::text_to_text::chunk> call(roster::text_request request = roster::text_request("x")) {
    return model->generate(std::move(request));
  }
};

std::string text_of(const std::optional<roster::text_to_text::chunk>& chunk) {
  return std::get<std::string>(chunk.value());
}

void one_row(std::span<const image> inputs, const roster::embed_options&, roster::embeddings& outputs) {
  outputs.resize(inputs.size(), 1);
}

}  // namespace

TEST_CASE("A call that waits for an engine is told at its deadline and leaves its place, while the engine works on",
          "[b43][b47]") {
  bounded_unary f(GENERATE(true, false));
  f.engine.next_call().wait(100).answer(one_row);
  f.engine.other_calls().answer(one_row);
  auto running = f.call();
  auto late = f.call(roster::embed_options().timeout(1s));
  auto refused = f.call();
  f.loop.run();
  CHECK(refused.code() == errc::queue_full);

  f.loop.advance(999ms);
  CHECK_FALSE(late.done());
  f.loop.advance(1ms);
  CHECK(late.code() == errc::deadline_exceeded);
  auto accepted = f.call();
  f.loop.run();
  CHECK_FALSE(accepted.done());
  CHECK(f.engine.counts().started == 1);
  for (int i = 0; i < 100; ++i)
    f.engine.tick();
  f.loop.run();
  CHECK(running.succeeded());
  CHECK(accepted.succeeded());
  CHECK(f.engine.counts().started == 2);
  CHECK_FALSE(f.loop.time()->next_alarm());
}

TEST_CASE("A call that runs is told at its deadline, the engine is asked to stop, and taken until it has returned",
          "[b43][b70]") {
  bounded_unary f(GENERATE(true, false));
  f.engine.next_call().hang();
  f.engine.other_calls().answer(one_row);
  auto late = f.call(roster::embed_options().timeout(1s));
  auto next = f.call();
  f.loop.advance(1s);
  CHECK(late.code() == errc::deadline_exceeded);
  auto refused = f.call();
  f.loop.run();
  CHECK(refused.code() == errc::queue_full);
  CHECK(f.engine.counts().started == 1);
  CHECK(f.engine.counts().ended == 0);
  CHECK_FALSE(next.done());

  f.engine.tick();
  f.loop.run();
  CHECK(f.engine.counts().stopped == 1);
  CHECK(next.succeeded());
}

TEST_CASE("A stream's deadline covers its wait and its run", "[b22][b43][b70]") {
  bounded_streaming f(GENERATE(true, false));
  f.engine.next_call().push("a").hang();
  f.engine.other_calls().push("b");
  auto running = f.call(roster::text_request("x").timeout(2s));
  auto waiting = f.call(roster::text_request("x").timeout(1s));
  auto late = spawn(f.loop.context(), waiting.next());
  CHECK(text_of(f.loop.run(running.next())) == "a");
  f.loop.advance(1s);
  CHECK(late.code() == errc::deadline_exceeded);
  auto after = f.call();
  auto next = spawn(f.loop.context(), running.next());
  f.loop.advance(1s);
  CHECK(next.code() == errc::deadline_exceeded);
  CHECK(f.engine.counts().ended == 0);
  f.engine.tick();
  CHECK(text_of(f.loop.run(after.next())) == "b");
  CHECK(f.engine.counts().stopped == 1);
  CHECK_FALSE(f.loop.run(running.next()));
  CHECK_FALSE(f.loop.run(waiting.next()));
}
