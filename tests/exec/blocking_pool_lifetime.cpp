#include <roster/exec/blocking_pool.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/exec.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>

#include <algorithm>
#include <cstddef>
#include <future>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace asio = boost::asio;
using roster::blocking_pool;
using roster::call_options;
using roster::errc;
using roster::run_context;
using test::checkpoint;
using test::destruction_logger;
using test::run_until;
using test::spawn;

namespace {

void nothing() {}

/// One thread busy until told to stop or let through, one call queued, one waiting.
struct full_pool {
  asio::io_context loop;
  std::optional<blocking_pool> pool{std::in_place, 1, 1};
  checkpoint gate;
  std::shared_ptr<destruction_logger::log> destroyed = std::make_shared<destruction_logger::log>();
  test::task<bool> running = spawn(loop, pool->run(engine, &gate));
  test::task<void> queued = spawn(loop, pool->run([](const destruction_logger&) {}, destruction_logger(destroyed)));
  test::task<void> waiting = spawn(loop, pool->run([](const destruction_logger&) {}, destruction_logger(destroyed)));

  static bool engine(run_context& context, checkpoint* gate) {
    gate->pass();
    return context.stop_requested();
  }

  full_pool() {
    test::drain(loop);
    gate.await();
  }
};

}  // namespace

TEST_CASE("stop fails what is queued or waits, lets what runs finish, and completes then", "[b57]") {
  full_pool f;
  auto stopping = spawn(f.loop, f.pool->stop());
  test::drain(f.loop);
  CHECK(f.queued.code() == errc::stopped);
  CHECK(f.waiting.code() == errc::stopped);
  CHECK(f.destroyed->size() == 2);
  CHECK_FALSE(f.running.done());
  CHECK_FALSE(stopping.done());
  CHECK(f.pool->queued() + f.pool->waiting() == 0);

  f.gate.open();
  run_until(f.loop, [&] { return stopping.done(); });
  CHECK(stopping.succeeded());
  CHECK(f.pool->running() == 0);
  run_until(f.loop, [&] { return f.running.done(); });
  CHECK_FALSE(f.running.value());  // finished undisturbed
}

TEST_CASE("A stopped pool refuses every kind of call, and can be stopped again", "[b58]") {
  asio::io_context loop;
  blocking_pool pool(2);
  auto first = spawn(loop, pool.stop());
  auto second = spawn(loop, pool.stop());
  auto plain = spawn(loop, pool.run(nothing));
  auto attempt = spawn(loop, pool.try_run(nothing));
  auto detachable = spawn(loop, pool.run_detachable(call_options(), nothing));
  run_until(loop, [&] { return detachable.done() && second.done(); });
  CHECK(first.succeeded());
  CHECK(second.succeeded());
  CHECK(plain.code() == errc::stopped);
  CHECK(attempt.code() == errc::stopped);
  CHECK(detachable.code() == errc::stopped);
  std::promise<roster::error_code> told;
  pool.async_run([] {}, [&](const std::exception_ptr& failure) { told.set_value(test::code_of(failure)); });
  CHECK(told.get_future().get() == errc::stopped);
}

TEST_CASE("Cancelling a stop ends the wait, not the stopping", "[b58]") {
  full_pool f;
  auto stopping = spawn(f.loop, f.pool->stop());
  auto patient = f.pool->async_stop(asio::use_future);
  test::drain(f.loop);
  stopping.cancel();
  test::drain(f.loop);
  CHECK(stopping.aborted());
  auto late = spawn(f.loop, f.pool->run(nothing));
  test::drain(f.loop);
  CHECK(late.code() == errc::stopped);
  f.gate.open();
  patient.get();
  run_until(f.loop, [&] { return f.running.done(); });
}

TEST_CASE("stop may be awaited from work's own completion, and from several threads", "[b58]") {
  blocking_pool pool(2);
  std::vector<std::future<void>> stops(8);
  std::vector<std::thread> threads;
  for (auto& each : stops)
    threads.emplace_back([&] { each = pool.async_stop(asio::use_future); });
  for (auto& each : threads)
    each.join();
  for (auto& each : stops)
    CHECK_NOTHROW(each.get());
}

TEST_CASE("A pool stops when it is told to, though nobody waits for it", "[b57]") {
  full_pool f;
  if (GENERATE(false, true))
    auto unawaited = f.pool->stop();
  else
    auto unstarted = f.pool->async_stop(asio::deferred);
  CHECK(f.destroyed->size() == 2);
  auto late = spawn(f.loop, f.pool->run(nothing));
  test::drain(f.loop);
  CHECK(f.queued.code() == errc::stopped);
  CHECK(f.waiting.code() == errc::stopped);
  CHECK(late.code() == errc::stopped);
  f.gate.open();
  run_until(f.loop, [&] { return f.running.done(); });
}

TEST_CASE("async_stop calls a handler without an executor of its own on the system executor", "[b4]") {
  blocking_pool pool(1);
  const auto worker = pool.async_run([] { return std::this_thread::get_id(); }, asio::use_future).get();
  std::promise<std::thread::id> told;
  pool.async_stop([&](roster::error_code) { told.set_value(std::this_thread::get_id()); });
  const auto thread = told.get_future().get();
  CHECK(thread != std::this_thread::get_id());
  CHECK(thread != worker);
}

TEST_CASE("A coroutine with an executor type of its own can stop a pool", "[b57]") {
  using executor_type = asio::io_context::executor_type;
  full_pool f;
  int stops = 0;
  auto stopping = [](blocking_pool& pool, int& count) -> asio::awaitable<void, executor_type> {
    co_await pool.stop<executor_type>();
    ++count;
  };
  asio::co_spawn(f.loop, stopping(*f.pool, stops), asio::detached);
  test::drain(f.loop);
  CHECK(f.queued.code() == errc::stopped);
  CHECK(stops == 0);
  f.gate.open();
  run_until(f.loop, [&] { return stops == 1 && f.running.done(); });
}

TEST_CASE("async_stop heeds every form of cancellation", "[b58]") {
  full_pool f;
  const auto type =
      GENERATE(asio::cancellation_type::terminal, asio::cancellation_type::partial, asio::cancellation_type::total);
  asio::cancellation_signal signal;
  std::vector<roster::error_code> outcomes;
  auto handler = [&](roster::error_code code) { outcomes.push_back(code); };
  f.pool->async_stop(asio::bind_cancellation_slot(signal.slot(), asio::bind_executor(f.loop, handler)));
  signal.emit(asio::cancellation_type::none);
  test::drain(f.loop);
  CHECK(outcomes.empty());
  signal.emit(type);
  signal.emit(type);
  CHECK(outcomes.empty());
  test::drain(f.loop);
  CHECK(outcomes == std::vector{make_error_code(asio::error::operation_aborted)});
  f.gate.open();
  run_until(f.loop, [&] { return f.running.done(); });
}

TEST_CASE("Destroying a pool fails what has not started, raises the stop flag of what runs, and waits for it", "[b57]") {
  full_pool f;
  f.destroyed->clear();
  std::thread owner([&] { f.pool.reset(); });
  run_until(f.loop, [&] { return f.queued.done() && f.waiting.done(); });
  CHECK(f.queued.code() == errc::stopped);
  CHECK(f.waiting.code() == errc::stopped);
  f.gate.open();
  owner.join();
  run_until(f.loop, [&] { return f.running.done(); });
  CHECK(f.destroyed->size() == 2);
}

TEST_CASE("Running work learns from the stop flag that its pool is being destroyed", "[b57]") {
  asio::io_context loop;
  std::optional<blocking_pool> pool(std::in_place, 3);
  checkpoint gate;
  auto obedient = [&](run_context& context) {
    gate.arrive();
    while (!context.stop_requested())
      std::this_thread::yield();
    return true;
  };
  std::vector<test::task<bool>> calls;
  for (int i = 0; i < 3; ++i)
    calls.push_back(spawn(loop, pool->run(obedient)));
  test::drain(loop);
  gate.await(3);
  pool.reset();
  test::drain(loop);
  for (auto& call : calls)
    CHECK(call.value());
}

TEST_CASE("The last handle of a pool may be dropped on one of its threads", "[b58]") {
  const std::size_t threads = GENERATE(1u, 3u);
  checkpoint gate;
  std::promise<void> dropped;
  auto pool = std::make_unique<blocking_pool>(threads);
  auto last = [&] {
    gate.pass();
    pool.reset();
    dropped.set_value();
  };
  // The detached thread may still be posting when main returns: to a context that is never destroyed.
  static auto& loop = *new asio::io_context;
  pool->async_run(last, asio::bind_executor(loop, [](std::exception_ptr) {}));
  gate.await();
  gate.open();
  dropped.get_future().get();
}

TEST_CASE("What still uses a pool that is gone gets stopped", "[b59]") {
  asio::io_context loop;
  std::optional<blocking_pool> pool(std::in_place, 1);
  auto prepared = pool->run(nothing);
  auto attempt = pool->try_run(nothing);
  pool.reset();
  auto call = spawn(loop, std::move(prepared));
  auto second = spawn(loop, std::move(attempt));
  test::drain(loop);
  CHECK(call.code() == errc::stopped);
  CHECK(second.code() == errc::stopped);
}

TEST_CASE("A call that is never awaited never starts") {
  bool started = false;
  {
    blocking_pool pool(1);
    auto mark = [&] { started = true; };
    auto forgotten = pool.run(mark);
  }
  CHECK_FALSE(started);
}

TEST_CASE("Completions that were never delivered are destroyed with their context", "[b5][b60]") {
  auto destroyed = std::make_shared<destruction_logger::log>();
  checkpoint gate;
  {
    asio::io_context loop;
    blocking_pool pool(1);
    auto caller = [](blocking_pool& p, checkpoint* barrier, std::shared_ptr<destruction_logger::log> log,
                     destruction_logger) -> asio::awaitable<void> {
      auto work = [](checkpoint* g, std::shared_ptr<destruction_logger::log> l) {
        g->pass();
        return destruction_logger(std::move(l));
      };
      co_await p.run(work, barrier, std::move(log));
      FAIL("resumed");
    };
    asio::co_spawn(loop, caller(pool, &gate, destroyed, destruction_logger(destroyed)),
                   [](std::exception_ptr) { FAIL("completed"); });
    test::drain(loop);
    gate.open();
    pool.async_run([] {}, asio::use_future).get();
  }
  CHECK(destroyed->size() == 2);  // the result under way, and the caller's frame
}

namespace {

std::shared_ptr<int> pass_on(checkpoint* gate, std::shared_ptr<int> value) {
  gate->pass();
  return value;
}

/// Two calls in turn. What is given lives in the frame, in the work, and in the result.
asio::awaitable<void> pass_on_twice(blocking_pool& pool, checkpoint& gate, std::shared_ptr<int> value) {
  for (int i = 0; i < 2; ++i)
    co_await pool.run(pass_on, &gate, value);
}

}  // namespace

TEST_CASE("A context may be destroyed at any step of calls on a pool, after the pool or before", "[b5][b60]") {
  const bool pool_first = GENERATE(false, true);
  bool complete = false;
  for (std::size_t steps = 0; !complete; ++steps) {
    asio::io_context other;
    std::optional<asio::io_context> loop(std::in_place);
    std::optional<blocking_pool> pool(std::in_place, 1, 1);
    checkpoint gate;
    auto alive = std::make_shared<int>();
    auto first = spawn(*loop, pass_on_twice(*pool, gate, alive));
    auto second = spawn(*loop, pass_on_twice(*pool, gate, alive));
    auto third = spawn(*loop, pass_on_twice(*pool, gate, alive));
    auto prepared = pool->run(nothing);
    const auto first_steps = std::min(steps, std::size_t{3});
    test::step(*loop, first_steps);  // one call runs, the next is queued, the last waits for admission
    CHECK(pool->waiting() == (steps >= 3 ? 1 : 0));
    gate.open();
    std::size_t left = steps - first_steps;
    run_until(*loop, [&] { return third.done() || left-- == 0; });
    complete = third.done();

    if (pool_first)
      pool.reset();
    else
      pool->async_run([] {}, asio::use_future).get();  // whatever the pool ran before has been posted
    loop.reset();
    CAPTURE(pool_first, steps, complete);
    CHECK(first.completions() <= 1);
    CHECK(second.completions() <= 1);
    CHECK(third.completions() == (complete ? 1 : 0));
    CHECK(alive.use_count() == 1);
    auto late = spawn(other, std::move(prepared));
    run_until(other, [&] { return late.done(); });
    CHECK(late.code() == (pool_first ? make_error_code(errc::stopped) : roster::error_code()));
  }
}

TEST_CASE("A loop may be stopped and restarted while calls run", "[b60]") {
  full_pool f;
  f.loop.stop();
  f.gate.open();
  f.pool->async_run([] {}, asio::use_future).get();
  CHECK_FALSE(f.running.done());
  run_until(f.loop, [&] { return f.running.done() && f.queued.done() && f.waiting.done(); });
  CHECK(f.waiting.succeeded());
}

TEST_CASE("A pool without threads is refused") {
  try {
    blocking_pool none(0);
    FAIL("nothing thrown");
  } catch (const roster::error& failure) {
    CHECK(failure.code() == errc::invalid_argument);
  }
}

namespace {
int creations_left = 0;
void fail_after_some() {
  if (creations_left-- == 0) throw std::system_error(EAGAIN, std::generic_category());
}
}  // namespace

TEST_CASE("When a thread cannot be made the constructor throws, and joins those that were", "[b20]") {
  creations_left = 2;
  roster::detail::before_thread_creation = fail_after_some;
  CHECK_THROWS_AS(blocking_pool(3), std::system_error);
  roster::detail::before_thread_creation = nullptr;

  blocking_pool next(3);
  CHECK(next.async_run([] { return 1; }, asio::use_future).get() == 1);
}

TEST_CASE("The memory of a call is returned before its handler is destroyed uncalled", "[b5]") {
  test::handler_memory memory;
  auto loop = std::make_unique<asio::io_context>();
  std::optional<blocking_pool> pool(std::in_place, 1);
  SECTION("its result is on the way") {
    const auto work = [] {};
    pool->async_run(work, asio::bind_executor(*loop, memory.handler()));
  }
  SECTION("the end of the pool is on the way") {
    pool->async_stop(asio::bind_executor(*loop, memory.handler()));
  }
  pool.reset();
  REQUIRE(memory.live() > 0);
  loop.reset();
  CHECK(memory.live_at_the_end == std::size_t{0});
}
