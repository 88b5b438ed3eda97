#include <roster/capability/image_embedding.hpp>
#include <roster/capability/text_embedding.hpp>
#include <roster/capability/text_to_image.hpp>
#include <roster/capability/text_to_text.hpp>
#include <roster/registry/registry.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace asio = boost::asio;
using roster::engine_for;
using roster::run_context;
using test::finish;

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
  auto grave = std::make_shared<test::witness::log>();
  auto model = std::make_shared<test::ready_model>(3.F, grave);
  auto call = model->embed(roster::image(1, 1));
  model.reset();
  CHECK(grave->empty());
  CHECK(finish(loop, std::move(call)) == roster::embedding{3});
  CHECK(grave->size() == 1);
}
