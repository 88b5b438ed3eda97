#include <roster/exec/stream.hpp>
#include <roster/exec/worker_thread.hpp>

#include "tests/exec/stream_engine.hpp"
#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/exec.hpp"

#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/system_executor.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/version.hpp>
#if BOOST_ASIO_VERSION >= 102700
#include <boost/asio/bind_immediate_executor.hpp>
#endif

#include <cstddef>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <utility>

namespace asio = boost::asio;
using roster::call_options;
using roster::errc;
using roster::run_context;
using roster::sink;
using roster::stream;
using roster::worker_thread;
using test::checkpoint;
using test::destruction_logger;
using test::engine;
using test::make_engine;
using test::run_until;
using test::spawn;

namespace {

using worker_type = worker_thread<engine>;

/// Pushes until nobody wants more.
void endless(engine&, sink<int>& out, run_context&) {
  for (int i = 0; out.push(i); ++i) {
  }
}

void empty(engine&, sink<int>&, run_context&) {}

/// An engine that pushes nothing until it is asked to stop.
auto silent(checkpoint& gate) {
  return [&gate](engine&, sink<int>&, run_context& context) {
    gate.arrive();
    while (!context.stop_requested())
      std::this_thread::yield();
  };
}

template <typename T>
test::task<T> finish(asio::io_context& loop, asio::awaitable<T> coroutine) {
  auto task = spawn(loop, std::move(coroutine));
  run_until(loop, [&] { return task.done(); });
  return task;
}

}  // namespace

TEST_CASE("A stream may outlive its worker and its context: what is buffered, its error, the end", "[b27][b60]") {
  std::optional<asio::io_context> loop(std::in_place);
  const bool on_strand = GENERATE(false, true);
  asio::any_io_executor home = loop->get_executor();
  if (on_strand) home = asio::make_strand(*loop);
  std::optional<worker_type> worker(std::in_place, home, make_engine);
  home = nullptr;
  auto numbers = worker->start_stream<int>(call_options(), endless, 3);
  CHECK(finish(*loop, numbers.next()).value() == 0);

  const bool worker_first = GENERATE(false, true);
  if (worker_first) worker.reset();
  loop.reset();

  asio::io_context other;
  roster::error_code end;
  int last = 0;
  for (;;) {
    auto next = finish(other, numbers.next());
    end = next.code();
    if (end || !next.value()) break;
    CHECK(*next.value() == last + 1);
    last = *next.value();
  }
  CHECK(end == errc::stopped);
  CHECK_FALSE(finish(other, numbers.next()).value());
  numbers.cancel();
}

TEST_CASE("A context destroyed before it heard of a stream ends that stream for a consumer elsewhere", "[b60]") {
  asio::io_context other;
  std::optional<asio::io_context> loop(std::in_place);
  worker_type worker(loop->get_executor(), make_engine);
  auto numbers = worker.start_stream<int>(call_options(), endless);
  auto next = spawn(other, numbers.next());
  test::drain(other);
  loop.reset();
  run_until(other, [&] { return next.done(); });
  CHECK(next.aborted());
  CHECK_FALSE(finish(other, numbers.next()).value());
}

TEST_CASE("A context destroyed with a consumer that waits, and an engine that runs, destroys both", "[b5][b60]") {
  auto destroyed = std::make_shared<destruction_logger::log>();
  checkpoint gate;
  {
    asio::io_context loop;
    worker_type worker(loop.get_executor(), make_engine);
    auto consumer = [](stream<int> from, std::shared_ptr<destruction_logger::log> log) -> asio::awaitable<void> {
      destruction_logger frame(std::move(log));
      co_await from.next();
      FAIL("resumed");
    };
    asio::co_spawn(loop, consumer(worker.start_stream<int>(call_options(), silent(gate)), destroyed),
                   [](std::exception_ptr) { FAIL("completed"); });
    while (gate.arrived() == 0)
      test::drain(loop);
  }
  CHECK(destroyed->size() == 1);
}

TEST_CASE("What produces a stream is destroyed on the worker's thread", "[b25]") {
  asio::io_context loop;
  worker_type worker(loop.get_executor(), make_engine);
  auto destroyed = std::make_shared<destruction_logger::log>();
  auto produce = [in_closure = destruction_logger(destroyed)](engine&, sink<int>& out, run_context&) { out.push(1); };
  auto numbers = worker.start_stream<int>(call_options(), std::move(produce));
  auto home = finish(loop, worker.run([](engine&) { return std::this_thread::get_id(); }));
  CHECK(*destroyed == destruction_logger::log{home.value()});
}

TEST_CASE("Chunks that nobody reads are destroyed with the stream") {
  asio::io_context loop;
  worker_type worker(loop.get_executor(), make_engine);
  auto destroyed = std::make_shared<destruction_logger::log>();
  {
    auto chunks =
        worker.start_stream<destruction_logger>(call_options(), [&](engine&, sink<destruction_logger>& out, run_context&) {
          for (int i = 0; i < 3; ++i)
            out.push(destruction_logger(destroyed));
        });
    CHECK(finish(loop, worker.run([](engine&) {})).succeeded());
    CHECK(finish(loop, chunks.next()).value());
    CHECK(destroyed->size() == 1);
  }
  CHECK(finish(loop, worker.run([](engine&) {})).succeeded());
  CHECK(destroyed->size() == 3);
}

TEST_CASE("Assigning a stream drops the one that was there", "[b25]") {
  asio::io_context loop;
  worker_type worker(loop.get_executor(), make_engine);
  auto numbers = worker.start_stream<int>(call_options(), endless, 1);
  CHECK(finish(loop, numbers.next()).value() == 0);
  numbers = worker.start_stream<int>(call_options(), empty);
  CHECK_FALSE(finish(loop, numbers.next()).value());  // the worker got to it: the first one has left its thread
}

TEST_CASE("A stream that was moved from can be assigned to, and its destructor stops nothing", "[b25]") {
  STATIC_REQUIRE_FALSE(std::is_copy_constructible_v<stream<int>>);
  STATIC_REQUIRE_FALSE(std::is_copy_assignable_v<stream<int>>);
  asio::io_context loop;
  worker_type worker(loop.get_executor(), make_engine);
  auto first = std::make_optional(worker.start_stream<int>(call_options(), endless, 1));
  auto second = std::move(*first);
  CHECK(finish(loop, second.next()).value() == 0);
  *first = std::move(second);
  CHECK(finish(loop, first->next()).value() == 1);
  auto third = std::move(*first);
  first.reset();
  CHECK(finish(loop, third.next()).value() == 2);
  third.cancel();
}

namespace {

/// The second one throws when it is moved for the `fuse`-th time since that was set.
struct fragile {
  explicit fragile(int n) : number(n) {}
  fragile(fragile&& other) : number(other.number) {
    if (number == 1 && fuse > 0 && --fuse == 0) throw std::runtime_error("broken in transit");
  }
  int number;
  static inline int fuse = 0;
};

}  // namespace

TEST_CASE("A chunk whose move throws is still there for the next attempt") {
  asio::io_context loop;
  worker_type worker(loop.get_executor(), make_engine);
  auto chunks = worker.start_stream<fragile>(call_options(), [](engine&, sink<fragile>& out, run_context&) {
    for (int i = 0; i < 3; ++i)
      out.push(fragile(i));
  });
  CHECK(finish(loop, worker.run([](engine&) {})).succeeded());
  auto consumer = [](stream<fragile>& from) -> asio::awaitable<int> {
    int failures = 0, next = 0;
    while (next < 3) {
      fragile::fuse = next == 1 && failures == 0 ? 1 : 0;
      try {
        const auto got = co_await from.next();
        if (got->number != next++) throw std::logic_error("out of order");
      } catch (const std::runtime_error&) {
        ++failures;
      }
    }
    co_return failures;
  };
  CHECK(finish(loop, consumer(chunks)).value() == 1);
}

TEST_CASE("A chunk that is there and whose move throws is an exception for whoever asked, not the end of the program") {
  bool called = false;
  int failures = 0;
  for (int fuse = 1; !called; ++fuse) {  // on its way to the handler it is moved some times
    asio::io_context loop;
    worker_type worker(loop.get_executor(), make_engine);
    auto chunks =
        worker.start_stream<fragile>(call_options(), [](engine&, sink<fragile>& out, run_context&) { out.push(fragile(1)); });
    CHECK(finish(loop, worker.run([](engine&) {})).succeeded());
    fragile::fuse = fuse;
    try {
      chunks.async_next([&](std::exception_ptr, std::optional<fragile>) { called = true; });
      test::drain(loop);
    } catch (const std::runtime_error&) {
      ++failures;
    }
    fragile::fuse = 0;
    CHECK(failures + called == fuse);
  }
  CHECK(failures > 1);
}

TEST_CASE("async_next takes any completion token, and never completes inside the initiating call") {
  asio::io_context loop;
  test::loop_thread home;
  worker_type worker(home.context().get_executor(), make_engine);
  auto numbers = worker.start_stream<int>(call_options(), endless, 4);

  CHECK(numbers.async_next(asio::use_future).get() == 0);

  int seen = -1;
  bool elsewhere = false;
  auto handler = [&](std::exception_ptr, std::optional<int> next) {
    seen = next.value_or(-2);
    elsewhere = loop.get_executor().running_in_this_thread();
  };
  numbers.async_next(asio::bind_executor(loop, handler));
  CHECK(seen == -1);
  loop.run();
  CHECK(seen == 1);
  CHECK(elsewhere);

  auto counts = std::make_shared<test::allocation_counts>();
  std::size_t live = 99;
  auto measure = [&](std::exception_ptr, std::optional<int>) { live = counts->live; };
  for (int i = 0; i < 200; ++i) {
    loop.restart();
    numbers.async_next(asio::bind_allocator(test::counting_allocator<void>(counts), asio::bind_executor(loop, measure)));
    loop.run();
    REQUIRE(live == 0);
  }
  CHECK(counts->total > 0);
  numbers.cancel();
}

TEST_CASE("async_next calls a handler without an executor of its own on the stream's, waiting or not", "[b4]") {
  asio::io_context loop;
  checkpoint gate;
  worker_type worker(loop.get_executor(), make_engine);
  auto numbers = worker.start_stream<int>(call_options(), [&](engine&, sink<int>& out, run_context&) {
    gate.pass();
    for (int i = 0; i < 2; ++i)
      out.push(i);
  });
  while (gate.arrived() == 0)
    test::drain(loop);
  int seen = -1;
  bool at_home = true;
  auto handler = [&](std::exception_ptr, std::optional<int> next) {
    seen = next.value_or(-2);
    at_home = at_home && loop.get_executor().running_in_this_thread();
  };
  numbers.async_next(handler);
  gate.open();
  run_until(loop, [&] { return seen == 0; });
  CHECK(finish(loop, worker.run([](engine&) {})).succeeded());
  int inside = -1;
  asio::post(loop, [&] {
    numbers.async_next(handler);
    inside = seen;
  });
  run_until(loop, [&] { return seen == 1; });
  CHECK(inside == 0);
  CHECK(at_home);
}

#if BOOST_ASIO_VERSION >= 102700
TEST_CASE("An immediate executor lets async_next bring a chunk that is buffered inside the call", "[b3]") {
  asio::io_context loop;
  worker_type worker(loop.get_executor(), make_engine);
  auto numbers = worker.start_stream<int>(call_options(), [](engine&, sink<int>& out, run_context&) { out.push(5); });
  CHECK(finish(loop, worker.run([](engine&) {})).succeeded());
  int seen = -1;
  numbers.async_next(asio::bind_immediate_executor(
      asio::system_executor(), [&](std::exception_ptr, std::optional<int> next) { seen = next.value_or(-2); }));
  CHECK(seen == 5);
}
#endif

TEST_CASE("async_next heeds every form of cancellation, at any time, once", "[b6]") {
  asio::io_context loop;
  worker_type worker(loop.get_executor(), make_engine);
  checkpoint gate;
  auto numbers = worker.start_stream<int>(call_options(), silent(gate));
  while (gate.arrived() == 0)
    test::drain(loop);

  const auto type =
      GENERATE(asio::cancellation_type::terminal, asio::cancellation_type::partial, asio::cancellation_type::total);
  asio::cancellation_signal signal;
  int calls = 0;
  roster::error_code outcome;
  auto handler = [&](std::exception_ptr failure, std::optional<int>) {
    ++calls;
    outcome = test::code_of(failure);
  };
  numbers.async_next(asio::bind_cancellation_slot(signal.slot(), asio::bind_executor(loop, handler)));
  signal.emit(asio::cancellation_type::none);
  test::drain(loop);
  CHECK(calls == 0);
  signal.emit(type);
  signal.emit(type);
  CHECK(calls == 0);
  test::drain(loop);
  signal.emit(type);
  test::drain(loop);
  CHECK(calls == 1);
  CHECK(outcome == asio::error::operation_aborted);
  numbers.cancel();
}

TEST_CASE("A stream dropped on its worker's own thread stops the engine", "[b25]") {
  test::loop_thread home;
  worker_type worker(home.context().get_executor(), make_engine);
  std::optional<stream<int>> other = worker.start_stream<int>(call_options(), empty);
  auto drop = [&](engine&) { other.reset(); };
  CHECK_NOTHROW(worker.async_run(drop, asio::use_future).get());
}

TEST_CASE("A stream may be dropped at any step of its start on an executor that never blocks", "[b25]") {
  for (std::size_t steps = 0; steps < 12; ++steps) {
    asio::io_context loop;
    const asio::any_io_executor home(asio::require(loop.get_executor(), asio::execution::blocking.never));
    worker_type worker(home, make_engine);
    auto numbers = worker.start_stream<int>(call_options(), endless);
    test::step(loop, steps);
    numbers.cancel();
    CHECK(finish(loop, numbers.next()).aborted());
    test::drain(loop);
  }
}

namespace {

/// Counts the chunks of a stream, holding something in its frame.
asio::awaitable<int> count(stream<int> from, std::shared_ptr<int>) {
  int chunks = 0;
  while (const auto next = co_await from.next())
    if (*next != chunks++) throw std::logic_error("out of order");
  co_return chunks;
}

}  // namespace

TEST_CASE("A context may be destroyed at any step of a worker's streams: a reader elsewhere is told", "[b5][b27][b60]") {
  const bool on_strand = GENERATE(false, true);
  bool complete = false;
  for (std::size_t steps = 0; !complete; ++steps) {
    asio::io_context other;
    std::optional<asio::io_context> loop(std::in_place);
    asio::any_io_executor home = loop->get_executor();
    if (on_strand) home = asio::make_strand(*loop);
    auto alive = std::make_shared<int>();
    worker_thread<std::shared_ptr<int>> worker(home, [&] { return alive; });
    home = nullptr;
    auto three = [](std::shared_ptr<int>&, sink<int>& out, run_context&) {
      for (int i = 0; i < 3 && out.push(i); ++i) {
      }
    };
    auto elsewhere = spawn(other, count(worker.start_stream<int>(call_options(), three), alive));
    auto here = spawn(*loop, count(worker.start_stream<int>(call_options(), three, 1), alive));
    std::size_t left = steps;
    run_until(*loop, [&] { return here.done() || left-- == 0; });
    complete = here.done();
    test::drain(other);

    loop.reset();
    CAPTURE(on_strand, steps, complete);
    CHECK(here.completions() == (complete ? 1 : 0));
    if (complete) CHECK(here.value() == 3);
    run_until(other, [&] { return elsewhere.done(); });
    if (elsewhere.succeeded())
      CHECK(elsewhere.value() == 3);
    else
      CHECK((elsewhere.aborted() || elsewhere.code() == errc::stopped));
    CHECK(alive.use_count() == 1);  // no frame is left, and no state: the thread was joined
    auto refused = worker.start_stream<int>(call_options(), three);
    CHECK(finish(other, refused.next()).code() == errc::stopped);
  }
}

TEST_CASE("The memory of a reader is returned before its handler is destroyed uncalled", "[b5]") {
  test::handler_memory memory;
  checkpoint gate;
  auto loop = std::make_unique<asio::io_context>();
  worker_type worker(loop->get_executor(), make_engine);
  auto numbers = worker.start_stream<int>(call_options(), silent(gate));
  numbers.async_next(asio::bind_executor(*loop, memory.handler()));
  test::drain(*loop);
  REQUIRE(memory.live() > 0);
  loop.reset();
  CHECK(memory.live_at_the_end == std::size_t{0});
}
