#include <roster/capability/text_to_text.hpp>
#include <roster/registry/catalog.hpp>
#include <roster/serving/pinned.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <memory>
#include <string>
#include <utility>

namespace asio = boost::asio;
using roster::errc;
using roster::image_embedding;
using roster::load_state;
using roster::model_info;
using roster::text_to_image;
using test::ask;
using test::failure_of;
using test::finish;
using test::make_model;
using registry = roster::registry<image_embedding>;
using loading = asio::awaitable<registry::model_ptr>;

namespace {

/// Draws nothing.
class blank final : public roster::streaming_model<text_to_image> {
 private:
  roster::stream<roster::image_event> run(roster::image_request) override { throw roster::error(errc::invalid_input); }
};

auto loader_of(int& loads, float number) {
  return [&loads, number](roster::load_context&) -> loading {
    ++loads;
    co_return make_model(number);
  };
}

}  // namespace

TEST_CASE("The same key under two capabilities names two models that have nothing to do with each other", "[b29]") {
  asio::io_context loop;
  roster::catalog<image_embedding, text_to_image> models{loop.get_executor()};
  finish(loop, models.add<image_embedding>("key", make_model(1)));
  CHECK(failure_of(loop, models.get<text_to_image>("key")) == errc::not_found);
  finish(loop, models.add<text_to_image>("key", std::make_shared<blank>()));
  CHECK(failure_of(loop, models.add<text_to_image>("key", std::make_shared<blank>())) == errc::already_exists);

  CHECK(ask(loop, finish(loop, models.get<image_embedding>("key"))) == 1);
  CHECK(models.try_get<text_to_image>("key").has_value());
  CHECK(finish(loop, models.of<text_to_image>().remove("key")));
  CHECK(models.try_get<text_to_image>("key").error() == errc::not_found);
  CHECK(models.try_get<image_embedding>("key").has_value());
}

TEST_CASE("A catalog passes everything on: placements, loaders, executors and cancellation") {
  asio::io_context loop;
  int loads = 0;
  roster::catalog<image_embedding> models{loop.get_executor()};
  finish(loop, models.add<image_embedding>("lazy", model_info("maker", "lazy"), loader_of(loads, 2)));
  finish(loop, models.add<image_embedding>("ready", make_model(3), loop.get_executor()));
  CHECK(ask(loop, finish(loop, models.get<image_embedding>("lazy"))) == 2);
  CHECK(ask(loop, finish(loop, models.get<image_embedding>("ready"))) == 3);
  CHECK(models.of<image_embedding>().get_executor() == loop.get_executor());
}

TEST_CASE("A catalog lists the models of all its capabilities, with their names") {
  asio::io_context loop;
  roster::catalog<text_to_image, image_embedding> models{loop.get_executor()};
  finish(loop, models.add<image_embedding>("b", make_model(1)));
  finish(loop, models.add<image_embedding>("a", make_model(2)));
  finish(loop, models.add<text_to_image>("c", std::make_shared<blank>()));
  const auto rows = finish(loop, models.list());
  REQUIRE(rows.size() == 3);
  CHECK(rows[0].capability == "text_to_image");
  CHECK(rows[0].model.key == "c");
  CHECK(rows[1].capability == "image_embedding");
  CHECK(rows[1].model.key == "a");
  CHECK(rows[1].model.info.name == "2");
  CHECK(rows[2].model.key == "b");
  CHECK(to_string(rows[2].model.state) == "ready");
}

TEST_CASE("A catalog may be destroyed while it is listed") {
  asio::io_context loop;
  auto models = std::make_unique<roster::catalog<image_embedding>>(loop.get_executor());
  finish(loop, models->add<image_embedding>("a", make_model(1)));
  auto listing = models->list();
  models.reset();
  CHECK(finish(loop, std::move(listing)).size() == 1);
}

TEST_CASE("A registry is found by the name of its capability") {
  asio::io_context loop;
  roster::catalog<image_embedding, text_to_image> models{loop.get_executor()};
  finish(loop, models.add<text_to_image>("key", std::make_shared<blank>()));
  const auto has_key = [](auto& found) { return found.contains("key"); };
  CHECK(finish(loop, models.visit("text_to_image", has_key)));
  CHECK_FALSE(finish(loop, models.visit("image_embedding", has_key)));
  const void* visited = nullptr;
  models.visit("image_embedding", [&](auto& found) { visited = &found; });
  CHECK(visited == &models.of<image_embedding>());
  const auto executor_of = [](auto& found) -> const asio::any_io_executor& { return found.get_executor(); };
  CHECK(&models.visit("text_to_image", executor_of) == &models.of<text_to_image>().get_executor());
  CHECK(failure_of([&] { (void)models.visit("text_embedding", has_key); }) == errc::not_found);
}

TEST_CASE("Each state of a model has a name") {
  CHECK(to_string(load_state::unloaded) == "unloaded");
  CHECK(to_string(load_state::loading) == "loading");
  CHECK(to_string(load_state::ready) == "ready");
  CHECK(to_string(load_state::failed) == "failed");
}

TEST_CASE("Built-in models show wherever nothing else is registered, and again once that is removed", "[b34]") {
  asio::io_context loop;
  int builtin_loads = 0, own_loads = 0;
  roster::builtin_models<image_embedding> builtin;
  builtin.emplace_back("key", model_info("maker", "builtin"), loader_of(builtin_loads, 1));
  registry models(loop, builtin);

  CHECK(finish(loop, models.contains("key")));
  CHECK(ask(loop, finish(loop, models.get("key"))) == 1);

  finish(loop, models.add("key", model_info("maker", "own"), loader_of(own_loads, 2)));
  CHECK(models.try_get("key").error() == errc::not_loaded);  // the default does not shine through
  CHECK(ask(loop, finish(loop, models.get("key"))) == 2);
  auto rows = finish(loop, models.list());
  REQUIRE(rows.size() == 1);
  CHECK_FALSE(rows[0].builtin);
  CHECK(failure_of(loop, models.add("key", make_model(3))) == errc::already_exists);

  CHECK(finish(loop, models.remove("key")));
  CHECK(ask(loop, finish(loop, models.get("key"))) == 1);
  CHECK(builtin_loads == 1);
  rows = finish(loop, models.list());
  REQUIRE(rows.size() == 1);
  CHECK(rows[0].builtin);
  CHECK(rows[0].state == load_state::ready);
}

TEST_CASE("A built-in model may be given by its placement, which says what it is and makes it", "[b34]") {
  test::engine_probe probe;
  asio::io_context loop;
  roster::builtin_models<image_embedding> builtin;
  builtin.emplace_back("key", roster::pinned(test::maker<test::encoder>(probe)).info(model_info("maker", "builtin")));
  registry models(loop, builtin);
  CHECK(finish(loop, models.list()).at(0).info.name == "builtin");
  CHECK(probe.attempts() == 0);
  CHECK(ask(loop, finish(loop, models.get("key"))) == 1);
  CHECK(finish(loop, models.list()).at(0).info.dimension == 1);
}

TEST_CASE("Built-in models can be neither removed nor replaced", "[b34]") {
  asio::io_context loop;
  int loads = 0;
  roster::builtin_models<image_embedding> builtin;
  builtin.emplace_back("key", model_info("maker", "builtin"), loader_of(loads, 1));
  registry models(loop, builtin);
  CHECK_FALSE(finish(loop, models.remove("key")));
  CHECK(failure_of(loop, models.replace("key", make_model(2))) == errc::not_found);
  CHECK(ask(loop, finish(loop, models.get("key"))) == 1);
}

TEST_CASE("A table of built-in models with an empty or repeated key is refused", "[b34]") {
  asio::io_context loop;
  int loads = 0;
  roster::builtin_models<image_embedding> builtin;
  builtin.emplace_back("key", model_info(), loader_of(loads, 1));
  builtin.emplace_back("key", model_info(), loader_of(loads, 2));
  CHECK(failure_of([&] { registry models(loop, builtin); }) == errc::already_exists);
  builtin.back().key.clear();
  CHECK(failure_of([&] { registry models(loop, builtin); }) == errc::invalid_argument);
}

TEST_CASE("Each registry loads built-in models for itself, and a catalog has a table for each capability", "[b34]") {
  asio::io_context loop;
  int loads = 0;
  roster::builtin_models<image_embedding> builtin;
  builtin.emplace_back("key", model_info(), loader_of(loads, 1));
  const roster::builtin_models<text_to_image> none;
  roster::catalog<image_embedding, text_to_image> first(loop.get_executor(), builtin, none);
  roster::catalog<image_embedding, text_to_image> second(loop.get_executor(), builtin, none);
  finish(loop, first.get<image_embedding>("key"));
  CHECK(second.try_get<image_embedding>("key").error() == errc::not_loaded);
  finish(loop, second.get<image_embedding>("key"));
  CHECK(loads == 2);
  CHECK(first.try_get<text_to_image>("key").error() == errc::not_found);
}

TEST_CASE("A built-in model that fails to load reports that, and is tried again", "[b34]") {
  asio::io_context loop;
  int loads = 0;
  roster::builtin_models<image_embedding> builtin;
  const auto second_time = [&](roster::load_context&) -> loading {
    if (++loads == 1) throw std::runtime_error("not downloaded");
    co_return make_model(1);
  };
  builtin.emplace_back("key", model_info(), second_time);
  registry models(loop, builtin);
  CHECK(failure_of(loop, models.get("key")) == errc::load_failed);
  CHECK(finish(loop, models.list()).at(0).last_error == "not downloaded");
  CHECK(ask(loop, finish(loop, models.get("key"))) == 1);
}
