#include <roster/registry/registry.hpp>
#include <roster/serving/pooled.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <vector>

namespace asio = boost::asio;
using namespace std::string_literals;
using roster::errc;
using roster::image_embedding;
using roster::load_state;
using roster::model_info;
using test::ask;
using test::failure_of;
using test::finish;
using test::make_model;
using test::message_of;
using test::run_until;
using test::spawn;
using registry = roster::registry<image_embedding>;
using lease = roster::lease<image_embedding>;
using model_ptr = registry::model_ptr;

namespace {

auto loader_of(float number) {
  return [number](roster::load_context&) -> asio::awaitable<model_ptr> { co_return make_model(number); };
}

/// A model that is asked, not told, and changes by that.
struct asked {
  static constexpr std::string_view name = "asked";
  struct model {
    model_info info() { return model_info("maker", std::to_string(++times)); }
    int times = 0;
  };
};

}  // namespace

TEST_CASE("Of two registrations of one key exactly one succeeds, and its model is the one found", "[b28]") {
  asio::io_context loop;
  registry models(loop);

  auto first = spawn(loop, models.add("key", make_model(1)));
  auto second = spawn(loop, models.add("key", make_model(2)));
  test::drain(loop);

  REQUIRE(first.done());
  REQUIRE(second.done());
  CHECK(first.succeeded() != second.succeeded());
  CHECK((first.succeeded() ? second : first).code() == errc::already_exists);
  CHECK(ask(loop, finish(loop, models.get("key"))) == (first.succeeded() ? 1.F : 2.F));
}

TEST_CASE("A model that was registered with an executor cannot be so again before it is gone from there", "[b36]") {
  asio::io_context loop;
  registry models(loop);
  const auto model = make_model(1);
  finish(loop, models.add("key", model, loop.get_executor()));
  CHECK_THROWS_WITH((void)models.add("other", model, loop.get_executor()), Catch::Contains("already registered"));
  CHECK(failure_of(loop, models.get("other")) == errc::not_found);
  CHECK(finish(loop, models.remove("key")));
  test::drain(loop);
  finish(loop, models.add("other", model, loop.get_executor()));
  CHECK(ask(loop, finish(loop, models.get("other"))) == 1.F);
}

TEST_CASE("A change that waits for its turn does not need the loop of the coroutine that asked for it", "[b31][b38]") {
  test::loop_thread home;
  registry models(home.context());
  std::atomic<bool> enough{false};
  const auto churn = [&]() -> asio::awaitable<void> {
    while (!enough) {
      co_await models.add("churned", make_model(1));
      co_await models.remove("churned");
    }
  };
  auto churning = asio::co_spawn(home.context(), churn, asio::use_future);

  // Until some change has met one of the others, and waits. Then its loop is not run again.
  asio::io_context stalled;
  std::vector<test::task<void>> changes;
  do {
    changes.push_back(spawn(stalled, models.add(std::to_string(changes.size()), make_model(2))));
    stalled.restart();
    stalled.poll();
  } while (changes.back().done());
  enough = true;
  churning.get();

  asio::io_context loop;
  const auto key = std::to_string(changes.size() - 1);
  while (!finish(loop, models.contains(key))) {
  }
  CHECK(finish(loop, models.list()).size() == changes.size());
  CHECK(finish(loop, models.remove(key)));
  run_until(stalled, [&] { return changes.back().done(); });
  CHECK(changes.back().succeeded());
}

TEST_CASE("Of many registrations of one key from several threads exactly one succeeds", "[b28]") {
  for (int round = 0; round < 50; ++round) {
    asio::thread_pool threads(2);
    registry models(asio::any_io_executor(threads.get_executor()));
    std::atomic<int> winner{0}, winners{0}, losers{0};
    for (int i = 1; i <= 8; ++i)
      asio::co_spawn(threads, models.add("key", make_model(static_cast<float>(i))), [&, i](std::exception_ptr failure) {
        if (!failure) {
          winner = i;
          ++winners;
        } else if (test::code_of(failure) == errc::already_exists) {
          ++losers;
        }
      });
    threads.join();
    CHECK(winners == 1);
    CHECK(losers == 7);
    CHECK(models.try_get("key").value()->info().name == std::to_string(winner));
  }
}

TEST_CASE("An unknown key is not found, by any kind of lookup", "[b30]") {
  asio::io_context loop;
  registry models(loop);
  finish(loop, models.add("known", make_model(1)));

  CHECK(failure_of(loop, models.get("unknown")) == errc::not_found);
  CHECK_THAT(message_of(loop, models.get("unknown")), Catch::Contains("'unknown'"));
  CHECK(models.try_get("unknown").error() == errc::not_found);
  CHECK(failure_of(loop, models.preload("unknown")) == errc::not_found);
  CHECK_FALSE(finish(loop, models.contains("unknown")));
  CHECK_FALSE(finish(loop, models.remove("unknown")));
  CHECK(failure_of(loop, models.replace("unknown", make_model(2))) == errc::not_found);
  CHECK(finish(loop, models.list()).size() == 1);
}

TEST_CASE("While a model is registered or removed a lookup finds all of it or nothing, and waits for no load", "[b31]") {
  asio::io_context loop;
  registry models(loop);
  test::gate gate(loop);
  auto slow = [&](roster::load_context&) -> asio::awaitable<model_ptr> {
    co_await gate.wait();
    co_return make_model(1);
  };
  finish(loop, models.add("slow", model_info(), slow));
  auto load = spawn(loop, models.get("slow"));
  test::drain(loop);
  REQUIRE(gate.waiting() == 1);

  CHECK(models.try_get("new").error() == errc::not_found);
  auto add = models.add("new", model_info("maker", "name"), loader_of(2));
  CHECK(models.try_get("new").error() == errc::not_found);  // not awaited yet
  finish(loop, std::move(add));
  CHECK(models.try_get("new").error() == errc::not_loaded);
  CHECK(ask(loop, finish(loop, models.get("new"))) == 2);

  CHECK(models.try_get("slow").error() == errc::not_loaded);
  CHECK(finish(loop, models.contains("slow")));
  CHECK(finish(loop, models.list()).size() == 2);
  CHECK(finish(loop, models.remove("slow")));
  CHECK(models.try_get("slow").error() == errc::not_found);
  CHECK_FALSE(load.done());

  gate.open();
  test::drain(loop);
  CHECK(ask(loop, load.value()) == 1);
}

TEST_CASE("After remove and add, old leases use the old model and lookups find only the new one", "[b32]") {
  asio::io_context loop;
  registry models(loop);
  finish(loop, models.add("key", make_model(1)));
  const auto old = finish(loop, models.get("key"));

  CHECK(finish(loop, models.remove("key")));
  CHECK(ask(loop, old) == 1);
  finish(loop, models.add("key", make_model(2)));

  const auto fresh = finish(loop, models.get("key"));
  CHECK(ask(loop, old) == 1);
  CHECK(ask(loop, fresh) == 2);
  CHECK_FALSE(old == fresh);
  CHECK(fresh == models.try_get("key").value());
}

TEST_CASE("Removing and adding a lazy model again loads it again", "[b32]") {
  asio::io_context loop;
  registry models(loop);
  int loads = 0;
  auto counting = [&](roster::load_context&) -> asio::awaitable<model_ptr> {
    ++loads;
    co_return make_model(1);
  };
  for (int i = 1; i <= 2; ++i) {
    finish(loop, models.add("key", model_info(), counting));
    finish(loop, models.preload("key"));
    finish(loop, models.preload("key"));
    CHECK(loads == i);
    finish(loop, models.remove("key"));
  }
}

TEST_CASE("Keys are arbitrary bytes, of any length but none", "[b35]") {
  asio::io_context loop;
  registry models(loop);
  std::string every_byte;
  for (int i = 0; i < 256; ++i)
    every_byte.push_back(static_cast<char>(i));
  const std::vector<std::string> keys{
      "a\0b"s, "a\0c"s, "a"s, "\0"s, every_byte, std::string(1 << 20, 'x'), std::string(1 << 20, 'x') + "y"};

  for (std::size_t i = 0; i < keys.size(); ++i)
    finish(loop, models.add(keys[i], make_model(static_cast<float>(i))));
  for (std::size_t i = 0; i < keys.size(); ++i)
    CHECK(ask(loop, finish(loop, models.get(keys[i]))) == static_cast<float>(i));
  const auto rows = finish(loop, models.list());
  CHECK(rows.size() == keys.size());
  for (const auto& row : rows)
    CHECK(std::ranges::count(keys, row.key) == 1);
  for (const auto& key : keys)
    CHECK(finish(loop, models.remove(key)));

  CHECK(failure_of([&] { finish(loop, models.add("", make_model(1))); }) == errc::invalid_argument);
  CHECK(failure_of([&] { finish(loop, models.add("", model_info(), loader_of(1))); }) == errc::invalid_argument);
  CHECK(failure_of(loop, models.get("")) == errc::not_found);
  CHECK(finish(loop, models.list()).empty());
}

TEST_CASE("However a model is registered or replaced, a key that is taken, unknown or empty is refused", "[b28][b35]") {
  test::engine_probe probe;
  asio::io_context loop;
  roster::blocking_pool pool(1);
  registry models(loop);
  const auto placed = roster::pooled(pool, test::maker<test::encoder>(probe));
  finish(loop, models.add("taken", make_model(1)));
  const auto check = [&](auto change, const char* key, errc expected) {
    CHECK(failure_of([&] { (void)change(""); }) == errc::invalid_argument);
    CHECK(failure_of([&] { (void)change(key); }) == roster::error_code());
    CHECK(failure_of([&] { finish(loop, change(key)); }) == expected);
  };
  check([&](const char* key) { return models.add(key, make_model(2)); }, "taken", errc::already_exists);
  check([&](const char* key) { return models.add(key, make_model(2), loop.get_executor()); }, "taken", errc::already_exists);
  check([&](const char* key) { return models.add(key, model_info(), loader_of(2)); }, "taken", errc::already_exists);
  check([&](const char* key) { return models.add(key, placed); }, "taken", errc::already_exists);
  check([&](const char* key) { return models.replace(key, make_model(2)); }, "unknown", errc::not_found);
  check([&](const char* key) { return models.replace(key, model_info(), loader_of(2)); }, "unknown", errc::not_found);
  check([&](const char* key) { return models.replace(key, placed); }, "unknown", errc::not_found);
  CHECK(finish(loop, models.list()).size() == 1);
  CHECK(ask(loop, finish(loop, models.get("taken"))) == 1);
  CHECK(probe.attempts() == 0);
}

TEST_CASE("A null model is refused") {
  asio::io_context loop;
  registry models(loop);
  CHECK(failure_of([&] { (void)models.add("key", nullptr); }) == errc::invalid_argument);
  CHECK(failure_of([&] { (void)models.add("key", nullptr, loop.get_executor()); }) == errc::invalid_argument);
  finish(loop, models.add("key", make_model(1)));
  CHECK(failure_of([&] { (void)models.replace("key", nullptr); }) == errc::invalid_argument);
  CHECK(ask(loop, finish(loop, models.get("key"))) == 1);
}

TEST_CASE("A key is only read inside the call, so that it may be a temporary") {
  asio::io_context loop;
  registry models(loop);
  auto add = models.add(std::string(100, 'k'), model_info(), loader_of(1));
  finish(loop, std::move(add));
  auto get = models.get(std::string(100, 'k'));
  auto contains = models.contains(std::string(100, 'k'));
  auto deferred = models.async_get(std::string(100, 'k'), asio::deferred);
  auto remove = models.remove(std::string(100, 'k'));
  CHECK(ask(loop, finish(loop, std::move(get))) == 1);
  CHECK(finish(loop, std::move(contains)));
  auto late = std::move(deferred)(asio::bind_executor(loop, asio::use_future));
  test::drain(loop);
  CHECK(ask(loop, late.get()) == 1);
  CHECK(finish(loop, std::move(remove)));
}

TEST_CASE("list asks a model that is there what it is, each time, whatever it was said to be") {
  asio::io_context loop;
  roster::registry<asked> models(loop);
  const auto load = [](roster::load_context&) -> asio::awaitable<std::shared_ptr<asked::model>> {
    co_return std::make_shared<asked::model>();
  };
  finish(loop, models.add("key", model_info("maker", "said"), load));
  CHECK(finish(loop, models.list()).at(0).info.name == "said");
  finish(loop, models.preload("key"));
  CHECK(finish(loop, models.list()).at(0).info.name == "1");
  CHECK(finish(loop, models.list()).at(0).info.name == "2");
}

TEST_CASE("list tells keys in order, what is known, how far each model is, and the last error") {
  asio::io_context loop;
  const auto failing = [](roster::load_context&) -> asio::awaitable<model_ptr> {
    throw std::runtime_error("no weights");
    co_return nullptr;
  };
  roster::builtin_models<image_embedding> builtin;
  builtin.emplace_back("d-builtin", model_info("maker", "builtin"), loader_of(4));
  builtin.emplace_back("b-failing", model_info("maker", "shadowed"), loader_of(5));
  registry models(loop, builtin);
  test::gate gate(loop);
  const auto slow = [&](roster::load_context&) -> asio::awaitable<model_ptr> {
    co_await gate.wait();
    co_return make_model(3);
  };
  finish(loop, models.add("e-slow", model_info("maker", "slow"), slow));
  finish(loop, models.add("b-failing", model_info("maker", "failing"), failing));
  finish(loop, models.add("c-lazy", model_info("maker", "lazy"), loader_of(6)));
  finish(loop, models.add("a-ready", make_model(7)));
  auto load = spawn(loop, models.get("e-slow"));
  CHECK(failure_of(loop, models.get("b-failing")) == errc::load_failed);

  auto rows = finish(loop, models.list());
  REQUIRE(rows.size() == 5);
  const auto check = [](const roster::registered_model& row, const char* key, const char* name, load_state state,
                        bool is_builtin) {
    CHECK(row.key == key);
    CHECK(row.info.name == name);
    CHECK(row.state == state);
    CHECK(row.builtin == is_builtin);
  };
  check(rows[0], "a-ready", "7", load_state::ready, false);
  check(rows[1], "b-failing", "failing", load_state::failed, false);
  check(rows[2], "c-lazy", "lazy", load_state::unloaded, false);
  check(rows[3], "d-builtin", "builtin", load_state::unloaded, true);
  check(rows[4], "e-slow", "slow", load_state::loading, false);
  CHECK_THAT(rows[1].last_error, Catch::Contains("no weights"));
  for (const auto i : {0U, 2U, 3U, 4U})
    CHECK(rows[i].last_error.empty());

  gate.open();
  finish(loop, models.preload("d-builtin"));
  rows = finish(loop, models.list());
  check(rows[3], "d-builtin", "4", load_state::ready, true);
  check(rows[4], "e-slow", "3", load_state::ready, false);
}

TEST_CASE("A lookup takes any completion token and completes on the handler's executor, never at once") {
  asio::io_context loop, elsewhere;
  registry models(loop);
  finish(loop, models.add("key", make_model(1)));

  int calls = 0;
  lease found;
  models.async_get("key", asio::bind_executor(elsewhere, [&](std::exception_ptr failure, lease model) {
                     ++calls;
                     CHECK_FALSE(failure);
                     found = std::move(model);
                   }));
  CHECK(calls == 0);
  test::drain(loop);
  CHECK(calls == 0);
  test::drain(elsewhere);
  CHECK(calls == 1);
  CHECK(ask(loop, found) == 1);

  auto home = asio::make_strand(loop);
  bool on_strand = false;
  models.async_get("unknown", asio::bind_executor(home, [&](std::exception_ptr failure, lease model) {
                     on_strand = home.running_in_this_thread();
                     CHECK(test::code_of(failure) == errc::not_found);
                     CHECK_FALSE(model);
                   }));
  test::drain(loop);
  CHECK(on_strand);

  std::future<lease> future = models.async_get("key", asio::use_future);
  test::drain(loop);
  CHECK(ask(loop, future.get()) == 1);

  auto call =
      found->async_call(std::vector<roster::image>(2), roster::embed_options(), asio::bind_executor(loop, asio::use_future));
  test::drain(loop);
  CHECK(call.get().rows() == 2);
}

TEST_CASE("A lookup started on the executor that its handler is for does not complete inside that call either") {
  asio::io_context loop;
  registry models(loop);
  finish(loop, models.add("key", make_model(1)));
  bool starting = false, ended = false;
  const auto handler = [&](std::exception_ptr, lease) {
    CHECK_FALSE(starting);
    ended = true;
  };
  const auto start = [&] {
    starting = true;
    models.async_get("key", handler);
    starting = false;
  };
  asio::post(loop, start);
  test::drain(loop);
  CHECK(ended);
}

TEST_CASE("A lookup whose handler has no executor completes on the registry's") {
  asio::io_context loop;
  const auto home = asio::make_strand(loop);
  registry models{asio::any_io_executor(home)};
  finish(loop, models.add("ready", make_model(1)));
  finish(loop, models.add("lazy", model_info(), loader_of(2)));
  int at_home = 0;
  for (const auto* key : {"ready", "lazy", "unknown"})
    models.async_get(key, [&](std::exception_ptr, lease) { at_home += home.running_in_this_thread(); });
  test::drain(loop);
  CHECK(at_home == 3);
}

TEST_CASE("A lookup with a handler is cancelled terminally, or not at all") {
  asio::io_context loop;
  registry models(loop);
  test::gate gate(loop);
  const auto slow = [&](roster::load_context&) -> asio::awaitable<model_ptr> {
    co_await gate.wait();
    co_return make_model(1);
  };
  finish(loop, models.add("key", model_info(), slow));
  asio::cancellation_signal signal;
  int calls = 0;
  std::exception_ptr outcome;
  const auto handler = [&](std::exception_ptr failure, lease) {
    ++calls;
    outcome = failure;
  };
  models.async_get("key", asio::bind_cancellation_slot(signal.slot(), asio::bind_executor(loop, handler)));
  test::drain(loop);
  signal.emit(asio::cancellation_type::partial | asio::cancellation_type::total);
  test::drain(loop);
  CHECK(calls == 0);
  CHECK(gate.waiting() == 1);
  signal.emit(asio::cancellation_type::terminal);
  test::drain(loop);
  CHECK(calls == 1);
  CHECK(test::code_of(outcome) == asio::error::operation_aborted);
  CHECK(gate.waiting() == 0);
}

TEST_CASE("A lease keeps its model, and so does each copy of it") {
  asio::io_context loop;
  auto destroyed_log = std::make_shared<test::destruction_logger::log>();
  lease first;
  CHECK_FALSE(first);
  {
    registry models(loop);
    finish(loop, models.add("key", std::make_shared<test::ready_model>(1.F, destroyed_log)));
    first = finish(loop, models.get("key"));
  }
  auto second = first;
  CHECK(second == first);
  first = {};
  CHECK_FALSE(first == second);
  CHECK(destroyed_log->empty());
  CHECK(ask(loop, second) == 1);
  CHECK(&*second == second.operator->());
  second = {};
  CHECK(destroyed_log->size() == 1);
}
