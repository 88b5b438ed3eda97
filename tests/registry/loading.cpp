#include <roster/registry/catalog.hpp>
#include <roster/serving/pooled.hpp>
#include <roster/testing/hand_driven_loop.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/require.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace asio = boost::asio;
using namespace std::chrono_literals;
using roster::errc;
using roster::image_embedding;
using roster::load_context;
using roster::load_state;
using roster::model_info;
using test::ask;
using test::failure_of;
using test::finish;
using test::make_model;
using test::message_of;
using test::spawn;
using registry = roster::registry<image_embedding>;
using model_ptr = registry::model_ptr;
using loading = asio::awaitable<model_ptr>;

namespace {

/// Counts its calls, waits, then throws or returns.
struct scripted_loader {
  explicit scripted_loader(asio::io_context& loop) : gate(loop) {}

  auto function() {
    return [this](load_context&) -> loading {
      ++calls;
      most_at_once = std::max(most_at_once, ++running);
      struct leave {
        explicit leave(int& n) : count(n) {}
        leave(const leave&) = delete;
        leave& operator=(const leave&) = delete;
        ~leave() { --count; }
        int& count;
      } leaving(running);
      co_await gate.wait();
      end();
      co_return make_model(static_cast<float>(calls));
    };
  }

  test::gate gate;
  std::function<void()> end = [] {};
  int calls = 0, running = 0, most_at_once = 0;
};

/// What a failed load was caused by, and that it names its key.
template <typename Cause>
std::string cause_of(const std::exception_ptr& failure, const std::string& key) {
  try {
    std::rethrow_exception(failure);
  } catch (const roster::load_error& e) {
    CHECK(e.key() == key);
    CHECK(e.code() == errc::load_failed);
    CHECK_THAT(e.what(), Catch::Contains('\'' + key + '\''));
    REQUIRE(e.cause());
    try {
      std::rethrow_exception(e.cause());
    } catch (const Cause& cause) {
      if constexpr (std::is_base_of_v<std::exception, Cause>)
        return cause.what();
      else
        return std::to_string(cause);
    } catch (...) {
      return "another type of exception";
    }
  } catch (...) {
    return "no load_error";
  }
}

/// An operation that cannot be started, which destroys the coroutine that awaits it.
template <typename Token>
auto unstartable(Token&& token) {
  return asio::async_initiate<Token, void()>([](auto&&) { throw std::runtime_error("cannot be started"); }, token);
}

}  // namespace

TEST_CASE("A known key whose loader failed gives the load error with its cause, to every waiter, and not not_found", "[b30]") {
  asio::io_context loop;
  registry models(loop);
  scripted_loader loader(loop);
  loader.end = [] { throw std::runtime_error("weights.bin is truncated"); };
  finish(loop, models.add("key", model_info(), loader.function()));

  std::vector<test::task<roster::lease<image_embedding>>> callers;
  for (int i = 0; i < 5; ++i)
    callers.push_back(spawn(loop, models.get("key")));
  test::drain(loop);
  CHECK(loader.calls == 1);
  loader.gate.open();
  test::drain(loop);

  for (auto& caller : callers) {
    REQUIRE(caller.done());
    CHECK(caller.code() == errc::load_failed);
    CHECK(cause_of<std::runtime_error>(caller.failure(), "key") == "weights.bin is truncated");
  }
  CHECK(loader.calls == 1);
  CHECK_THAT(message_of(loop, models.get("key")), Catch::Contains("weights.bin is truncated"));
  CHECK(models.try_get("key").error() == errc::not_loaded);
}

TEST_CASE("After a failed load the next lookup tries again, and its success makes the error history", "[b30]") {
  asio::io_context loop;
  registry models(loop);
  scripted_loader loader(loop);
  loader.gate.open();
  loader.end = [&] {
    if (loader.calls < 3) throw std::runtime_error("attempt " + std::to_string(loader.calls));
  };
  finish(loop, models.add("key", model_info(), loader.function()));

  for (int i = 1; i <= 2; ++i) {
    CHECK(failure_of(loop, models.get("key")) == errc::load_failed);
    CHECK(loader.calls == i);
    const auto rows = finish(loop, models.list());
    CHECK(rows.at(0).state == load_state::failed);
    CHECK(rows.at(0).last_error == "attempt " + std::to_string(i));
  }
  CHECK(ask(loop, finish(loop, models.get("key"))) == 3);
  const auto rows = finish(loop, models.list());
  CHECK(rows.at(0).state == load_state::ready);
  CHECK(rows.at(0).last_error.empty());
}

TEST_CASE("A lookup gives up at its deadline while the load goes on for others, while what is loaded is found at any time",
          "[b43]") {
  roster::hand_driven_loop loop;
  registry models(loop.get_executor(), {}, loop.time());
  scripted_loader loader(loop.context());
  loop.run(models.add("key", model_info(), loader.function()));
  using roster::call_options;

  auto late = spawn(loop.context(), models.get("key", call_options().timeout(1s)));
  auto later = spawn(loop.context(), models.get("key", call_options().timeout(1h).deadline(loop.time()->from_now(2s))));
  auto in_time = spawn(loop.context(), models.get("key", call_options()));
  loop.run();
  loop.advance(1s);
  CHECK(late.code() == errc::deadline_exceeded);
  CHECK_FALSE(later.done());
  loop.advance(1s);
  CHECK(later.code() == errc::deadline_exceeded);
  loader.gate.open();
  loop.run();
  CHECK(in_time.succeeded());
  CHECK(loader.calls == 1);
  CHECK(loop.run(models.get("key", call_options().deadline(loop.time()->now() - 1s))));
  CHECK_THROWS_AS(loop.run(models.get("other", call_options().timeout(1s))), roster::error);
  CHECK_FALSE(loop.time()->next_alarm());
}

TEST_CASE("A loader that awaits what cannot be started has failed, and the next lookup tries again", "[b30][b37]") {
  asio::io_context loop;
  asio::any_io_executor executor = loop.get_executor();
  bool first_operation = false;
  SECTION("as its first operation") {
    first_operation = true;
  }
  SECTION("later") {}
  SECTION("as its first operation, on an executor that never blocks") {
    first_operation = true;
    executor = asio::require(loop.get_executor(), asio::execution::blocking.never);
  }
  registry models(executor);
  int loads = 0;
  const auto loader = [&](load_context&) -> loading {
    const bool broken = ++loads == 1;
    if (broken && !first_operation) co_await asio::post(asio::use_awaitable);
    if (broken) co_await unstartable(asio::use_awaitable);
    co_return make_model(3);
  };
  finish(loop, models.add("key", model_info(), loader));

  auto call = spawn(loop, models.get("key"));
  auto other = spawn(loop, models.get("key"));
  const auto drain = [&] {
    try {
      test::drain(loop);
    } catch (const std::runtime_error& e) {  // has left the loader by way of the loop
      CHECK(e.what() == std::string("cannot be started"));
    }
  };
  drain();
  drain();
  REQUIRE(call.done());
  REQUIRE(other.done());
  CHECK_THAT(cause_of<std::exception>(call.failure(), "key"), Catch::Contains("could") || Catch::Contains("cannot be started"));
  CHECK(other.code() == errc::load_failed);
  const auto rows = finish(loop, models.list());
  CHECK(rows.at(0).state == load_state::failed);
  CHECK_THAT(rows.at(0).last_error, Catch::Contains("could not be started"));
  CHECK(ask(loop, finish(loop, models.get("key"))) == 3);
}

TEST_CASE("A model whose load was broken off by the end of its context shows as failed", "[b5][b30]") {
  auto loop = std::make_unique<asio::io_context>();
  asio::io_context elsewhere;
  registry models(*loop);
  const auto never = [&](load_context& context) -> loading {
    asio::steady_timer timer(context.get_executor(), asio::steady_timer::time_point::max());
    co_await timer.async_wait(asio::use_awaitable);
    co_return make_model(1);
  };
  finish(*loop, models.add("key", model_info(), never));
  auto call = spawn(*loop, models.get("key"));
  test::drain(*loop);
  auto rows = finish(*loop, models.list());
  CHECK(rows.at(0).state == load_state::loading);
  loop.reset();
  rows = finish(elsewhere, models.list());
  CHECK(rows.at(0).state == load_state::failed);
  CHECK_THAT(rows.at(0).last_error, Catch::Contains("its context is gone"));
}

TEST_CASE("Whatever leaves a loader becomes a load error", "[b37]") {
  asio::io_context loop;
  registry models(loop);
  const auto load = [&](std::function<loading(load_context&)> loader) {
    finish(loop, models.add("key", model_info(), loader));
    auto call = spawn(loop, models.get("key"));
    test::drain(loop);
    finish(loop, models.remove("key"));
    REQUIRE(call.done());
    CHECK(call.code() == errc::load_failed);
    return call.failure();
  };

  CHECK(cause_of<std::out_of_range>(load([](load_context&) -> loading {
                                      throw std::out_of_range("inside");
                                      co_return nullptr;
                                    }),
                                    "key") == "inside");
  CHECK(cause_of<std::runtime_error>(load([](load_context&) -> loading { throw std::runtime_error("before"); }), "key") ==
        "before");
  CHECK(cause_of<int>(load([](load_context&) -> loading {
                        throw 7;
                        co_return nullptr;
                      }),
                      "key") == "7");
  CHECK_THAT(cause_of<roster::error>(load([](load_context&) -> loading { co_return nullptr; }), "key"),
             Catch::Contains("returned no model"));
  const auto refused = load([](load_context&) -> loading {
    throw boost::system::system_error(asio::error::connection_refused);
    co_return nullptr;
  });
  CHECK_THAT(cause_of<boost::system::system_error>(refused, "key"), Catch::Contains("refused"));
}

TEST_CASE("A loader may be any callable, and knows its key, what was said of the model, and its registry's executor") {
  struct move_only_loader {  // trivially destroyed, as g++ 12 needs it to be passed as a temporary
    explicit move_only_loader(const asio::any_io_executor& executor) : executor_(&executor) {}
    move_only_loader(move_only_loader&&) = default;
    move_only_loader& operator=(move_only_loader&&) = delete;
    ~move_only_loader() = default;
    loading operator()(load_context& context) {
      CHECK(context.key() == "moved");
      CHECK(context.info().provider == "somebody");
      CHECK(context.get_executor() == *executor_);
      co_return make_model(3);
    }
    const asio::any_io_executor* executor_;
  };
  struct by_name {
    static loading load(load_context& context) { co_return make_model(static_cast<float>(context.key().size())); }
  };
  asio::io_context loop;
  const asio::any_io_executor home = asio::make_strand(loop);
  registry models(home);
  finish(loop, models.add("moved", model_info("somebody", "x"), move_only_loader(home)));
  finish(loop, models.add("function", model_info(), &by_name::load));
  CHECK(ask(loop, finish(loop, models.get("moved"))) == 3);
  CHECK(ask(loop, finish(loop, models.get("function"))) == 8);
}

TEST_CASE("A load runs once, however many callers wait, and on the registry's executor", "[b38]") {
  asio::io_context loop, callers_loop;
  registry models(loop);
  scripted_loader loader(loop);
  finish(loop, models.add("key", model_info(), loader.function()));

  std::vector<test::task<roster::lease<image_embedding>>> callers;
  for (int i = 0; i < 1000; ++i)
    callers.push_back(spawn(callers_loop, models.get("key")));
  test::drain(callers_loop);
  CHECK(loader.calls == 0);
  test::drain(loop);
  CHECK(loader.calls == 1);
  loader.gate.open();
  test::drain(loop);
  CHECK(callers[0].completions() == 0);
  test::drain(callers_loop);

  for (auto& caller : callers) {
    REQUIRE(caller.succeeded());
    CHECK(caller.value() == callers[0].value());
  }
  CHECK(loader.calls == 1);
}

TEST_CASE("A load keeps its registry's context running until it has ended, whoever awaits it") {
  asio::io_context loop, callers_loop, elsewhere;
  registry models(loop);
  scripted_loader loader(elsewhere);
  finish(callers_loop, models.add("key", model_info(), loader.function()));
  test::drain(loop);
  CHECK(loop.stopped());
  auto call = spawn(callers_loop, models.get("key"));
  test::drain(callers_loop);
  test::drain(loop);
  REQUIRE(loader.running == 1);
  CHECK_FALSE(loop.stopped());
  loader.gate.open();
  test::drain(elsewhere);
  test::drain(loop);
  CHECK(loop.stopped());
  test::drain(callers_loop);
  CHECK(call.succeeded());
}

TEST_CASE("One getter's cancellation leaves the load to the others", "[b38]") {
  asio::io_context loop;
  registry models(loop);
  scripted_loader loader(loop);
  finish(loop, models.add("key", model_info(), loader.function()));
  auto first = spawn(loop, models.get("key"));
  test::drain(loop);
  auto second = spawn(loop, models.get("key"));
  auto third = spawn(loop, models.preload("key"));
  test::drain(loop);

  first.cancel();
  third.cancel();
  test::drain(loop);
  CHECK(first.aborted());
  CHECK(third.aborted());
  CHECK(loader.running == 1);

  loader.gate.open();
  test::drain(loop);
  CHECK(second.succeeded());
  CHECK(loader.calls == 1);
}

TEST_CASE("When the last getter leaves, the load is cancelled, and a later getter loads afresh without being told so",
          "[b38]") {
  asio::io_context loop;
  registry models(loop);
  scripted_loader loader(loop);
  finish(loop, models.add("key", model_info(), loader.function()));
  auto first = spawn(loop, models.get("key"));
  test::drain(loop);
  first.cancel();
  auto late = spawn(loop, models.get("key"));
  test::drain(loop);
  CHECK(first.aborted());
  CHECK_FALSE(late.done());
  CHECK(loader.calls == 2);
  CHECK(loader.most_at_once == 1);

  late.cancel();
  test::drain(loop);
  CHECK(late.aborted());
  CHECK(loader.running == 0);

  loader.gate.open();
  CHECK(ask(loop, finish(loop, models.get("key"))) == 3);
}

TEST_CASE("A load that nobody waits for any more is no failure in the list") {
  asio::io_context loop;
  registry models(loop);
  scripted_loader loader(loop);
  finish(loop, models.add("key", model_info(), loader.function()));
  auto call = spawn(loop, models.get("key"));
  test::drain(loop);
  call.cancel();
  test::drain(loop);
  const auto rows = finish(loop, models.list());
  CHECK(rows.at(0).state == load_state::unloaded);
  CHECK(rows.at(0).last_error.empty());
}

TEST_CASE("A slow load delays neither other models, nor lookups of any key, nor other loads, nor changes", "[b38]") {
  asio::io_context loop;
  registry models(loop);
  scripted_loader slow(loop), quick(loop);
  quick.gate.open();
  finish(loop, models.add("slow", model_info(), slow.function()));
  finish(loop, models.add("ready", make_model(5)));
  finish(loop, models.add("quick", model_info(), quick.function()));
  auto waiting = spawn(loop, models.get("slow"));
  test::drain(loop);
  REQUIRE(slow.running == 1);

  CHECK(ask(loop, finish(loop, models.get("ready"))) == 5);
  CHECK(ask(loop, finish(loop, models.get("quick"))) == 1);
  CHECK(models.try_get("slow").error() == errc::not_loaded);
  CHECK(finish(loop, models.contains("slow")));
  CHECK(finish(loop, models.list()).size() == 3);
  finish(loop, models.add("more", make_model(6)));
  CHECK(finish(loop, models.remove("more")));
  CHECK_FALSE(waiting.done());

  slow.gate.open();
  test::drain(loop);
  CHECK(waiting.succeeded());
}

TEST_CASE("A model removed while it loads still reaches those who waited for it, and nobody else", "[b32]") {
  asio::io_context loop;
  registry models(loop);
  scripted_loader loader(loop);
  finish(loop, models.add("key", model_info(), loader.function()));
  auto waiting = spawn(loop, models.get("key"));
  test::drain(loop);
  CHECK(finish(loop, models.remove("key")));
  finish(loop, models.add("key", make_model(9)));

  CHECK(ask(loop, finish(loop, models.get("key"))) == 9);
  loader.gate.open();
  test::drain(loop);
  CHECK(ask(loop, waiting.value()) == 1);
  CHECK(ask(loop, finish(loop, models.get("key"))) == 9);
}

TEST_CASE("No lock of the registry is held while something waits", "[b40]") {
  asio::io_context loop;
  registry models(loop);
  scripted_loader first(loop), second(loop);
  finish(loop, models.add("key", model_info(), first.function()));
  finish(loop, models.add("ready", make_model(1)));

  std::vector<test::task<roster::lease<image_embedding>>> waiting;
  waiting.push_back(spawn(loop, models.get("key")));
  auto replacing = spawn(loop, models.replace("ready", model_info(), second.function()));
  test::drain(loop);
  REQUIRE(first.running == 1);
  REQUIRE(second.running == 1);

  CHECK(models.try_get("ready").has_value());                // no writer holds it
  auto add = spawn(loop, models.add("new", make_model(2)));  // nor does a reader
  test::drain(loop);
  CHECK(add.succeeded());
  first.gate.open();
  second.gate.open();
  test::drain(loop);
  CHECK(replacing.succeeded());
}
