#include <roster/exec/within.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/exec.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#include <chrono>
#include <exception>
#include <future>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

namespace asio = boost::asio;
using namespace std::chrono_literals;
using roster::errc;
using roster::within;
using test::drain;
using test::spawn;

namespace {

constexpr auto never = (std::chrono::steady_clock::time_point::max)();
constexpr auto long_ago = std::chrono::steady_clock::time_point();

asio::awaitable<std::unique_ptr<int>> make(int value) {
  co_await asio::post(asio::use_awaitable);
  co_return std::make_unique<int>(value);
}

asio::awaitable<void> fails() {
  co_await asio::post(asio::use_awaitable);
  throw std::runtime_error("its own");
}

asio::awaitable<void> waits(test::gate& gate, int& ended) {
  struct note {
    explicit note(int& count) : counter(count) {}
    note(const note&) = delete;
    note& operator=(const note&) = delete;
    ~note() { ++counter; }
    int& counter;
  } end(ended);
  co_await gate.wait();
}

asio::awaitable<int> waits_for_ever() {
  asio::steady_timer timer(co_await asio::this_coro::executor, never);
  co_await timer.async_wait(asio::use_awaitable);
  co_return 1;
}

/// Goes on when it is cancelled.
asio::awaitable<int> insists() {
  asio::steady_timer timer(co_await asio::this_coro::executor, never);
  roster::error_code code;
  co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, code));
  co_return 7;
}

}  // namespace

TEST_CASE("What ends in time ends as it would by itself") {
  asio::io_context loop;
  auto value = spawn(loop, within(never, make(3)));
  auto failure = spawn(loop, within(1h, fails()));
  auto longest = spawn(loop, within((std::chrono::steady_clock::duration::max)(), make(4)));
  drain(loop);
  REQUIRE(value.succeeded());
  CHECK(*value.value() == 3);
  REQUIRE(longest.succeeded());
  CHECK(*longest.value() == 4);
  REQUIRE(failure.done());
  CHECK_THROWS_WITH(std::rethrow_exception(failure.failure()), "its own");
  CHECK(loop.stopped());  // no timer is left
}

TEST_CASE("When the time is over the operation is cancelled, and its end awaited") {
  asio::io_context loop;
  test::gate gate(loop);
  int ended = 0;
  auto late = spawn(loop, within(long_ago, waits(gate, ended)));
  auto gone = spawn(loop, within(0s, waits_for_ever()));
  test::run_until(loop, [&] { return late.done() && gone.done(); });
  CHECK(late.code() == errc::deadline_exceeded);
  CHECK(gone.code() == errc::deadline_exceeded);
  CHECK(ended == 1);
}

TEST_CASE("A value that comes though the time was over is returned") {
  asio::io_context loop;
  auto task = spawn(loop, within(long_ago, insists()));
  test::run_until(loop, [&] { return task.done(); });
  REQUIRE(task.succeeded());
  CHECK(task.value() == 7);
}

TEST_CASE("What an operation fails with though the time was over is passed on") {
  asio::io_context loop;
  auto cleans_up = [](bool with_a_code) -> asio::awaitable<int> {
    co_await insists();
    if (with_a_code) throw roster::error(errc::bad_model);
    throw std::runtime_error("its own");
  };
  auto code = spawn(loop, within(long_ago, cleans_up(true)));
  auto message = spawn(loop, within(long_ago, cleans_up(false)));
  test::run_until(loop, [&] { return code.done() && message.done(); });
  CHECK(code.code() == errc::bad_model);
  REQUIRE(message.failure());
  CHECK_THROWS_WITH(std::rethrow_exception(message.failure()), "its own");
}

TEST_CASE("The operation runs on a strand of the caller's executor, where the caller resumes") {
  asio::io_context loop;
  const auto home = asio::make_strand(loop);
  using strand = asio::strand<asio::any_io_executor>;
  auto whereabouts = [](const auto& outer, bool ends) -> asio::awaitable<bool> {
    const asio::any_io_executor executor = co_await asio::this_coro::executor;
    const auto* own = executor.target<strand>();
    if (!ends) co_await insists();
    co_return own && own->running_in_this_thread() && own->get_inner_executor() == asio::any_io_executor(outer);
  };
  auto caller = [&](const auto& outer) -> asio::awaitable<int> {
    int right = 0;
    right += co_await within(never, whereabouts(outer, true)) && outer.running_in_this_thread();
    right += co_await within(long_ago, whereabouts(outer, false)) && outer.running_in_this_thread();
    co_return right;
  };
  auto task = spawn(home, caller(home));
  test::run_until(loop, [&] { return task.done(); });
  CHECK(task.value() == 2);
}

TEST_CASE("A cancelled caller waits for the operation's end, and gets what it ended with") {
  asio::io_context loop;
  test::gate clean_up(loop);
  auto lingers = [](test::gate& gate) -> asio::awaitable<int> {
    const int value = co_await insists();
    co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
    co_await asio::this_coro::throw_if_cancelled(false);
    co_await gate.wait();
    co_return value;
  };
  auto task = spawn(loop, within(never, lingers(clean_up)));
  drain(loop);
  task.cancel();
  drain(loop);
  CHECK(clean_up.waiting() == 1);
  CHECK_FALSE(task.done());
  clean_up.open();
  drain(loop);
  REQUIRE(task.succeeded());
  CHECK(task.value() == 7);
}

TEST_CASE("Cancelling the caller cancels the operation, which is not told of a deadline") {
  asio::io_context loop;
  test::gate gate(loop);
  int ended = 0;
  auto task = spawn(loop, within(never, waits(gate, ended)));
  drain(loop);
  CHECK_FALSE(task.done());
  task.cancel();
  drain(loop);
  CHECK(task.aborted());
  CHECK(ended == 1);
  CHECK(loop.stopped());
}

TEST_CASE("An operation with a deadline may be cancelled at any step, and its context may be destroyed") {
  const bool destroyed = GENERATE(false, true);
  const bool expired = GENERATE(false, true);
  for (std::size_t steps = 0; steps < 16; ++steps) {
    auto loop = std::make_unique<asio::io_context>();
    auto task = spawn(*loop, within(expired ? long_ago : never, insists()));
    test::step(*loop, steps);
    if (destroyed) {
      loop.reset();
      continue;
    }
    task.cancel();
    drain(*loop);
    CHECK(task.done());
  }
}

TEST_CASE("On a context with many threads deadlines, cancellations and ends may meet") {
  asio::thread_pool pool(3);
  std::vector<std::future<int>> results;
  for (int i = 0; i < 300; ++i)
    results.push_back(asio::co_spawn(pool, within(std::chrono::microseconds(i % 20), insists()), asio::use_future));
  for (auto& each : results)
    CHECK(each.get() == 7);
  std::vector<std::future<std::unique_ptr<int>>> values;
  for (int i = 0; i < 300; ++i)
    values.push_back(asio::co_spawn(pool, within(std::chrono::microseconds(i % 20), make(i)), asio::use_future));
  int right = 0;
  for (int i = 0; i < 300; ++i) {
    try {
      right += *values[static_cast<std::size_t>(i)].get() == i;
    } catch (const boost::system::system_error& e) {
      right += e.code() == errc::deadline_exceeded;
    }
  }
  CHECK(right == 300);
  pool.join();
}
