#include <roster/exec/blocking_pool.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/exec.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/use_future.hpp>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

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

/// An engine that ends when it is asked to.
void obey(run_context& context, checkpoint& gate) {
  gate.arrive();
  while (!context.stop_requested())
    std::this_thread::yield();
  context.throw_if_stop_requested();
}

}  // namespace

TEST_CASE("A cancelled call that waits for admission leaves, and those behind it move up", "[b12][b13]") {
  asio::io_context loop;
  blocking_pool pool(1, 1);
  checkpoint gate;
  std::vector<int> order;
  auto note = [&](int n) { order.push_back(n); };

  auto running = occupy(loop, pool, gate);
  auto first = spawn(loop, pool.run(note, 1));
  auto second = spawn(loop, pool.run(note, 2));
  auto third = spawn(loop, pool.run(note, 3));
  test::drain(loop);
  REQUIRE(pool.waiting() == 2);

  second.cancel();
  test::drain(loop);
  CHECK(second.aborted());
  CHECK(pool.queued() == 1);
  CHECK(pool.waiting() == 1);

  gate.open();
  run_until(loop, [&] { return third.done(); });
  CHECK(order == std::vector<int>{1, 3});
}

TEST_CASE("A cancelled queued call never reaches the engine, and its place is free at once", "[b13]") {
  asio::io_context loop;
  blocking_pool pool(1, 1);
  checkpoint gate;
  std::vector<int> order;
  auto note = [&](int n) { order.push_back(n); };

  auto running = occupy(loop, pool, gate);
  auto queued = spawn(loop, pool.run(note, 1));
  auto waiting = spawn(loop, pool.run(note, 2));
  test::drain(loop);
  queued.cancel();
  test::drain(loop);
  CHECK(queued.aborted());
  CHECK(pool.queued() == 1);
  CHECK(pool.waiting() == 0);

  waiting.cancel();
  test::drain(loop);
  CHECK(pool.queued() == 0);
  auto taken = spawn(loop, pool.try_run(note, 3));
  test::drain(loop);
  CHECK(pool.queued() == 1);

  gate.open();
  run_until(loop, [&] { return running.done() && taken.done(); });
  CHECK(order == std::vector<int>{3});
}

TEST_CASE("What a cancelled call had not started is destroyed on the cancelling thread", "[b13]") {
  asio::io_context loop;
  blocking_pool pool(1, 1);
  checkpoint gate;
  auto destroyed = std::make_shared<destruction_logger::log>();

  auto running = occupy(loop, pool, gate);
  auto queued = spawn(loop, pool.run([](const destruction_logger&) {}, destruction_logger(destroyed)));
  auto waiting = spawn(loop, pool.run_detachable(
                                 call_options(), [](const destruction_logger&) {}, destruction_logger(destroyed)));
  test::drain(loop);
  CHECK(destroyed->empty());
  waiting.cancel();
  queued.cancel();
  // Boost's versions differ in how many turns of the loop a cancellation takes; the completions are behind both.
  while (destroyed->size() < 2 && test::step(loop) == 1) {
  }
  CHECK(*destroyed == destruction_logger::log{std::this_thread::get_id(), std::this_thread::get_id()});
  CHECK_FALSE(queued.done());

  test::drain(loop);
  CHECK(queued.aborted());
  CHECK(waiting.aborted());
  gate.open();
  run_until(loop, [&] { return running.done(); });
}

TEST_CASE("A cancelled running call sees the stop request and completes with its own outcome when it returns", "[b13]") {
  asio::io_context loop;
  blocking_pool pool(1);
  checkpoint gate;
  const bool deaf = GENERATE(false, true);

  auto engine = [&, deaf](run_context& context) {
    gate.pass();
    const bool asked = context.stop_requested();
    if (!deaf) context.throw_if_stop_requested();
    return asked;
  };
  auto call = spawn(loop, pool.run(engine));
  test::drain(loop);
  gate.await();
  call.cancel();
  test::drain(loop);
  CHECK_FALSE(call.done());
  CHECK(pool.running() == 1);

  gate.open();
  run_until(loop, [&] { return call.done(); });
  if (deaf)
    CHECK(call.value());
  else
    CHECK(call.aborted());
}

TEST_CASE("A cancelled running call that owns what it touches resumes at once, its thread stays taken until it returns",
          "[b13]") {
  asio::io_context loop;
  blocking_pool pool(1, 0);
  checkpoint gate;
  auto destroyed = std::make_shared<destruction_logger::log>();

  auto engine = [](run_context& context, checkpoint* barrier, std::shared_ptr<destruction_logger::log> log,
                   destruction_logger) {
    barrier->pass();
    if (!context.stop_requested()) throw std::logic_error("not asked to stop");
    return std::make_shared<destruction_logger>(log);
  };
  auto call = spawn(loop, pool.run_detachable(call_options(), engine, &gate, destroyed, destruction_logger(destroyed)));
  test::drain(loop);
  gate.await();
  call.cancel();
  test::drain(loop);
  CHECK(call.aborted());
  CHECK(pool.running() == 1);
  auto refused = spawn(loop, pool.try_run([] {}));
  auto next = spawn(loop, pool.run([] { return std::this_thread::get_id(); }));
  test::drain(loop);
  CHECK(refused.code() == errc::queue_full);
  CHECK(pool.waiting() == 1);

  gate.open();
  run_until(loop, [&] { return next.done(); });
  CHECK(*destroyed == destruction_logger::log{next.value(), next.value()});  // the argument, and the result nobody wants
}

TEST_CASE("Every form of cancellation is heeded, and none when there is nothing to cancel") {
  asio::io_context loop;
  blocking_pool pool(1);
  checkpoint gate;
  int calls = 0;
  roster::error_code outcome;
  asio::cancellation_signal signal;
  const auto type =
      GENERATE(asio::cancellation_type::terminal, asio::cancellation_type::partial, asio::cancellation_type::total);

  auto running = occupy(loop, pool, gate);
  auto handler = [&](std::exception_ptr failure) {
    ++calls;
    outcome = test::code_of(failure);
  };
  signal.emit(type);  // too early
  auto nothing = [] {};
  pool.async_run(nothing, asio::bind_cancellation_slot(signal.slot(), asio::bind_executor(loop.get_executor(), handler)));
  signal.emit(asio::cancellation_type::none);
  CHECK(pool.queued() == 1);
  signal.emit(type);
  CHECK(calls == 0);
  CHECK(pool.queued() == 0);
  signal.emit(type);  // twice
  gate.open();
  run_until(loop, [&] { return running.done() && calls > 0; });
  signal.emit(type);  // too late
  test::drain(loop);
  CHECK(calls == 1);
  CHECK(outcome == asio::error::operation_aborted);
}

TEST_CASE("Cancelling between the end of the work and the resumption of its caller changes nothing", "[b6][b14]") {
  asio::io_context loop;
  blocking_pool pool(1);
  const bool detachable = GENERATE(false, true);
  auto seven = [] { return 7; };

  auto call = detachable ? spawn(loop, pool.run_detachable(call_options(), seven)) : spawn(loop, pool.run(seven));
  test::drain(loop);
  // The next call has run: the first one's completion is under way to the loop, which stands still.
  pool.async_run([] {}, asio::use_future).get();
  call.cancel();
  call.cancel();
  run_until(loop, [&] { return call.done(); });
  CHECK(call.value() == 7);
}

TEST_CASE("A call cancelled before it began does not begin", "[b14]") {
  asio::io_context loop;
  blocking_pool pool(1);
  bool started = false;
  auto work = [&] { started = true; };
  auto caller = [](blocking_pool& p, test::gate& g, decltype(work)& engine) -> asio::awaitable<void> {
    try {
      co_await g.wait();
    } catch (const boost::system::system_error&) {
    }
    co_await p.run(engine);
  };
  test::gate until(loop);
  auto call = spawn(loop, caller(pool, until, work));
  test::drain(loop);
  call.cancel();
  run_until(loop, [&] { return call.done(); });
  CHECK(call.aborted());
  CHECK_FALSE(started);
}

TEST_CASE("Cancelling queued calls while the pool stops completes each of them once", "[b14]") {
  // The loops of caller and stopper are different threads: the two really meet.
  for (int round = 0; round < 200; ++round) {
    test::loop_thread callers;
    blocking_pool pool(1);
    checkpoint gate;
    std::atomic<int> completions{0};
    std::vector<asio::cancellation_signal> signals(20);

    asio::post(callers.context(), [&] {
      pool.async_run([&gate] { gate.pass(); }, [](std::exception_ptr) {});
      gate.await();
      for (auto& signal : signals) {
        auto count = [&](std::exception_ptr) { ++completions; };
        auto home = asio::bind_executor(callers.context().get_executor(), count);
        pool.async_run([] {}, asio::bind_cancellation_slot(signal.slot(), home));
      }
      gate.arrive();
      for (auto& signal : signals)
        signal.emit(asio::cancellation_type::terminal);
    });
    gate.await(2);
    auto stopped = pool.async_stop(asio::use_future);
    gate.open();
    stopped.get();
    callers.join();
    REQUIRE(completions == 20);
    REQUIRE(pool.queued() + pool.waiting() == 0);
  }
}

TEST_CASE("An obedient engine that is cancelled gives its thread back", "[b13]") {
  asio::io_context loop;
  blocking_pool pool(1);
  checkpoint gate;

  auto call = spawn(loop, pool.run(obey, std::ref(gate)));
  test::drain(loop);
  gate.await();
  call.cancel();
  run_until(loop, [&] { return call.done(); });
  CHECK(call.aborted());
  CHECK(pool.running() == 0);
}
