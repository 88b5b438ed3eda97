#include <roster/capability/image_embedding.hpp>
#include <roster/capability/text_embedding.hpp>
#include <roster/capability/text_to_image.hpp>
#include <roster/capability/text_to_text.hpp>
#include <roster/registry/registry.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>

#include <exception>
#include <future>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

namespace asio = boost::asio;
using roster::engine_for;
using roster::run_context;
using test::finish;
using test::run_until;
using test::spawn;

namespace {

/// The length of each text, and of its instruction.
struct counter {
  std::size_t dimension() const { return 2; }
  void describe(roster::model_info& info) const { info.context_length = 512; }
  void run(std::span<const std::string> texts, const roster::text_embed_options& options, roster::embeddings& out,
           run_context&) {
    out.resize(texts.size(), 2);
    for (std::size_t i = 0; i < texts.size(); ++i) {
      out[i][0] = static_cast<float>(texts[i].size());
      out[i][1] = static_cast<float>(options.instruction().size());
    }
  }
};

/// Notes where it is asked what it knows.
class talkative {
 public:
  explicit talkative(std::vector<std::thread::id>& asked) : asked_(&asked) {}
  std::size_t dimension() const {
    asked_->push_back(std::this_thread::get_id());
    return 3;
  }
  void describe(roster::model_info& info) const {
    asked_->push_back(std::this_thread::get_id());
    info.context_length = info.dimension + 1;
  }

 private:
  std::vector<std::thread::id>* asked_;
};

struct talker : talkative {
  using capability = roster::image_embedding;
  using talkative::talkative;
  void run(std::span<const roster::image>, const roster::embed_options&, roster::embeddings&, run_context&) {}
};

struct talking_painter : talkative {
  using capability = roster::text_to_image;
  using talkative::talkative;
  void run(const roster::image_request&, roster::sink<roster::image_event>&, run_context&) {}
};

/// Says what it was told, word by word.
struct parrot {
  void run(const roster::text_request& request, roster::sink<roster::text_event>& out, run_context&) {
    std::size_t said = 0;
    for (const char letter : request.messages().back().content) {
      if (said == request.max_tokens().value_or(100))
        return void(out.push(roster::text_end(roster::finish_reason::max_tokens, 1, said)));
      if (!out.push(std::string(1, letter))) return;
      ++said;
    }
    out.push(roster::text_end(roster::finish_reason::done, 1, said));
  }
};

struct takes_no_context {
  void run(std::span<const roster::image>, const roster::embed_options&, roster::embeddings&) {}
};
struct constant_engine {
  void run(std::span<const roster::image>, const roster::embed_options&, roster::embeddings&, run_context&) const {}
};
struct nothing {};

static_assert(roster::capability<roster::image_embedding> && roster::capability<roster::text_embedding>);
static_assert(roster::capability<roster::text_to_image> && roster::capability<roster::text_to_text>);
static_assert(engine_for<test::encoder, roster::image_embedding> && engine_for<constant_engine, roster::image_embedding>);
static_assert(engine_for<counter, roster::text_embedding> && engine_for<parrot, roster::text_to_text>);
static_assert(engine_for<test::painter, roster::text_to_image>);
static_assert(!engine_for<counter, roster::image_embedding> && !engine_for<parrot, roster::text_to_image>);
static_assert(!engine_for<takes_no_context, roster::image_embedding> && !engine_for<nothing, roster::text_to_text>);
static_assert(!roster::capability<nothing> && !roster::unary_capability<roster::text_to_text>);

}  // namespace

TEST_CASE("Text embedding: texts and an instruction in, vectors out, on either placement") {
  asio::io_context loop;
  roster::blocking_pool pool(1);
  roster::registry<roster::text_embedding> models(loop);
  finish(loop,
         models.add("pooled", roster::pooled(pool, [] { return counter(); }).info(roster::model_info("maker", "counter"))));
  finish(loop, models.add("pinned", roster::pinned([] { return counter(); })));

  for (const auto* key : {"pooled", "pinned"}) {
    const auto model = finish(loop, models.get(key));
    CHECK(model->dimension() == 2);
    CHECK(model->info().context_length == 512);
    const std::vector<std::string> texts{"one", "three"};
    const auto rows = finish(loop, model->embed(texts, roster::text_embed_options().instruction("query")));
    CHECK(rows[1][0] == 5);
    CHECK(rows[1][1] == 5);
    CHECK(finish(loop, model->embed(std::string("four"))) == roster::embedding{4, 0});
  }
  const auto rows = finish(loop, models.list());
  CHECK(rows[1].info.name == "counter");
  CHECK(rows[1].info.dimension == 2);
}

TEMPLATE_TEST_CASE("An engine tells what it knows where it runs, when a load has made it", "", talker, talking_painter) {
  using capability = typename TestType::capability;
  std::vector<std::thread::id> asked;
  std::thread::id made_on;
  asio::io_context loop;
  roster::blocking_pool pool(1);
  roster::registry<capability> models(loop);
  const auto make = [&] {
    made_on = std::this_thread::get_id();
    return TestType(asked);
  };
  roster::model_info known("maker", "name");
  known.licence = "MIT";
  const bool on_a_pool = GENERATE(true, false);
  if (on_a_pool)
    finish(loop, models.add("key", roster::pooled(pool, make).info(known)));
  else
    finish(loop, models.add("key", roster::pinned(make).info(known)));
  CHECK(finish(loop, models.list()).at(0).info.licence == "MIT");
  CHECK(asked.empty());

  const auto model = finish(loop, models.get("key"));
  CHECK(asked == std::vector(2, made_on));
  CHECK(made_on != std::this_thread::get_id());
  const auto listed = finish(loop, models.list()).at(0).info;
  for (const auto* info : {&model->info(), &listed}) {
    CHECK(info->name == "name");
    CHECK(info->licence == "MIT");
    CHECK(info->dimension == 3);
    CHECK(info->context_length == 4);  // `describe` sees the dimension
  }
}

TEST_CASE("Text to text: pieces, then why it ended and what it cost") {
  asio::io_context loop;
  roster::registry<roster::text_to_text> models(loop);
  finish(loop, models.add("parrot", roster::pinned([] { return parrot(); })));
  const auto model = finish(loop, models.get("parrot"));
  auto answer = model->generate(roster::text_request("hello").max_tokens(4));
  std::string said;
  std::vector<roster::text_end> ends;
  while (auto event = finish(loop, answer.next())) {
    if (auto* piece = std::get_if<std::string>(&*event))
      said += *piece;
    else
      ends.push_back(std::get<roster::text_end>(*event));
  }
  CHECK(said == "hell");
  REQUIRE(ends.size() == 1);
  CHECK(ends[0].reason == roster::finish_reason::max_tokens);
  CHECK(ends[0].completion_tokens == 4);
}

TEST_CASE("An engine can be tried out without Asio, a registry, or a thread") {
  struct collector final : roster::sink<roster::text_event> {
    bool push(roster::text_event chunk) override {
      all.push_back(std::move(chunk));
      return all.size() < 2;
    }
    std::vector<roster::text_event> all;
  } collected;
  run_context context;
  parrot().run(roster::text_request("hello"), collected, context);
  CHECK(collected.all.size() == 2);
}

TEST_CASE("A model that an application made itself answers without any registry, also on the stack") {
  asio::io_context loop;
  test::ready_model model(3);
  CHECK(finish(loop, model.embed(roster::image(1, 1))) == roster::embedding{3});
  const roster::lease<roster::image_embedding> lease(test::make_model(4));
  CHECK(test::ask(loop, lease) == 4);
}

TEST_CASE("A model that gives no vector for an item has a bad output") {
  asio::io_context loop;
  struct empty_handed final : roster::image_embedding::model {
    asio::awaitable<roster::embeddings> run(std::vector<roster::image>, roster::embed_options) override {
      co_return roster::embeddings(0, 128);
    }
  };
  empty_handed model;
  CHECK(test::failure_of(loop, model.embed(roster::image(1, 1))) == roster::errc::bad_output);
}

TEST_CASE("A call keeps a model that an application made itself") {
  asio::io_context loop;
  auto destroyed_log = std::make_shared<test::destruction_logger::log>();
  auto model = std::make_shared<test::ready_model>(3.F, destroyed_log);
  auto call = model->embed(roster::image(1, 1));
  model.reset();
  CHECK(destroyed_log->empty());
  CHECK(finish(loop, std::move(call)) == roster::embedding{3});
  CHECK(destroyed_log->size() == 1);
}

TEST_CASE("A call started on the executor that its handler is for does not complete inside that call") {
  asio::io_context loop;
  const auto model = test::make_model(3);
  bool starting = false;
  std::vector<std::size_t> rows;
  const auto handler = [&](std::exception_ptr, const roster::embeddings& outputs) {
    CHECK_FALSE(starting);
    rows.push_back(outputs.rows());
  };
  const auto start = [&] {
    starting = true;
    for (const std::size_t count : {0U, 2U})
      model->async_call(std::vector<roster::image>(count), roster::embed_options(), asio::bind_executor(loop, handler));
    starting = false;
  };
  asio::post(loop, start);
  test::drain(loop);
  CHECK(rows == std::vector<std::size_t>{0, 2});
}

TEST_CASE("A call whose handler has no executor needs no loop: it completes on the system's threads") {
  const auto model = test::make_model(3);
  std::promise<std::thread::id> told;
  const auto handler = [&](std::exception_ptr, const roster::embeddings&) { told.set_value(std::this_thread::get_id()); };
  model->async_call(std::vector<roster::image>(1), roster::embed_options(), handler);
  CHECK(told.get_future().get() != std::this_thread::get_id());
}

TEST_CASE("A call with a handler is cancelled terminally, or not at all") {
  asio::io_context loop;
  struct patient final : roster::image_embedding::model {
    explicit patient(asio::io_context& loop) : gate(loop) {}
    asio::awaitable<roster::embeddings> run(std::vector<roster::image>, roster::embed_options) override {
      co_await gate.wait();
      co_return roster::embeddings(1, 1);
    }
    test::gate gate;
  };
  patient model(loop);
  asio::cancellation_signal signal;
  int calls = 0;
  std::exception_ptr outcome;
  const auto handler = [&](std::exception_ptr failure, const roster::embeddings&) {
    ++calls;
    outcome = failure;
  };
  model.async_call(std::vector<roster::image>(1), roster::embed_options(),
                   asio::bind_cancellation_slot(signal.slot(), asio::bind_executor(loop, handler)));
  test::drain(loop);
  REQUIRE(model.gate.waiting() == 1);
  signal.emit(asio::cancellation_type::partial | asio::cancellation_type::total);
  test::drain(loop);
  CHECK(calls == 0);
  signal.emit(asio::cancellation_type::terminal);
  test::drain(loop);
  CHECK(calls == 1);
  CHECK(test::code_of(outcome) == asio::error::operation_aborted);
}

TEST_CASE("A call resumes its caller where that runs, wherever its model does") {
  test::engine_probe probe;
  asio::io_context loop;
  const auto strand = asio::make_strand(loop);
  test::loop_thread home;
  roster::blocking_pool pool(1);
  roster::registry<roster::image_embedding> encoders(home.context());
  roster::registry<roster::text_to_image> painters(home.context());
  const bool on_a_pool = GENERATE(true, false);
  if (on_a_pool) {
    finish(loop, encoders.add("key", roster::pooled(pool, test::maker<test::encoder>(probe))));
    finish(loop, painters.add("key", roster::pooled(pool, test::maker<test::painter>(probe))));
  } else {
    finish(loop, encoders.add("key", roster::pinned(test::maker<test::encoder>(probe))));
    finish(loop, painters.add("key", roster::pinned(test::maker<test::painter>(probe))));
  }
  int at_home = 0;
  const auto use = [&]() -> asio::awaitable<void> {
    const auto here = [&] { at_home += strand.running_in_this_thread(); };
    const auto encoder = co_await encoders.get("key");
    here();
    const auto painter = co_await painters.get("key");
    here();
    (void)co_await encoder->embed(roster::image(1, 1));
    here();
    auto refused = painter->generate(roster::image_request("x").on("nowhere"));
    try {
      (void)co_await refused.next();
    } catch (const roster::error&) {
      here();
    }
    auto drawing = painter->generate(roster::image_request("x").steps(1));
    while (co_await drawing.next())
      here();
    here();
  };
  auto used = spawn(strand, use());
  run_until(loop, [&] { return used.done(); });
  CHECK(used.succeeded());
  CHECK(at_home == 7);
}
