// Capabilities of one's own, in either shape or neither, without a change to any header.

#include <roster/registry/catalog.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace asio = boost::asio;
using test::finish;

namespace {

// A unary capability with words of its own: which class an image is of.

struct classification {
  static constexpr std::string_view name = "classification";
  using input = roster::image;
  using options = roster::call_options;
  using outputs = std::vector<std::string>;
  class model;
};

class classification::model : public roster::unary_model<classification> {
 public:
  using unary_model::unary_model;
  asio::awaitable<std::string> classify(roster::image scan) { return first(call({std::move(scan)}, options())); }

 private:
  static asio::awaitable<std::string> first(asio::awaitable<outputs> all) { co_return (co_await std::move(all)).at(0); }
};

struct classifier {
  void run(std::span<const roster::image> scans, const roster::call_options&, std::vector<std::string>& out,
           roster::run_context&) {
    for (const auto& scan : scans)
      out.push_back(scan.width() > scan.height() ? "landscape" : "portrait");
  }
};

// A streaming capability with nothing but the shape.

struct countdown_request : roster::call_options {
  explicit countdown_request(int start) : from(start) {}
  int from;
};

struct countdown {
  static constexpr std::string_view name = "countdown";
  using request = countdown_request;
  using chunk = int;
  using model = roster::streaming_model<countdown>;
};

struct countdown_engine {
  void run(const countdown_request& request, roster::sink<int>& out, roster::run_context&) {
    for (int i = request.from; i >= 0 && out.push(i); --i) {
    }
  }
};

// A capability of neither shape, whose model knows nothing of roster: text in pieces, both ways.

class conversation {
 public:
  virtual ~conversation() = default;
  virtual asio::awaitable<std::string> reply(std::string line) = 0;
};

struct chat {
  static constexpr std::string_view name = "chat";
  using model = conversation;
};

class echo final : public conversation {
 public:
  asio::awaitable<std::string> reply(std::string line) override { co_return line + '!'; }
};

// A placement of one's own, which puts engines nowhere in particular.

template <typename Engine>
class on_the_loop {
 public:
  explicit on_the_loop(roster::model_info known) : info_(std::move(known)) {}
  const roster::model_info& info() const { return info_; }

  template <typename Capability>
  roster::model_loader<Capability> loader() const {
    const auto load =
        [info = info_](roster::load_context& context) -> asio::awaitable<std::shared_ptr<typename Capability::model>> {
      co_return std::make_shared<model<Capability>>(info, context.key());
    };
    return roster::model_loader<Capability>(load);
  }

 private:
  template <typename Capability>
  struct model final : Capability::model {
    model(roster::model_info known, const std::string& key) : Capability::model(std::move(known)), loaded_as(key) {}
    asio::awaitable<typename Capability::outputs> run(std::vector<typename Capability::input> inputs,
                                                      typename Capability::options options) override {
      typename Capability::outputs outputs;
      roster::run_context context;
      engine.run(inputs, options, outputs, context);
      outputs.push_back(loaded_as);
      co_return outputs;
    }
    Engine engine;
    std::string loaded_as;
  };

  roster::model_info info_;
};

// Until here.

static_assert(roster::unary_capability<classification> && roster::streaming_capability<countdown>);
static_assert(roster::capability<chat> && !roster::unary_capability<chat> && !roster::streaming_capability<chat>);
static_assert(roster::engine_for<classifier, classification> && roster::engine_for<countdown_engine, countdown>);

}  // namespace

TEST_CASE("A unary capability of one's own works on both placements") {
  asio::io_context loop;
  roster::blocking_pool pool(2);
  roster::catalog<roster::image_embedding, classification> models{loop.get_executor()};
  finish(loop, models.add<classification>("pooled", roster::pooled(pool, [] { return classifier(); }).instances(2)));
  finish(loop, models.add<classification>("pinned", roster::pinned([] { return classifier(); })));
  for (const auto* key : {"pooled", "pinned"}) {
    const auto model = finish(loop, models.get<classification>(key));
    CHECK(finish(loop, model->classify(roster::image(2, 1))) == "landscape");
    CHECK(finish(loop, model->classify(roster::image(1, 2))) == "portrait");
  }
}

TEST_CASE("A placement of one's own works wherever the library's do") {
  asio::io_context loop;
  const on_the_loop<classifier> placed(roster::model_info("maker", "classifier"));
  roster::builtin_models<classification> builtin;
  builtin.emplace_back("builtin", placed);
  roster::registry<classification> models(loop, builtin);
  finish(loop, models.add("key", placed));
  CHECK(finish(loop, models.list()).at(0).info.name == "classifier");
  CHECK(finish(loop, models.list()).at(1).info.name == "classifier");
  CHECK(models.try_get("key").error() == roster::errc::not_loaded);
  for (const std::string key : {"key", "builtin"}) {
    const auto model = finish(loop, models.get(key));
    const std::vector<roster::image> scans{roster::image(2, 1)};
    CHECK(finish(loop, model->call(scans, {})) == std::vector<std::string>{"landscape", key});
  }
  const auto old = finish(loop, models.get("key"));
  finish(loop, models.replace("key", placed));
  CHECK_FALSE(models.try_get("key").value() == old);
}

TEST_CASE("A streaming capability of one's own works on both placements") {
  asio::io_context loop;
  roster::blocking_pool pool(1);
  roster::registry<countdown> models(loop);
  finish(loop, models.add("pooled", roster::pooled(pool, [] { return countdown_engine(); })));
  finish(loop, models.add("pinned", roster::pinned([] { return countdown_engine(); })));
  for (const auto* key : {"pooled", "pinned"}) {
    auto numbers = finish(loop, models.get(key))->generate(countdown_request(3));
    std::vector<int> all;
    while (const auto number = finish(loop, numbers.next()))
      all.push_back(*number);
    CHECK(all == std::vector{3, 2, 1, 0});
  }
}

TEST_CASE("A capability of neither shape has a registry like any other") {
  asio::io_context loop;
  asio::io_context elsewhere;
  roster::catalog<chat, classification> models{loop.get_executor()};
  const auto lazy = [](roster::load_context&) -> asio::awaitable<std::shared_ptr<conversation>> {
    co_return std::make_shared<echo>();
  };
  finish(loop, models.add<chat>("ready", std::make_shared<echo>()));
  finish(loop, models.add<chat>("homed", std::make_shared<echo>(), elsewhere.get_executor()));
  finish(loop, models.add<chat>("lazy", roster::model_info("maker", "echo"), lazy));
  for (const auto* key : {"ready", "homed", "lazy"})
    CHECK(finish(loop, finish(loop, models.get<chat>(key))->reply("hello")) == "hello!");
  const auto rows = finish(loop, models.of<chat>().list());
  REQUIRE(rows.size() == 3);
  CHECK(rows[1].info.name == "echo");
  CHECK(rows[1].state == roster::load_state::ready);
  CHECK(finish(loop, models.of<chat>().remove("homed")));
}
