#include <roster/exec/worker_thread.hpp>
#include <roster/testing/hand_driven_loop.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/exec.hpp"
#include "tests/support/stress.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/thread_pool.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <thread>

namespace asio = boost::asio;
using namespace std::chrono_literals;
using roster::call_options;
using roster::errc;
using roster::hand_driven_loop;
using roster::run_context;
using roster::sink;
using test::checkpoint;
using test::spawn;

namespace {

/// A worker whose streams push what they are told, then last until `gate` is opened, whoever asks them to stop.
struct stubborn_worker {
  explicit stubborn_worker(std::shared_ptr<roster::time_source> time)
      : worker(
            loop.get_executor(), [] { return 0; }, roster::device(), 16, std::move(time)) {}
  stubborn_worker() : stubborn_worker(std::make_shared<roster::manual_time>()) {}
  ~stubborn_worker() { gate.open(); }

  roster::stream<int> start(const call_options& options, int chunks, std::size_t capacity = 64) {
    const auto produce = [this, chunks](int&, sink<int>& out, run_context& context) {
      started.arrive();
      for (int i = 0; i < chunks; ++i)
        wanted = out.push(i);
      begun.arrive();
      gate.pass();
      wanted = out.push(chunks);
      stop_requested = context.stop_requested();
    };
    return worker.start_stream<int>(options, produce, capacity);
  }

  /// Runs the loop until the engine has pushed, and for a while longer.
  void await_push() {
    while (begun.arrived() == 0)
      test::drain(loop);
    test::drain(loop);
  }

  /// Waits until the engine has returned.
  void await_end() const {
    while (worker.depth() > 0)
      std::this_thread::yield();
  }

  checkpoint started, begun, gate;
  std::atomic<bool> wanted{true}, stop_requested{false};
  asio::io_context loop;
  roster::worker_thread<int> worker;
};

struct manual_worker {
  void pass(roster::clock::duration by) {
    time->advance(by);
    test::drain(made.loop);
  }

  std::shared_ptr<roster::manual_time> time = std::make_shared<roster::manual_time>();
  stubborn_worker made{time};
};

}  // namespace

TEST_CASE("A reader is told at the stream's deadline, whatever the engine is doing, after the chunks before it", "[b43][b70]") {
  manual_worker f;
  auto chunks = f.made.start(call_options().timeout(1s), 2);
  const bool reads = GENERATE(true, false);
  auto first = spawn(f.made.loop, chunks.next());
  test::run_until(f.made.loop, [&] { return first.done(); });
  f.made.await_push();
  auto second = spawn(f.made.loop, chunks.next());
  test::drain(f.made.loop);
  CHECK(first.value() == 0);
  CHECK(second.value() == 1);
  auto next = reads ? std::make_optional(spawn(f.made.loop, chunks.next())) : std::nullopt;
  f.pass(999ms);
  if (reads) CHECK_FALSE(next->done());
  f.pass(1ms);
  if (!reads) {
    next = spawn(f.made.loop, chunks.next());
    test::drain(f.made.loop);
  }
  CHECK(next->code() == errc::deadline_exceeded);
  CHECK(f.made.worker.depth() == 1);  // the engine has not returned

  f.made.gate.open();
  auto end = spawn(f.made.loop, chunks.next());
  test::run_until(f.made.loop, [&] { return end.done(); });
  CHECK_FALSE(end.value());
  f.made.await_end();
  CHECK(f.made.stop_requested);
  CHECK_FALSE(f.made.wanted);
  CHECK_FALSE(f.time->next_alarm());
}

TEST_CASE("What was pushed before the deadline is delivered, however late it is read", "[b43][b70]") {
  manual_worker f;
  auto chunks = f.made.start(call_options().timeout(1s), 2);
  const bool ends_in_time = GENERATE(true, false);
  f.made.await_push();
  if (ends_in_time) {
    f.made.gate.open();
    f.made.await_end();
  }
  f.pass(1h);
  const auto next = [&] {
    auto one = spawn(f.made.loop, chunks.next());
    test::drain(f.made.loop);
    REQUIRE(one.done());
    return one;
  };
  CHECK(next().value() == 0);
  CHECK(next().value() == 1);
  if (ends_in_time) {
    CHECK(next().value() == 2);
    CHECK_FALSE(next().value());
  } else {
    CHECK(next().code() == errc::deadline_exceeded);
    CHECK_FALSE(next().value());
  }
}

TEST_CASE("A reader on another loop is told at the deadline, even if nobody runs the worker's", "[b43]") {
  manual_worker f;
  asio::io_context readers;
  auto chunks = f.made.start(call_options().timeout(1s), 0);
  f.made.await_push();
  auto next = spawn(readers, chunks.next());
  test::drain(readers);
  f.time->advance(1s);
  test::drain(readers);
  CHECK(next.code() == errc::deadline_exceeded);
  f.made.gate.open();
  f.made.await_end();
  CHECK(f.made.stop_requested);
  CHECK_FALSE(f.made.wanted);
}

TEST_CASE("An engine waits for room no longer than the deadline, even if nobody runs the worker's loop", "[b43]") {
  const bool loop_runs = GENERATE(true, false);
  const auto time = std::make_shared<roster::manual_time>();
  stubborn_worker made(loop_runs ? std::shared_ptr<roster::time_source>(time) : roster::steady_time());
  auto started = spawn(made.loop, made.worker.start());
  test::run_until(made.loop, [&] { return started.done(); });
  auto after = loop_runs ? roster::clock::duration(1h) : 1ms;
  auto chunks = made.start(call_options().timeout(after), 2, 1);
  test::drain(made.loop);
  if (loop_runs) {
    made.started.await();
    time->advance(1h);
    test::drain(made.loop);
  } else {
    while (made.started.arrived() == 0) {  // in time, as it may take a while on a busy machine
      if (made.worker.depth() > 0) continue;
      chunks = made.start(call_options().timeout(after *= 2), 2, 1);
      test::drain(made.loop);
    }
  }
  made.begun.await();
  CHECK_FALSE(made.wanted);
}

TEST_CASE("A stream that waits for its worker leaves at its deadline", "[b43]") {
  manual_worker f;
  auto running = f.made.start(call_options(), 0);
  auto late = f.made.start(call_options().timeout(1s), 1);
  f.made.await_push();
  CHECK(f.made.worker.depth() == 2);
  auto next = spawn(f.made.loop, late.next());
  f.pass(1s);
  CHECK(next.code() == errc::deadline_exceeded);
  CHECK(f.made.worker.depth() == 1);
}

TEST_CASE("However deadlines, drops and ends meet, a stream is a beginning of what was pushed and ends once",
          "[b43][b47][stress]") {
  test::stress([](unsigned seed) {
    asio::thread_pool readers(2);
    asio::io_context loop;
    std::atomic<int> ended{0}, wrong{0};
    constexpr int streams = 60;
    {
      roster::worker_thread<int> worker(loop.get_executor(), [] { return 0; });
      std::mt19937 random(seed);
      const auto read = [](roster::stream<int> chunks, unsigned kind, std::atomic<int>& ends,
                           std::atomic<int>& wrongs) -> asio::awaitable<void> {
        try {
          int expected = 0;
          while (auto chunk = co_await chunks.next()) {
            wrongs += *chunk != expected++;
            if (kind % 7 == 0) break;
            if (kind % 3 == 0) std::this_thread::yield();
          }
          if (kind % 7) wrongs += (co_await chunks.next()).has_value();
        } catch (const boost::system::system_error& failure) {
          wrongs += failure.code() != errc::deadline_exceeded;
        }
        ++ends;
      };
      for (int i = 0; i < streams; ++i) {
        const auto kind = static_cast<unsigned>(random());
        const auto produce = [kind](int&, sink<int>& out, run_context&) {
          for (int chunk = 0; chunk < static_cast<int>(kind % 40) && out.push(chunk);)
            ++chunk;
        };
        const auto options = call_options().timeout(std::chrono::microseconds(kind % 3000));
        asio::co_spawn(readers, read(worker.start_stream<int>(options, produce, 1 + kind % 4), kind, ended, wrong),
                       asio::detached);
      }
      while (ended < streams)
        if (loop.poll() == 0) loop.restart();
    }
    readers.join();
    loop.restart();
    loop.run();
    CHECK(wrong == 0);
  });
}
