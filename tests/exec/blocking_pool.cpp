#include <roster/exec/blocking_pool.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/exec.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <future>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
namespace asio = boost::asio;
using roster::blocking_pool;
using roster::call_options;
using roster::errc;
using roster::run_context;
using test::checkpoint;
using test::destruction_logger;
using test::occupy;
using test::run_until;
using test::spawn;

namespace {

struct no_default {
  explicit no_default(int n) : number(n) {}
  int number;
};

}  // namespace

TEST_CASE("Work runs on a thread of the pool, and the loop goes on meanwhile", "[b11]") {
  asio::io_context loop;
  blocking_pool pool(2);
  checkpoint ticks;

  auto engine = [&] {
    ticks.await(100);
    return std::this_thread::get_id();
  };
  auto call = spawn(loop, pool.run(engine));
  for (int i = 0; i < 100; ++i)
    asio::post(loop, [&] { ticks.arrive(); });
  run_until(loop, [&] { return call.done(); });

  CHECK(call.value() != std::this_thread::get_id());
}

TEST_CASE("The caller resumes on its own executor", "[b4]") {
  test::loop_thread home;
  blocking_pool pool(1);

  auto caller = [](blocking_pool& p) -> asio::awaitable<bool> {
    const auto before = std::this_thread::get_id();
    const auto inside = co_await p.run([] { return std::this_thread::get_id(); });
    co_return before == std::this_thread::get_id() && inside != before;
  };
  CHECK(asio::co_spawn(home.context(), caller(pool), asio::use_future).get());
}

TEST_CASE("Results may be void, references, move-only, or without a default constructor") {
  asio::io_context loop;
  blocking_pool pool(1);
  int number = 0;

  auto caller = [](blocking_pool& p, int& target) -> asio::awaitable<void> {
    co_await p.run([](int& n) { n = 1; }, std::ref(target));
    CHECK(target == 1);

    std::reference_wrapper<int> same = co_await p.run([](int& n) -> int& { return n; }, std::ref(target));
    CHECK(&same.get() == &target);

    std::unique_ptr<int> owned = co_await p.run([] { return std::make_unique<int>(2); });
    CHECK(*owned == 2);

    no_default plain = co_await p.run([] { return no_default(3); });
    CHECK(plain.number == 3);

    const std::string constant = co_await p.run([]() -> const std::string { return "four"; });
    CHECK(constant == "four");
  };
  auto call = spawn(loop, caller(pool, number));
  run_until(loop, [&] { return call.done(); });
  CHECK(call.succeeded());
}

TEST_CASE("Callables and arguments may be move-only, and are passed on as values of their own") {
  asio::io_context loop;
  blocking_pool pool(1);

  auto caller = [](blocking_pool& p) -> asio::awaitable<void> {
    auto argument = std::make_unique<int>(2);
    const int doubled = co_await p.run([](std::unique_ptr<int> n) { return *n * 2; }, std::move(argument));
    CHECK(doubled == 4);

    std::string text = "copied";
    const auto size = co_await p.run([](std::string s) { return s.size(); }, text);
    CHECK(size == 6);
    CHECK(text == "copied");
  };
  auto call = spawn(loop, caller(pool));
  run_until(loop, [&] { return call.done(); });
  CHECK(call.succeeded());
}

TEST_CASE("Callables may be move-only, where the compiler can be trusted with them") {
  asio::io_context loop;
  blocking_pool pool(1);
  auto closure = [owned = std::make_unique<int>(1)] { return *owned; };
  auto start = [&]<typename F>(F function) {
    if constexpr (roster::detail::safe_in_co_await<F>) {
      auto call = spawn(loop, pool.run(std::move(function)));
      run_until(loop, [&] { return call.done(); });
      CHECK(call.value() == 1);
    }
  };
  start(std::move(closure));
}

TEST_CASE("A callable that takes a run_context gets one, with the call's deadline") {
  asio::io_context loop;
  blocking_pool pool(1);
  const auto when = call_options::time_point::clock::now() + 1h;

  const auto seen = [](run_context& context, int n) { return n == 5 ? context.deadline() : std::nullopt; };
  auto with = spawn(loop, pool.run(call_options().deadline(when), seen, 5));
  auto without = spawn(loop, pool.run(seen, 5));
  auto detachable = spawn(loop, pool.run_detachable(call_options().deadline(when), seen, 5));
  run_until(loop, [&] { return detachable.done(); });
  CHECK(with.value() == when);
  CHECK(without.value() == std::nullopt);
  CHECK(detachable.value() == when);
}

TEST_CASE("A call whose deadline has passed when its turn comes is never started", "[b43]") {
  asio::io_context loop;
  blocking_pool pool(1);
  bool started = false;

  auto work = [&] { started = true; };
  auto call = spawn(loop, pool.run(call_options().deadline(call_options::time_point::clock::now()), work));
  run_until(loop, [&] { return call.done(); });
  CHECK(call.code() == errc::deadline_exceeded);
  CHECK_FALSE(started);
}

TEST_CASE("A call whose deadline passes in the queue while nobody runs its context ends when its turn comes, there", "[b43]") {
  asio::io_context loop, resting;
  blocking_pool pool(1);
  checkpoint gate;
  auto destroyed = std::make_shared<destruction_logger::log>();
  const auto late = call_options().deadline(call_options::time_point::clock::now());
  const bool detachable = GENERATE(false, true);

  auto running = occupy(loop, pool, gate);
  const auto work = [](const destruction_logger&) {};
  auto call = spawn(resting, detachable ? pool.run_detachable(late, work, destruction_logger(destroyed))
                                        : pool.run(late, work, destruction_logger(destroyed)));
  resting.poll_one();  // the call is made, its deadline has not been looked at
  auto next = spawn(loop, pool.run([] { return std::this_thread::get_id(); }));
  test::drain(loop);
  CHECK_FALSE(call.done());
  CHECK(pool.queued() == 2);
  gate.open();
  run_until(loop, [&] { return next.done(); });
  test::drain(resting);
  CHECK(call.code() == errc::deadline_exceeded);
  CHECK(*destroyed == destruction_logger::log{next.value()});
}

TEST_CASE("Work that goes on past its deadline is asked to stop, and still gives its result", "[b43]") {
  asio::io_context loop;
  blocking_pool pool(1);
  bool started = false;
  const auto lasts = [&](run_context& context) {
    started = true;
    while (!context.stop_requested())
      std::this_thread::yield();
    return context.expired() ? 7 : 0;
  };
  auto wait = 1ms;
  while (!started) {  // in time, as it may take a while on a busy machine
    const auto options = call_options().deadline(call_options::time_point::clock::now() + wait);
    auto call = spawn(loop, pool.run(options, lasts));
    run_until(loop, [&] { return call.done(); });
    REQUIRE(call.succeeded() == started);
    if (started) CHECK(call.value() == 7);
    wait *= 2;
  }
}

TEST_CASE("Callable and arguments are destroyed on the pool's thread before the caller resumes") {
  asio::io_context loop;
  blocking_pool pool(1);
  auto destroyed = std::make_shared<destruction_logger::log>();
  const bool throws = GENERATE(false, true);

  auto call = [&] {
    auto work = [throws, in_closure = std::make_shared<destruction_logger>(destroyed)](const destruction_logger&) {
      if (throws) throw std::runtime_error("broken");
      return std::this_thread::get_id();
    };
    return spawn(loop, pool.run(work, destruction_logger(destroyed)));
  }();
  run_until(loop, [&] { return call.done(); });
  REQUIRE(destroyed->size() == 2);
  CHECK(destroyed->at(0) != std::this_thread::get_id());
  CHECK(destroyed->at(1) == destroyed->at(0));
  if (!throws) CHECK(call.value() == destroyed->at(0));
}

TEST_CASE("Callable and arguments of a call that is refused are destroyed by who refuses it, before the caller resumes") {
  asio::io_context loop;
  blocking_pool pool(1, 0);
  checkpoint gate;
  auto destroyed = std::make_shared<destruction_logger::log>();
  auto running = occupy(loop, pool, gate);
  const auto work = [](const destruction_logger&) {};
  auto full = spawn(loop, pool.try_run(work, destruction_logger(destroyed)));
  auto waiting = spawn(loop, pool.run(work, destruction_logger(destroyed)));
  while (pool.waiting() == 0)
    test::step(loop);
  CHECK(*destroyed == destruction_logger::log{std::this_thread::get_id()});
  CHECK_FALSE(full.done());
  std::thread::id stopper;
  std::thread([&] {
    stopper = std::this_thread::get_id();
    pool.async_stop(asio::bind_executor(loop, asio::detached));
  }).join();
  CHECK(*destroyed == destruction_logger::log{std::this_thread::get_id(), stopper});
  CHECK_FALSE(waiting.done());
  gate.open();
  run_until(loop, [&] { return running.done() && waiting.done(); });
  CHECK(full.code() == errc::queue_full);
  CHECK(waiting.code() == errc::stopped);
}

TEST_CASE("Work that throws, even what is no exception, fails that call only", "[b15]") {
  asio::io_context loop;
  blocking_pool pool(1);

  auto standard = spawn(loop, pool.run([]() -> int { throw std::runtime_error("the engine's own words"); }));
  auto number = spawn(loop, pool.run([]() -> int { throw 42; }));
  auto healthy = spawn(loop, pool.run([] { return 7; }));
  run_until(loop, [&] { return healthy.done(); });

  CHECK_THROWS_WITH(std::rethrow_exception(standard.failure()), "the engine's own words");
  try {
    std::rethrow_exception(number.failure());
  } catch (int thrown) {
    CHECK(thrown == 42);
  }
  CHECK(healthy.value() == 7);
}

TEST_CASE("With all threads busy and the queue full, run waits its turn and try_run is refused", "[b12]") {
  asio::io_context loop;
  blocking_pool pool(1, 2);
  checkpoint gate;
  std::vector<int> order;
  auto note = [&](int n) { order.push_back(n); };

  auto running = occupy(loop, pool, gate);
  std::vector<test::task<void>> calls;
  for (int i = 0; i < 5; ++i)
    calls.push_back(spawn(loop, pool.run(note, i)));
  test::drain(loop);
  CHECK(pool.running() == 1);
  CHECK(pool.queued() == 2);
  CHECK(pool.waiting() == 3);

  auto refused = spawn(loop, pool.try_run(note, 99));
  test::drain(loop);
  CHECK(refused.code() == errc::queue_full);
  CHECK(pool.running() == 1);
  CHECK(pool.queued() == 2);
  CHECK(pool.waiting() == 3);

  gate.open();
  run_until(loop, [&] { return calls.back().done(); });
  CHECK(order == std::vector<int>{0, 1, 2, 3, 4});
  CHECK(pool.running() + pool.queued() + pool.waiting() == 0);
}

TEST_CASE("A queue limit of 0 means: only if a thread is idle", "[b12]") {
  asio::io_context loop;
  blocking_pool pool(2, 0);
  checkpoint gate;
  auto nothing = [] {};

  auto first = occupy(loop, pool, gate);
  auto taken = spawn(loop, pool.try_run(nothing));
  run_until(loop, [&] { return taken.done(); });
  CHECK(taken.succeeded());

  auto second = spawn(loop, pool.try_run(&checkpoint::pass, &gate));
  test::drain(loop);
  gate.await(2);
  auto refused = spawn(loop, pool.try_run(nothing));
  auto waits = spawn(loop, pool.run(nothing));
  test::drain(loop);
  CHECK(refused.code() == errc::queue_full);
  CHECK(pool.queued() == 0);
  CHECK(pool.waiting() == 1);

  gate.open();
  run_until(loop, [&] { return first.done() && second.done() && waits.done(); });
  CHECK(waits.succeeded());
}

TEST_CASE("A queue limit as large as it can be is no limit", "[b12]") {
  asio::io_context loop;
  blocking_pool pool{2, std::numeric_limits<std::size_t>::max()};
  auto call = spawn(loop, pool.try_run([] { return 7; }));
  run_until(loop, [&] { return call.done(); });
  CHECK(call.value() == 7);
}

TEST_CASE("A queue limit that nobody gives is the default", "[b12]") {
  asio::io_context loop;
  blocking_pool pool{1};
  checkpoint gate;
  auto running = occupy(loop, pool, gate);
  std::vector<test::task<void>> calls;
  for (std::size_t i = 0; i < blocking_pool::default_queue_limit + 2; ++i)
    calls.push_back(spawn(loop, pool.run([] {})));
  test::drain(loop);
  CHECK(pool.queued() == blocking_pool::default_queue_limit);
  CHECK(pool.waiting() == 2);
  gate.open();
  run_until(loop, [&] { return calls.back().done(); });
}

TEST_CASE("Options of a call may be of a type of one's own") {
  struct my_options : roster::call_options_for<my_options> {};
  asio::io_context loop;
  blocking_pool pool{1};
  my_options options;
  options.deadline(std::chrono::steady_clock::now() - std::chrono::seconds(1));
  auto call = spawn(loop, pool.run(options, [] { return 7; }));
  run_until(loop, [&] { return call.done(); });
  CHECK(call.code() == errc::deadline_exceeded);
}

TEST_CASE("A thread counts as free as soon as its caller knows that the call is over", "[b12]") {
  asio::io_context loop;
  blocking_pool pool(1, 0);
  auto caller = [](blocking_pool& p) -> asio::awaitable<void> {
    for (int i = 0; i < 1000; ++i) {
      co_await p.try_run([] {});
      if (p.running() != 0) throw std::logic_error("still counted");
    }
  };
  auto call = spawn(loop, caller(pool));
  run_until(loop, [&] { return call.done(); });
  CHECK(call.succeeded());
}

TEST_CASE("One thread keeps the order of the calls, whatever their kind") {
  asio::io_context loop;
  blocking_pool pool(1, 3);
  checkpoint gate;
  std::vector<int> order;
  auto note = [&](int n) { order.push_back(n); };

  auto running = occupy(loop, pool, gate);
  std::vector<test::task<void>> calls;
  for (int i = 0; i < 12; i += 3) {
    calls.push_back(spawn(loop, pool.run(note, i)));
    calls.push_back(spawn(loop, pool.run_detachable(call_options(), note, i + 1)));
    auto third = [&order, i] { order.push_back(i + 2); };
    calls.push_back(spawn(loop, pool.async_run(third, asio::use_awaitable)));
  }
  test::drain(loop);
  gate.open();
  run_until(loop, [&] { return calls.back().done(); });
  CHECK(order == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
}

TEST_CASE("Work may post more work to its own pool, and a coroutine may await it from there") {
  test::loop_thread home;
  blocking_pool pool(1);
  std::promise<int> told;
  auto follow_up = [] { return 7; };
  auto posting = [&] {
    pool.async_run(follow_up, asio::bind_executor(home.context().get_executor(),
                                                  [&](std::exception_ptr, int result) { told.set_value(result); }));
  };
  auto spawning = [&] { return asio::co_spawn(home.context(), pool.run(follow_up), asio::use_future).share(); };
  CHECK_NOTHROW(pool.async_run(posting, asio::use_future).get());
  CHECK(told.get_future().get() == 7);
  CHECK(pool.async_run(spawning, asio::use_future).get().get() == 7);
}

TEST_CASE("A call that is refused completes once, on its handler's executor, and not inside the initiating call", "[b3]") {
  asio::io_context loop;
  blocking_pool pool(1);
  asio::any_io_executor home = loop.get_executor();
  if (GENERATE(false, true)) home = asio::make_strand(loop);
  CHECK_NOTHROW(pool.async_stop(asio::use_future).get());
  int calls = 0;
  int calls_inside = -1;
  auto nothing = [] {};
  asio::post(home, [&] {
    pool.async_run(nothing, asio::bind_executor(home, [&](const std::exception_ptr& failure) {
                     calls += test::code_of(failure) == errc::stopped;
                   }));
    calls_inside = calls;
    pool.async_stop(asio::bind_executor(home, [&](roster::error_code) { ++calls; }));
    calls_inside += calls;
  });
  test::drain(loop);
  CHECK(calls_inside == 0);
  CHECK(calls == 2);
}

TEST_CASE("async_run takes any completion token, and never completes inside the initiating call") {
  asio::io_context loop;
  blocking_pool pool(1);
  auto seven = [] { return 7; };

  SECTION("a future") {
    CHECK(pool.async_run(seven, asio::use_future).get() == 7);
  }
  SECTION("a callback, on its associated executor") {
    auto strand = asio::make_strand(loop);
    bool inside = false;
    pool.async_run(seven, asio::bind_executor(strand, [&](std::exception_ptr failure, int result) {
                     inside = strand.running_in_this_thread() && !failure && result == 7;
                   }));
    CHECK_FALSE(inside);
    loop.run();
    CHECK(inside);
  }
  SECTION("a callback without an executor of its own, on the system executor") {
    std::promise<std::thread::id> where;
    pool.async_run(seven, [&](std::exception_ptr, int) { where.set_value(std::this_thread::get_id()); });
    CHECK(where.get_future().get() != std::this_thread::get_id());
  }
  SECTION("deferred, and nothing starts before it is asked to") {
    bool started = false;
    auto mark = [&] { started = true; };
    { auto dropped = pool.async_run(mark, asio::deferred); }
    auto kept = pool.async_run(seven, asio::deferred);
    CHECK(std::move(kept)(asio::use_future).get() == 7);
    CHECK_FALSE(started);
  }
  SECTION("as_tuple") {
    auto caller = [](blocking_pool& p) -> asio::awaitable<bool> {
      auto broken = [] { throw 1; };
      const auto outcome = co_await p.async_run(broken, asio::as_tuple(asio::use_awaitable));
      co_return std::get<0>(outcome) != nullptr;
    };
    auto call = spawn(loop, caller(pool));
    run_until(loop, [&] { return call.done(); });
    CHECK(call.value());
  }
}

TEST_CASE("What an operation took from the handler's allocator is given back before the handler is called") {
  asio::io_context loop;
  blocking_pool pool(1);
  for (int i = 0; i < 200; ++i) {
    auto counts = std::make_shared<test::allocation_counts>();
    std::size_t live = 99;
    auto nothing = [] {};
    auto handler = [&live, counts](std::exception_ptr) { live = counts->live; };
    pool.async_run(nothing, asio::bind_allocator(test::counting_allocator<void>(counts),
                                                 asio::bind_executor(loop.get_executor(), std::move(handler))));
    loop.run();
    loop.restart();
    REQUIRE(counts->total > 0);
    REQUIRE(live == 0);
  }
}
