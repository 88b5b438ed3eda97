#include <roster/exec/stream.hpp>
#include <roster/exec/worker_thread.hpp>

#include "tests/exec/stream_engine.hpp"
#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/exec.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/use_future.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace asio = boost::asio;
using roster::call_options;
using roster::errc;
using roster::run_context;
using roster::run_progress;
using roster::sink;
using roster::worker_thread;
using test::checkpoint;
using test::engine;
using test::make_engine;
using test::run_until;
using test::spawn;

namespace {

using worker_type = worker_thread<engine>;
using boxed_int = std::unique_ptr<int>;  // move-only
using stream_type = roster::stream<boxed_int>;

/// Everything up to the end.
asio::awaitable<std::vector<int>> collect(stream_type& from) {
  std::vector<int> all;
  for (;;) {
    auto next = co_await from.next();
    if (!next) co_return all;
    all.push_back(**next);
  }
}

/// Pushes `count` numbers, as long as they are wanted.
auto numbers(int count) {
  return [count](engine&, sink<boxed_int>& out, run_context&) {
    for (int i = 0; i < count && out.push(std::make_unique<int>(i)); ++i) {
    }
  };
}

std::vector<int> up_to(int count) {
  std::vector<int> all;
  for (int i = 0; i < count; ++i)
    all.push_back(i);
  return all;
}

struct fixture {
  asio::io_context loop;
  std::optional<worker_type> worker{std::in_place, loop.get_executor(), make_engine};

  template <typename Produce>
  stream_type start(Produce produce, std::size_t capacity = 4) {
    return worker->start_stream<boxed_int>(call_options(), std::move(produce), capacity);
  }

  template <typename T>
  auto finish(asio::awaitable<T> coroutine) {
    auto task = spawn(loop, std::move(coroutine));
    run_until(loop, [&] { return task.done(); });
    return task;
  }

  /// The worker's thread is done with all that came before.
  void settle() {
    CHECK(finish(worker->run([](engine&) {})).succeeded());
  }
};

}  // namespace

TEST_CASE("Chunks arrive in order, then exactly one end, then nothing for ever", "[b23]") {
  fixture f;
  auto stream = f.start(numbers(1000), GENERATE(1u, 2u, 3u, 64u, 2000u));
  CHECK(f.finish(collect(stream)).value() == up_to(1000));
  for (int i = 0; i < 3; ++i)
    CHECK_FALSE(f.finish(stream.next()).value());
}

TEST_CASE("A stream that produces nothing just ends", "[b23]") {
  fixture f;
  auto stream = f.start(numbers(0));
  CHECK(f.finish(collect(stream)).value().empty());
}

TEST_CASE("A channel that is full when the stream ends still delivers everything, then the end", "[b23]") {
  fixture f;
  auto stream = f.start(numbers(4), 4);
  f.settle();
  CHECK(f.finish(collect(stream)).value() == up_to(4));
}

TEST_CASE("A chunk that is buffered is read without suspending", "[b23]") {
  fixture f;
  auto stream = f.start(numbers(1000), 1000);
  f.settle();
  auto all = spawn(f.loop, collect(stream));
  CHECK(test::drain(f.loop) < 10);
  CHECK(all.value() == up_to(1000));
}

TEST_CASE("A consumer resumes on its own executor, whoever pushes, and whether it waited or not", "[b4]") {
  fixture f;
  checkpoint gate;
  auto stream = f.start([&](engine&, sink<boxed_int>& out, run_context&) {
    out.push(std::make_unique<int>(0));
    gate.pass();
    out.push(std::make_unique<int>(1));
  });
  f.finish(f.worker->start());
  auto reading = [](stream_type& from, std::vector<std::thread::id>& threads) -> asio::awaitable<void> {
    for (bool more = true; more; threads.push_back(std::this_thread::get_id()))
      more = (co_await from.next()).has_value();
  };
  asio::io_context home;
  std::vector<std::thread::id> threads;
  auto task = spawn(home, reading(stream, threads));
  while (gate.arrived() == 0)
    test::drain(f.loop);
  while (threads.empty())
    test::drain(home);
  test::drain(home);  // waits for the second
  gate.open();
  run_until(home, [&] { return task.done(); });
  CHECK(threads == std::vector(3, std::this_thread::get_id()));
}

TEST_CASE("An error after values is rethrown once after those values, then the stream has ended", "[b23]") {
  fixture f;
  const bool standard = GENERATE(true, false);
  auto stream = f.start([=](engine&, sink<boxed_int>& out, run_context&) {
    out.push(std::make_unique<int>(1));
    out.push(std::make_unique<int>(2));
    if (standard) throw std::runtime_error("context window exceeded");
    throw 42;
  });
  f.settle();
  CHECK(**f.finish(stream.next()).value() == 1);
  CHECK(**f.finish(stream.next()).value() == 2);
  auto failed = f.finish(stream.next());
  REQUIRE(failed.failure());
  if (standard)
    CHECK_THROWS_WITH(std::rethrow_exception(failed.failure()), "context window exceeded");
  else
    CHECK_THROWS_AS(std::rethrow_exception(failed.failure()), int);
  CHECK_FALSE(f.finish(stream.next()).value());
  f.settle();  // the thread is healthy
}

TEST_CASE("A failed start is an error of the stream, never an empty success", "[b22]") {
  asio::io_context loop;
  auto expect = [&](stream_type stream, auto check) {
    auto first = spawn(loop, stream.next());
    run_until(loop, [&] { return first.done(); });
    REQUIRE(first.failure());
    check(first);
    auto second = spawn(loop, stream.next());
    run_until(loop, [&] { return second.done(); });
    CHECK_FALSE(second.value());
  };
  SECTION("the factory throws") {
    worker_type worker(loop.get_executor(), []() -> engine { throw std::runtime_error("no such model"); });
    expect(worker.start_stream<boxed_int>(call_options(), numbers(3)),
           [](auto& call) { CHECK_THROWS_WITH(std::rethrow_exception(call.failure()), "no such model"); });
  }
  SECTION("the worker lives on another device") {
    worker_type worker(loop.get_executor(), make_engine, "cpu");
    auto start = spawn(loop, worker.start());
    run_until(loop, [&] { return start.done(); });
    expect(worker.start_stream<boxed_int>(call_options().on("cuda:0"), numbers(3)),
           [](auto& call) { CHECK(call.code() == errc::device_mismatch); });
  }
  SECTION("the worker was stopped") {
    worker_type worker(loop.get_executor(), make_engine);
    auto stop = spawn(loop, worker.stop());
    run_until(loop, [&] { return stop.done(); });
    expect(worker.start_stream<boxed_int>(call_options(), numbers(3)), [](auto& call) { CHECK(call.code() == errc::stopped); });
  }
  SECTION("the deadline has passed") {
    worker_type worker(loop.get_executor(), make_engine);
    expect(worker.start_stream<boxed_int>(call_options().deadline(call_options::time_point::clock::now()), numbers(3)),
           [](auto& call) { CHECK(call.code() == errc::deadline_exceeded); });
  }
  SECTION("no room for a single chunk") {
    worker_type worker(loop.get_executor(), make_engine);
    try {
      auto refused = worker.start_stream<boxed_int>(call_options(), numbers(3), 0);
      FAIL("nothing thrown");
    } catch (const roster::error& failure) {
      CHECK(failure.code() == errc::invalid_argument);
    }
  }
}

TEST_CASE("A stream starts when it is asked for, not when it is first read") {
  fixture f;
  checkpoint gate;
  gate.open();
  auto stream = f.start([&](engine&, sink<boxed_int>&, run_context&) { gate.pass(); });
  f.settle();
  CHECK(gate.arrived() == 1);
}

TEST_CASE("A consumer that never reads: the buffer stays within its bound, and the engine waits", "[b24]") {
  fixture f;
  std::atomic<int> pushed{0};
  auto stream = f.start(
      [&](engine&, sink<boxed_int>& out, run_context&) {
        while (out.push(std::make_unique<int>(pushed)))
          ++pushed;
      },
      3);
  auto queued = spawn(f.loop, f.worker->run([](engine&) {}));
  while (pushed < 3)
    test::drain(f.loop);
  CHECK(f.worker->depth() >= 1);
  CHECK(**f.finish(stream.next()).value() == 0);
  CHECK(pushed <= 4);

  SECTION("destroying the worker gets through") {
    f.worker.reset();
    CHECK(**f.finish(stream.next()).value() == 1);
    CHECK(**f.finish(stream.next()).value() == 2);
    CHECK(f.finish(collect(stream)).code() == errc::stopped);
    CHECK(f.finish(collect(stream)).value().empty());
  }
  SECTION("dropping the stream frees the thread") {
    { auto dropped = std::move(stream); }
    run_until(f.loop, [&] { return queued.done(); });
    CHECK(queued.succeeded());
  }
  test::drain(f.loop);
}

TEST_CASE("An engine that waits for room goes on once half of what is buffered has been read", "[b24]") {
  fixture f;
  std::atomic<int> pushed{0};
  auto stream = f.start(
      [&](engine&, sink<boxed_int>& out, run_context&) {
        while (out.push(std::make_unique<int>(pushed)))
          ++pushed;
      },
      4);
  while (pushed < 4)
    test::drain(f.loop);
  CHECK(**f.finish(stream.next()).value() == 0);
  CHECK(**f.finish(stream.next()).value() == 1);
  while (pushed < 6)
    std::this_thread::yield();
}

TEST_CASE("A stream whose capacity nobody gives has the default one", "[b24]") {
  fixture f;
  std::atomic<std::size_t> pushed{0};
  checkpoint full;
  auto stream = f.worker->start_stream<boxed_int>(call_options(), [&](engine&, sink<boxed_int>& out, run_context&) {
    while (pushed < worker_type::default_stream_capacity && out.push(std::make_unique<int>(0)))
      ++pushed;
    full.arrive();
    while (out.push(std::make_unique<int>(0)))
      ++pushed;
  });
  while (full.arrived() == 0)
    test::drain(f.loop);
  stream.cancel();
  f.settle();
  CHECK(pushed == worker_type::default_stream_capacity);
}

TEST_CASE("A worker destroyed while the consumer waits ends the stream with its own error", "[b27]") {
  fixture f;
  checkpoint gate;
  auto stream = f.start([&](engine&, sink<boxed_int>& out, run_context& context) {
    gate.arrive();
    while (!context.stop_requested())
      std::this_thread::yield();
    CHECK_FALSE(out.push(std::make_unique<int>(0)));
  });
  auto next = spawn(f.loop, stream.next());
  while (gate.arrived() == 0)
    test::drain(f.loop);
  CHECK_FALSE(next.done());
  f.worker.reset();
  run_until(f.loop, [&] { return next.done(); });
  CHECK(next.code() == errc::stopped);
}

TEST_CASE("A stream that was queued when its worker was stopped fails with stopped", "[b27]") {
  fixture f;
  f.settle();
  checkpoint gate;
  auto running = spawn(f.loop, f.worker->run([](engine&, checkpoint* barrier) { barrier->pass(); }, &gate));
  test::drain(f.loop);
  gate.await();
  auto stream = f.start(numbers(3));
  auto next = spawn(f.loop, stream.next());
  test::drain(f.loop);
  auto stop = spawn(f.loop, f.worker->stop());
  test::drain(f.loop);
  gate.open();
  run_until(f.loop, [&] { return next.done() && stop.done(); });
  CHECK(next.code() == errc::stopped);
  CHECK(running.done());
}

TEST_CASE("A stream lets a worker's stop wait for its end", "[b57]") {
  fixture f;
  auto stream = f.start(numbers(100), 2);
  CHECK(**f.finish(stream.next()).value() == 0);
  auto stop = spawn(f.loop, f.worker->stop());
  auto rest = f.finish(collect(stream));
  CHECK(rest.value().size() == 99);
  run_until(f.loop, [&] { return stop.done(); });
}

TEST_CASE("A consumer that leaves early stops the engine at its next step and frees the thread", "[b25]") {
  fixture f;
  std::atomic<int> steps{0};
  std::atomic<bool> asked{false};
  auto produce = [&](engine&, sink<boxed_int>& out, run_context& context) {
    while (out.push(std::make_unique<int>(0)))
      ++steps;
    asked = context.stop_requested();
  };
  {
    auto stream = f.start(produce, 2);
    CHECK(f.finish(stream.next()).value());
  }
  f.settle();
  CHECK(asked);
  CHECK(steps <= 4);
}

TEST_CASE("A stream dropped while its call is queued never reaches the engine, though the loop is late", "[b13][b25]") {
  fixture f;
  checkpoint busy, gate;
  std::atomic<bool> reached{false};
  auto blocking = [&](engine&, sink<boxed_int>&, run_context&) {
    busy.arrive();
    gate.pass();
  };
  auto produce = [&](engine&, sink<boxed_int>&, run_context&) { reached = true; };
  auto running = f.start(blocking);
  {
    auto dropped = f.start(produce);
    while (busy.arrived() == 0 || f.worker->depth() != 2)
      test::drain(f.loop);
  }
  gate.open();
  while (f.worker->depth() != 0)
    std::this_thread::yield();
  auto last = f.start([](engine&, sink<boxed_int>&, run_context&) {});
  CHECK_FALSE(f.finish(last.next()).value());
  CHECK_FALSE(reached);
}

TEST_CASE("A stream dropped while its call is queued never reaches the engine", "[b13][b25]") {
  fixture f;
  f.settle();
  checkpoint gate;
  auto running = spawn(f.loop, f.worker->run([](engine&, checkpoint* barrier) { barrier->pass(); }, &gate));
  test::drain(f.loop);
  gate.await();
  bool reached = false;
  {
    auto stream = f.start([&](engine&, sink<boxed_int>&, run_context&) { reached = true; });
    test::drain(f.loop);
    CHECK(f.worker->depth() == 2);
  }
  test::drain(f.loop);
  CHECK(f.worker->depth() == 1);
  gate.open();
  run_until(f.loop, [&] { return running.done(); });
  f.settle();
  CHECK_FALSE(reached);
}

TEST_CASE("A stream dropped before the loop heard of it never reaches the engine", "[b25]") {
  fixture f;
  bool reached = false;
  {
    auto stream = f.start([&](engine&, sink<boxed_int>&, run_context&) { reached = true; });
  }
  f.settle();
  CHECK_FALSE(reached);
}

TEST_CASE("cancel drops what is buffered: next fails once with operation_aborted, then the stream has ended", "[b25]") {
  fixture f;
  auto stream = f.start(numbers(3));
  f.settle();
  stream.cancel();
  stream.cancel();
  CHECK(f.finish(stream.next()).aborted());
  CHECK_FALSE(f.finish(stream.next()).value());
}

TEST_CASE("cancel ends a next that waits", "[b25]") {
  fixture f;
  auto stream = f.start([](engine&, sink<boxed_int>&, run_context& context) {
    while (!context.stop_requested())
      std::this_thread::yield();
  });
  auto next = spawn(f.loop, stream.next());
  test::drain(f.loop);
  stream.cancel();
  run_until(f.loop, [&] { return next.done(); });
  CHECK(next.aborted());
  CHECK_FALSE(f.finish(stream.next()).value());
}

TEST_CASE("A cancelled next ends that wait only, and loses no chunk", "[b25]") {
  fixture f;
  checkpoint gate;
  auto stream = f.start([&](engine&, sink<boxed_int>& out, run_context&) {
    gate.pass();
    for (int i = 0; i < 3; ++i)
      out.push(std::make_unique<int>(i));
  });
  auto first = spawn(f.loop, stream.next());
  while (gate.arrived() == 0)
    test::drain(f.loop);
  first.cancel();
  run_until(f.loop, [&] { return first.done(); });
  CHECK(first.aborted());
  gate.open();
  CHECK(f.finish(collect(stream)).value() == up_to(3));
}

TEST_CASE("Progress is what the engine reported for work that is done", "[b26]") {
  fixture f;
  checkpoint second, third;
  auto stream = f.start([&](engine&, sink<boxed_int>& out, run_context& context) {
    context.report_progress(1, 3);
    out.push(std::make_unique<int>(1));
    second.pass();
    context.report_progress(2, 3);
    third.pass();
  });
  CHECK(stream.progress() == run_progress{});
  CHECK(**f.finish(stream.next()).value() == 1);
  second.await();
  CHECK(stream.progress() == run_progress{1, 3});
  second.open();
  third.await();
  CHECK(stream.progress() == run_progress{2, 3});
  third.open();
  CHECK_FALSE(f.finish(stream.next()).value());
}

TEST_CASE("The engine sees the deadline of its call") {
  fixture f;
  const auto when = call_options::time_point::clock::now() + std::chrono::hours(1);
  std::optional<call_options::time_point> seen;
  auto produce = [&](engine&, sink<boxed_int>&, run_context& context) { seen = context.deadline(); };
  auto stream = f.worker->start_stream<boxed_int>(call_options().deadline(when), produce);
  CHECK(f.finish(collect(stream)).succeeded());
  CHECK(seen == when);
}
