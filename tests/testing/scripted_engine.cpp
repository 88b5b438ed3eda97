#include <roster/capability/text_embedding.hpp>
#include <roster/capability/text_to_text.hpp>
#include <roster/registry/registry.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>
#include <roster/testing/hand_driven_loop.hpp>
#include <roster/testing/scripted_engine.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

using roster::hand_driven_loop;
using roster::scripted_engine;
using roster::text_embedding;
using test::spawn;

namespace {

/// Chunks that are numbers.
struct counting {
  static constexpr std::string_view name = "counting";
  using request = roster::call_options;
  using chunk = int;
  using model = roster::streaming_model<counting>;
};

void lengths(std::span<const std::string> inputs, const roster::text_embed_options&, roster::embeddings& outputs) {
  outputs.resize(inputs.size(), 1);
  for (std::size_t i = 0; i < inputs.size(); ++i)
    outputs[i][0] = static_cast<float>(inputs[i].size());
}

template <typename Capability>
struct scripted {
  explicit scripted(std::size_t threads = 1) : pool(threads, 16, loop.time()) {
    loop.watch(pool);
    loop.run(models.add("key", roster::pooled(pool, engine.factory()).instances(threads)));
    model = loop.run(models.get("key"));
  }

  auto call(std::string text) {
    auto begun = spawn(loop.context(), model->embed(std::move(text)));
    loop.run();
    return begun;
  }

  void tick() {
    engine.tick();
    loop.run();
  }

  hand_driven_loop loop;
  roster::blocking_pool pool;
  roster::registry<Capability> models{loop.context()};
  scripted_engine<Capability> engine;
  roster::lease<Capability> model;
};

}  // namespace

TEST_CASE("A call lasts as many ticks as its script says, and answers from its inputs", "[time]") {
  scripted<text_embedding> made;
  made.engine.next_call().wait(2).answer(lengths);
  auto call = made.call("seven");
  made.tick();
  CHECK_FALSE(call.done());
  made.tick();
  CHECK(call.value() == roster::embedding{5});
}

TEST_CASE("Calls take scripts in the order they start, and then the one for all others", "[time]") {
  scripted<text_embedding> made;
  made.engine.other_calls().answer(lengths);
  made.engine.next_call().fail(std::runtime_error("out of memory"));
  made.engine.next_call().fail(42);
  made.engine.next_call().fail(std::make_exception_ptr(std::logic_error("kept")));
  CHECK_THROWS_WITH(made.loop.run(made.model->embed("a")), "out of memory");
  CHECK_THROWS_AS(made.loop.run(made.model->embed("a")), int);
  CHECK_THROWS_WITH(made.loop.run(made.model->embed("a")), "kept");
  CHECK(made.call("ab").value() == roster::embedding{2});
  CHECK(made.call("abc").value() == roster::embedding{3});
  const auto seen = made.engine.counts();
  CHECK(seen == roster::scripted_engine_counts{1, 0, 5, 5, 0, 1});
}

TEST_CASE("A call that is asked to stop ends at its next tick, unless its script ignores it", "[time]") {
  scripted<text_embedding> made;
  made.engine.next_call().hang();
  made.engine.next_call().wait(2).answer(lengths).ignore_stop();
  auto obeys = made.call("a");
  obeys.cancel();
  made.loop.run();
  CHECK(obeys.aborted());
  CHECK(made.engine.counts().ended == 0);
  made.tick();
  CHECK(made.engine.counts().ended == 1);
  CHECK(made.engine.counts().stopped == 1);

  auto ignores = made.call("a");
  ignores.cancel();
  made.tick();
  CHECK(made.engine.counts().ended == 1);
  made.tick();
  CHECK(made.engine.counts().ended == 2);
  CHECK(made.engine.counts().stopped == 1);
}

TEST_CASE("Chunks come where the script has them, and then its end or failure", "[time]") {
  scripted<counting> made;
  made.engine.next_call().push(1).wait(1).push(2).push(3);
  auto stream = made.model->generate({});
  made.loop.run();
  CHECK(made.loop.run(stream.next()) == 1);
  CHECK_THROWS_AS(made.loop.run(stream.next()), std::logic_error);
  made.tick();
  CHECK(made.loop.run(stream.next()) == 3);  // the wait that could not end has taken the second
  CHECK(made.loop.run(stream.next()) == std::nullopt);

  made.engine.next_call().push(1).fail(std::runtime_error("broken"));
  auto fails = made.model->generate({});
  CHECK(made.loop.run(fails.next()) == 1);
  CHECK_THROWS_WITH(made.loop.run(fails.next()), "broken");
}

TEST_CASE("A stream that nobody wants ends its call at the next chunk, unless the script ignores that", "[time]") {
  scripted<counting> made;
  made.engine.next_call().wait(1).push(1).wait(5);
  made.engine.next_call().wait(1).push(1).wait(1).ignore_stop();
  for (const std::size_t ticks : {1U, 2U}) {
    const auto before = made.engine.counts().ended;
    auto stream = std::make_optional(made.model->generate({}));
    made.loop.run();
    stream.reset();
    for (std::size_t i = 1; i <= ticks; ++i) {
      made.tick();
      CHECK(made.engine.counts().ended == before + (i == ticks));
    }
  }
}

TEST_CASE("Several engines follow one script, and are counted", "[time]") {
  scripted<text_embedding> made(2);
  made.engine.other_calls().wait(1).answer(lengths);
  auto first = made.call("a"), second = made.call("b"), third = made.call("c");
  CHECK(made.engine.counts().started == 2);
  made.tick();
  CHECK((first.succeeded() && second.succeeded()));
  made.tick();
  CHECK(third.succeeded());
  made.loop.run(made.models.remove("key"));
  made.model = {};
  made.loop.run();
  CHECK(made.engine.counts() == roster::scripted_engine_counts{2, 2, 3, 3, 0, 2});
}

TEST_CASE("The end of the script releases calls that hang, which end as cancelled", "[time]") {
  hand_driven_loop loop;
  roster::blocking_pool pool(1);
  loop.watch(pool);
  roster::registry<text_embedding> models(loop.context());
  std::optional<scripted_engine<text_embedding>> engine(std::in_place);
  engine->next_call().hang();
  loop.run(models.add("key", roster::pooled(pool, engine->factory())));
  auto model = loop.run(models.get("key"));
  auto hangs = spawn(loop.context(), model->embed("a"));
  loop.run();
  CHECK_FALSE(hangs.done());
  engine.reset();
  loop.run();
  CHECK(hangs.aborted());
}

TEST_CASE("An engine can be asked without a placement: nothing waits for its thread", "[time]") {
  scripted_engine<counting> script;
  script.next_call().push(7);
  auto engine = script.factory()();
  struct : roster::sink<int> {
    bool push(int chunk) override {
      got.push_back(chunk);
      return true;
    }
    std::vector<int> got;
  } out;
  roster::run_context context;
  engine.run(roster::call_options(), out, context);
  CHECK(out.got == std::vector<int>{7});
}
