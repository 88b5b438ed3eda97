#include "tests/faults/scenario.hpp"

#include <roster/roster.hpp>

#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace asio = boost::asio;
using roster::image_embedding;
using roster::text_to_image;
using test::memory::allowed;
using test::memory::check;
using test::memory::construction;
using test::memory::scenario;
using test::memory::where;

namespace {

struct encoder {
  std::size_t dimension() const { return 1; }
  void run(std::span<const roster::image> inputs, const roster::embed_options&, roster::embeddings& outputs,
           roster::run_context&) {
    outputs.resize(inputs.size(), 1);
  }
};

struct painter {
  void run(const roster::image_request&, roster::sink<roster::image_event>& chunks, roster::run_context&) {
    chunks.push(roster::image_step(1, 1));
    chunks.push(roster::image(1, 1));
  }
};

struct ready_model final : image_embedding::model {
  ready_model() : image_embedding::model(roster::model_info("test", "a name that is too long to be stored in place")) {}
  asio::awaitable<roster::embeddings> run(std::vector<roster::image> inputs, roster::embed_options) override {
    co_return roster::embeddings(inputs.size(), 1);
  }
};

asio::awaitable<std::shared_ptr<image_embedding::model>> load(roster::load_context&) {
  co_await asio::post(asio::use_awaitable);
  co_return std::make_shared<ready_model>();
}

constexpr const char* key = "a key that is too long to be stored in place";
constexpr const char* other = "another key that is too long to be stored in place";

using registry = roster::registry<image_embedding>;
using catalog = roster::catalog<image_embedding, text_to_image>;

/// A registry, or a catalog, with models that are there from the start.
template <typename T>
struct construction_with_builtins : scenario {
  const roster::builtin_models<image_embedding> known{{key, roster::model_info("test", "lazy"), load},
                                                      {other, roster::model_info("test", "lazy"), load}};
  void attempt() { const T models(loop.get_executor(), known); }
};

struct loading_scenario : scenario {
  bool expects(const std::exception& e) const { return dynamic_cast<const roster::load_error*>(&e) != nullptr; }
};

/// `other` is there before any attempt, and after.
struct registry_scenario : loading_scenario {
  roster::blocking_pool pool{1};
  registry models{loop};
  registry_scenario() { run(models.add(other, std::make_shared<ready_model>())); }

  bool has(const char* name) { return run(models.contains(name)); }
  std::size_t size() { return run(models.list()).size(); }
  void require(bool holds) const {
    if (!holds) throw std::logic_error("the registry holds something else");
  }
};

/// `Add` adds `key`.
template <auto Add>
struct adding : registry_scenario {
  void attempt() {
    const pause_and_remove after(*this);
    run(Add(*this));
    after.succeeded = true;
  }
  bool as_it_was(bool refused) { return !refused || !was_there; }

  /// The next attempt finds the registry as this one did. What this one left there is noted first.
  struct pause_and_remove {
    explicit pause_and_remove(adding& owner) : self(owner) {}
    pause_and_remove(const pause_and_remove&) = delete;
    pause_and_remove& operator=(const pause_and_remove&) = delete;
    ~pause_and_remove() {
      const auto left = test::memory::left.exchange(-1);
      self.settle();
      self.was_there = self.run(self.models.remove(key));
      if (succeeded && !self.was_there) std::terminate();
      test::memory::left = left;
    }
    adding& self;
    mutable bool succeeded = false;
  };
  bool was_there = false;
};

constexpr auto add_ready = [](auto& self) { return self.models.add(key, std::make_shared<ready_model>()); };
constexpr auto add_with_executor = [](auto& self) {
  return self.models.add(key, std::make_shared<ready_model>(), self.loop.get_executor());
};
constexpr auto add_loader = [](auto& self) { return self.models.add(key, roster::model_info("test", "lazy"), load); };
constexpr auto add_placed = [](auto& self) {
  return self.models.add(key, roster::pooled(self.pool, [] { return encoder(); }));
};

struct add_lazy_and_get : registry_scenario {
  int added = 0;
  void attempt() {
    const auto name = key + std::to_string(added++);
    run(models.add(name, roster::model_info(), load));
    require(static_cast<bool>(run(models.get(name))));
    require(models.try_get(name).has_value());
  }
};

struct get_ready : registry_scenario {
  void attempt() { require(static_cast<bool>(run(models.get(other)))); }
};

struct get_token : registry_scenario {
  void attempt() {
    call([&](auto handler) { models.async_get(other, std::move(handler)); });
  }
};

struct get_lazy : registry_scenario {
  get_lazy() { run(models.add(key, roster::model_info("test", "lazy"), load)); }
  void attempt() { require(static_cast<bool>(run(models.get(key)))); }
};

struct get_lazy_token : get_lazy {
  void attempt() {
    call([&](auto handler) { models.async_get(key, std::move(handler)); });
  }
};

struct preload : get_lazy {
  void attempt() { run(models.preload(key)); }
};

/// A model that is made from another.
struct get_nested : get_lazy {
  static constexpr const char* whole = "a key of a model that is made from another";
  struct loader {
    registry* models;
    asio::awaitable<std::shared_ptr<image_embedding::model>> operator()(roster::load_context& context) const {
      const auto part = co_await context.get(*models, key);
      if (!part) throw std::logic_error("no part");
      co_return std::make_shared<ready_model>();
    }
  };

  get_nested() { run(models.add(whole, roster::model_info("test", "nested"), loader{&models})); }
  void attempt() { require(static_cast<bool>(run(models.get(whole)))); }
};

/// A lookup that is under way when its registry goes.
struct get_orphaned : loading_scenario {
  void attempt() {
    std::optional<registry> models(std::in_place, loop);
    run(models->add(key, roster::model_info("test", "lazy"), load));
    call([&](auto handler) { models->async_get(key, std::move(handler)); }, [&] { models.reset(); });
  }
};

/// `Replace` puts another model in the place of `other`.
template <auto Replace>
struct replacing : registry_scenario {
  void attempt() { run(Replace(*this)); }
  bool as_it_was(bool) { return models.try_get(other).has_value() && size() == 1; }
};

constexpr auto replace_ready = [](auto& self) { return self.models.replace(other, std::make_shared<ready_model>()); };
constexpr auto replace_loaded = [](auto& self) { return self.models.replace(other, roster::model_info("test", "lazy"), load); };
constexpr auto replace_placed = [](auto& self) {
  return self.models.replace(other, roster::pooled(self.pool, [] { return encoder(); }));
};

struct contains : registry_scenario {
  void attempt() { require(has(other) && !has(key)); }
};

struct remove_missing : registry_scenario {
  void attempt() { require(!run(models.remove(key))); }
};

struct remove_one : registry_scenario {
  void attempt() {
    if (has(other)) require(run(models.remove(other)));
  }
  bool as_it_was(bool refused) { return !refused || has(other); }
};

struct list_all : get_lazy {
  void attempt() { require(size() == 2); }
};

struct try_get : registry_scenario {
  void attempt() {
    require(models.try_get(other).has_value());
    require(!models.try_get("no").has_value());
  }
};

struct catalog_scenario : scenario {
  catalog models{loop.get_executor()};
  int added = 0;
  void attempt() {
    const auto name = key + std::to_string(added++);
    run(models.add<image_embedding>(name, std::make_shared<ready_model>()));
    if (!run(models.get<image_embedding>(name))) throw std::logic_error("no model");
  }
};

struct catalog_try_get : catalog_scenario {
  catalog_try_get() { run(models.add<image_embedding>(key, std::make_shared<ready_model>())); }
  void attempt() {
    if (!models.try_get<image_embedding>(key)) throw std::logic_error("no model");
    if (models.try_get<text_to_image>(key)) throw std::logic_error("a model");
  }
};

// --- models

enum class placed { pooled, pinned };

template <placed Where>
struct placed_scenario : scenario {
  roster::blocking_pool pool{1};
  catalog models{loop.get_executor()};

  bool expects(const std::exception& e) const {
    const auto* failure = dynamic_cast<const boost::system::system_error*>(&e);
    return failure && (failure->code() == asio::error::operation_aborted || dynamic_cast<const roster::load_error*>(failure));
  }

  template <typename Capability, typename Engine>
  void add() {
    const auto make = [] { return Engine(); };
    if constexpr (Where == placed::pooled)
      run(models.add<Capability>(key, roster::pooled(pool, make)));
    else
      run(models.add<Capability>(key, roster::pinned(make)));
  }
};

template <placed Where>
struct load_placed : placed_scenario<Where> {
  load_placed() { this->template add<image_embedding, encoder>(); }
  void attempt() { this->run(this->models.template get<image_embedding>(key)); }
};

/// `Use` calls the model.
template <placed Where, auto Use>
struct using_model : load_placed<Where> {
  roster::lease<image_embedding> model = this->run(this->models.template get<image_embedding>(key));
  void attempt() { Use(*this); }
};

constexpr auto embed = [](auto& self) {
  if (self.run(self.model->embed(roster::image(1, 1))).size() != 1) throw std::logic_error("no vector");
};
constexpr auto embed_batch = [](auto& self) {
  std::vector<roster::image> batch(2, roster::image(1, 1));
  if (self.run(self.model->embed(std::move(batch))).rows() != 2) throw std::logic_error("no vectors");
};
constexpr auto call_batch = [](auto& self) {
  std::vector<roster::image> batch(2, roster::image(1, 1));
  if (self.run(self.model->call(std::move(batch), roster::embed_options())).rows() != 2) throw std::logic_error("no vectors");
};
constexpr auto async_call_batch = [](auto& self) {
  std::vector<roster::image> batch(2, roster::image(1, 1));
  self.call([&](auto handler) { self.model->async_call(std::move(batch), roster::embed_options(), std::move(handler)); });
};

template <placed Where>
struct paint : placed_scenario<Where> {
  roster::lease<text_to_image> model;
  paint() {
    this->template add<text_to_image, painter>();
    model = this->run(this->models.template get<text_to_image>(key));
  }
  void attempt() {
    auto events = model->generate(roster::image_request("a seven"));
    for (int i = 0; i < 2; ++i)
      if (!this->run(events.next())) throw std::logic_error("no event");
    if (this->run(events.next())) throw std::logic_error("no end");
  }
};

template <typename Scenario>
void check_threads(const std::string& operation, allowed also) {
  check<Scenario>(operation, also);
  check<Scenario>(operation + ", all threads", also, where::all_threads);
}

template <placed Where>
void check_placed(const std::string& operation) {
  // Not for pinned models, whose load has Asio post to a strand by itself (co_spawn inside a flight): a strand whose post to
  // the loop fails is stuck for ever. Starting a worker, which is what such a load does, is tested in exec.cpp.
  if constexpr (Where == placed::pooled) check_threads<load_placed<Where>>(operation + ", load", allowed::both);
  check_threads<using_model<Where, embed>>(operation + ", embed", allowed::escape);
  check_threads<using_model<Where, embed_batch>>(operation + ", embed, a batch", allowed::escape);
  check_threads<using_model<Where, call_batch>>(operation + ", call", allowed::escape);
  check_threads<using_model<Where, async_call_batch>>(operation + ", async_call", allowed::escape);
  check_threads<paint<Where>>(operation + ", generate", allowed::both);
}

}  // namespace

TEST_CASE("A registry or a catalog whose construction runs out of memory leaves nothing behind") {
  check<construction<registry>>("registry", allowed::nothing);
  check<construction<catalog>>("catalog", allowed::nothing);
  check<construction_with_builtins<registry>>("registry, with built-in models", allowed::nothing);
  check<construction_with_builtins<roster::catalog<image_embedding>>>("catalog, with built-in models", allowed::nothing);
}

TEST_CASE("A change of a registry that runs out of memory changes nothing") {
  check<adding<add_ready>>("add", allowed::escape);
  check<adding<add_with_executor>>("add, destroyed on an executor", allowed::escape);
  check<adding<add_loader>>("add, loaded", allowed::escape);
  check<adding<add_placed>>("add, placed", allowed::escape);
  check<replacing<replace_ready>>("replace", allowed::escape);
  check<replacing<replace_loaded>>("replace, loaded", allowed::both);
  check<replacing<replace_placed>>("replace, placed", allowed::both);
  check<remove_one>("remove", allowed::escape);
  check<remove_missing>("remove, nothing", allowed::escape);
}

TEST_CASE("A lookup that runs out of memory can be repeated") {
  CHECK(test::memory::each_fails<try_get>().points == 0);
  CHECK(test::memory::each_fails<catalog_try_get>().points == 0);
  check<get_ready>("get, ready", allowed::escape);
  check<get_token>("async_get, ready", allowed::escape);
  check<get_lazy>("get, loads", allowed::both);
  check<get_lazy_token>("async_get, loads", allowed::both);
  check<get_nested>("get, loads what a load needs", allowed::both);
  check<get_orphaned>("async_get, of a registry that is destroyed", allowed::both);
  check<preload>("preload", allowed::both);
  check<add_lazy_and_get>("add and get", allowed::both);
  check<contains>("contains", allowed::escape);
  check<list_all>("list", allowed::escape);
  check<catalog_scenario>("catalog", allowed::escape);
}

TEST_CASE("A pooled model never leaks and never hangs, whichever allocation fails") {
  check_placed<placed::pooled>("pooled");
}

TEST_CASE("A pinned model never leaks and never hangs, whichever allocation fails") {
  check_placed<placed::pinned>("pinned");
}
