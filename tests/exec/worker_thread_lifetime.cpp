#include <roster/exec/worker_thread.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/exec.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_future.hpp>

#include <cstddef>
#include <future>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

namespace asio = boost::asio;
using roster::call_options;
using roster::device;
using roster::errc;
using roster::run_context;
using roster::worker_thread;
using test::checkpoint;
using test::destruction_logger;
using test::run_until;
using test::spawn;

namespace {

using logged_state = std::unique_ptr<destruction_logger>;
using logged_worker = worker_thread<logged_state>;

void do_nothing(logged_state&) {}

/// Waits until it is let through; says whether it was asked to stop.
bool slow(logged_state&, run_context& context, checkpoint* gate) {
  gate->pass();
  return context.stop_requested();
}

/// A worker with a started thread, its queue limited to one.
struct started_worker {
  asio::io_context loop;
  std::shared_ptr<destruction_logger::log> destroyed = std::make_shared<destruction_logger::log>();
  std::optional<logged_worker> worker{std::in_place, loop.get_executor(),
                                      [log = destroyed] { return std::make_unique<destruction_logger>(log); }, device(), 1u};
  checkpoint gate;

  started_worker() {
    auto start = spawn(loop, worker->start());
    run_until(loop, [&] { return start.done(); });
  }

  test::task<bool> occupy() {
    auto call = spawn(loop, worker->run(slow, &gate));
    test::drain(loop);
    gate.await();
    return call;
  }
};

/// A worker whose factory waits.
struct starting_worker {
  asio::io_context loop;
  checkpoint gate;
  std::shared_ptr<destruction_logger::log> destroyed = std::make_shared<destruction_logger::log>();
  std::optional<logged_worker> worker{std::in_place, loop.get_executor(), [this] {
                                        gate.pass();
                                        return std::make_unique<destruction_logger>(destroyed);
                                      }};

  test::task<void> begin() {
    auto call = spawn(loop, worker->run(do_nothing));
    test::drain(loop);
    gate.await();
    return call;
  }
};

}  // namespace

TEST_CASE("A caller cancelled while the worker starts leaves the start to the others", "[b9][b13]") {
  starting_worker f;
  auto first = f.begin();
  auto second = spawn(f.loop, f.worker->run(do_nothing));
  test::drain(f.loop);
  first.cancel();
  test::drain(f.loop);
  CHECK(first.aborted());
  f.gate.open();
  run_until(f.loop, [&] { return second.done(); });
  CHECK(second.succeeded());
}

TEST_CASE("A call that waits for the start does not count as work of the worker", "[b16]") {
  starting_worker f;
  auto first = f.begin();
  auto second = spawn(f.loop, f.worker->run(do_nothing));
  test::drain(f.loop);
  CHECK(f.worker->depth() == 0);
  f.gate.open();
  run_until(f.loop, [&] { return first.done() && second.done(); });
}

TEST_CASE("A worker's async_run heeds terminal cancellation: queued it leaves, running it is asked to stop", "[b6][b13]") {
  started_worker f;
  asio::cancellation_signal first, second;
  int stops = 0, aborts = 0;
  auto engine = [&](logged_state&, run_context& context) {
    f.gate.pass();
    return context.stop_requested();
  };
  auto running = [&](const std::exception_ptr& failure, bool stopped) { stops += !failure && stopped; };
  auto queued = [&](const std::exception_ptr& failure) { aborts += test::code_of(failure) == asio::error::operation_aborted; };
  f.worker->async_run(engine, asio::bind_cancellation_slot(first.slot(), running));
  while (f.gate.arrived() == 0)
    test::drain(f.loop);
  f.worker->async_run(do_nothing, asio::bind_cancellation_slot(second.slot(), queued));
  test::drain(f.loop);
  CHECK(f.worker->depth() == 2);
  first.emit(asio::cancellation_type::terminal);
  second.emit(asio::cancellation_type::terminal);
  CHECK(aborts == 0);
  test::drain(f.loop);
  CHECK(aborts == 1);
  CHECK(stops == 0);
  CHECK(f.worker->depth() == 1);
  f.gate.open();
  run_until(f.loop, [&] { return stops == 1; });
}

TEST_CASE("When every caller is cancelled while the worker starts, the next call takes the start's outcome", "[b9]") {
  starting_worker f;
  auto first = f.begin();
  first.cancel();
  test::drain(f.loop);
  CHECK(first.aborted());
  auto late = spawn(f.loop, f.worker->run(do_nothing));
  test::drain(f.loop);
  f.gate.open();
  run_until(f.loop, [&] { return late.done(); });
  CHECK(late.succeeded());
  CHECK(f.gate.arrived() == 1);
}

TEST_CASE("Cancelled calls of a worker leave the admission list and the queue at once", "[b13]") {
  started_worker f;
  auto running = f.occupy();
  auto queued = spawn(f.loop, f.worker->run(do_nothing));
  auto waiting = spawn(f.loop, f.worker->run_detachable(call_options(), do_nothing));
  test::drain(f.loop);
  CHECK(f.worker->depth() == 3);
  waiting.cancel();
  queued.cancel();
  test::drain(f.loop);
  CHECK(waiting.aborted());
  CHECK(queued.aborted());
  CHECK(f.worker->depth() == 1);
  f.gate.open();
  run_until(f.loop, [&] { return running.done(); });
  CHECK_FALSE(running.value());
  CHECK(f.worker->depth() == 0);
}

TEST_CASE("A cancelled running call of a worker is asked to stop, only a detachable one completes before it returns", "[b13]") {
  started_worker f;
  const bool detachable = GENERATE(false, true);
  auto call = detachable ? spawn(f.loop, f.worker->run_detachable(call_options(), slow, &f.gate)) : f.occupy();
  test::drain(f.loop);
  f.gate.await();
  call.cancel();
  test::drain(f.loop);
  CHECK(call.done() == detachable);
  CHECK(f.worker->depth() == 1);
  auto next = spawn(f.loop, f.worker->run(do_nothing));
  f.gate.open();
  run_until(f.loop, [&] { return next.done() && call.done(); });
  if (detachable)
    CHECK(call.aborted());
  else
    CHECK(call.value());
}

TEST_CASE("stop fails what has not started, lets what runs finish, and destroys the state on its thread", "[b57]") {
  started_worker f;
  auto running = f.occupy();
  auto queued = spawn(f.loop, f.worker->run(do_nothing));
  auto waiting = spawn(f.loop, f.worker->run(do_nothing));
  auto stopping = spawn(f.loop, f.worker->stop());
  auto again = spawn(f.loop, f.worker->stop());
  test::drain(f.loop);
  CHECK(queued.code() == errc::stopped);
  CHECK(waiting.code() == errc::stopped);
  CHECK_FALSE(stopping.done());
  CHECK(f.destroyed->empty());

  f.gate.open();
  run_until(f.loop, [&] { return stopping.done() && again.done(); });
  CHECK(stopping.succeeded());
  CHECK(again.succeeded());
  REQUIRE(f.destroyed->size() == 1);
  CHECK(f.destroyed->front() != std::this_thread::get_id());
  CHECK(running.done());
  CHECK_FALSE(running.value());

  auto late = spawn(f.loop, f.worker->run(do_nothing));
  auto third = spawn(f.loop, f.worker->stop());
  run_until(f.loop, [&] { return third.done() && late.done(); });
  CHECK(third.succeeded());
  CHECK(late.code() == errc::stopped);
  auto start = spawn(f.loop, f.worker->start());
  run_until(f.loop, [&] { return start.done(); });
  CHECK(start.code() == errc::stopped);
}

TEST_CASE("Cancelling a worker's stop ends the wait, not the stopping", "[b58]") {
  started_worker f;
  auto running = f.occupy();
  auto stopping = spawn(f.loop, f.worker->stop());
  auto patient = spawn(f.loop, f.worker->stop());
  test::drain(f.loop);
  stopping.cancel();
  test::drain(f.loop);
  CHECK(stopping.aborted());
  CHECK(f.worker->depth() == 1);
  f.gate.open();
  run_until(f.loop, [&] { return patient.done() && running.done(); });
  CHECK(patient.succeeded());
  CHECK(f.destroyed->size() == 1);
}

TEST_CASE("The only stop, cancelled, still destroys the state once what runs has returned", "[b58]") {
  started_worker f;
  auto running = f.occupy();
  auto stopping = spawn(f.loop, f.worker->stop());
  test::drain(f.loop);
  stopping.cancel();
  test::drain(f.loop);
  CHECK(stopping.aborted());
  CHECK(f.worker->depth() == 1);
  f.gate.open();
  auto thread = spawn(f.loop, f.worker->stop());
  run_until(f.loop, [&] { return thread.done(); });
  f.worker.reset();
  CHECK(f.destroyed->size() == 1);
  CHECK(f.destroyed->front() != std::this_thread::get_id());
}

TEST_CASE("A worker that is stopped before its first call never starts", "[b16][b57]") {
  asio::io_context loop;
  int made = 0;
  worker_thread<int> worker(loop.get_executor(), [&] { return ++made; });
  auto stopping = spawn(loop, worker.stop());
  test::drain(loop);
  CHECK(stopping.succeeded());
  auto call = spawn(loop, worker.run([](int&) {}));
  auto start = spawn(loop, worker.start());
  run_until(loop, [&] { return call.done() && start.done(); });
  CHECK(call.code() == errc::stopped);
  CHECK(start.code() == errc::stopped);
  CHECK(made == 0);
}

TEST_CASE("A worker stopped while it starts drops the state, and its callers are told", "[b58]") {
  starting_worker f;
  auto call = f.begin();
  auto stopping = spawn(f.loop, f.worker->stop());
  test::drain(f.loop);
  f.gate.open();
  run_until(f.loop, [&] { return stopping.done() && call.done(); });
  CHECK(stopping.succeeded());
  CHECK(call.code() == errc::stopped);
  CHECK(f.destroyed->size() == 1);
}

TEST_CASE("Destroying a worker fails what has not started, raises the stop flag of what runs, and joins", "[b57]") {
  started_worker f;
  auto running = f.occupy();
  auto queued = spawn(f.loop, f.worker->run(do_nothing));
  auto waiting = spawn(f.loop, f.worker->run(do_nothing));
  auto prepared = f.worker->run(do_nothing);
  test::drain(f.loop);
  std::thread owner([&] { f.worker.reset(); });
  run_until(f.loop, [&] { return queued.done() && waiting.done(); });
  CHECK(queued.code() == errc::stopped);
  CHECK(waiting.code() == errc::stopped);
  f.gate.open();
  owner.join();
  run_until(f.loop, [&] { return running.done(); });
  CHECK(f.destroyed->size() == 1);

  auto late = spawn(f.loop, std::move(prepared));
  run_until(f.loop, [&] { return late.done(); });
  CHECK(late.code() == errc::stopped);
}

TEST_CASE("A worker destroyed while it starts waits for the factory, and tells those that wait for the start", "[b58]") {
  starting_worker f;
  auto first = f.begin();
  auto second = spawn(f.loop, f.worker->start());
  test::drain(f.loop);
  std::thread owner([&] { f.worker.reset(); });
  f.gate.open();
  owner.join();
  run_until(f.loop, [&] { return first.done() && second.done(); });
  CHECK(first.code() == errc::stopped);
  CHECK(second.code() == errc::stopped);
  CHECK(f.destroyed->size() == 1);
}

TEST_CASE("A worker destroyed before its start got to the loop never makes a state", "[b58]") {
  starting_worker f;
  auto call = spawn(f.loop, f.worker->run(do_nothing));
  f.worker.reset();
  run_until(f.loop, [&] { return call.done(); });
  CHECK(call.code() == errc::stopped);
  CHECK(f.gate.arrived() == 0);
}

TEST_CASE("The last handle of a worker may be dropped on its own thread", "[b58]") {
  test::loop_thread home;
  std::promise<void> dropped;
  auto worker = std::make_unique<logged_worker>(home.context().get_executor(), [] { return logged_state(); });
  auto last = [&](logged_state&) {
    worker.reset();
    dropped.set_value();
  };
  auto call = worker->async_run(last, asio::use_future);
  dropped.get_future().get();
  CHECK_NOTHROW(call.get());
}

TEST_CASE("A context destroyed with a running worker stops it, joins its thread, and runs nothing more", "[b60]") {
  auto destroyed = std::make_shared<destruction_logger::log>();
  checkpoint gate;
  std::optional<asio::io_context> loop(std::in_place);
  logged_worker worker(loop->get_executor(), [=] { return std::make_unique<destruction_logger>(destroyed); });
  auto obedient = [&](logged_state&, run_context& context) {
    gate.arrive();
    while (!context.stop_requested())
      std::this_thread::yield();
  };
  auto caller = [](logged_worker& w, decltype(obedient)& engine,
                   std::shared_ptr<destruction_logger::log> log) -> asio::awaitable<void> {
    destruction_logger frame(std::move(log));
    co_await w.run(engine);
    FAIL("resumed");
  };
  for (int i = 0; i < 3; ++i)
    asio::co_spawn(*loop, caller(worker, obedient, destroyed), [](std::exception_ptr) { FAIL("completed"); });
  while (gate.arrived() == 0)
    test::drain(*loop);
  loop.reset();
  CHECK(destroyed->size() == 4);  // three callers and the state

  asio::io_context other;
  auto late = spawn(other, worker.run(do_nothing));
  run_until(other, [&] { return late.done(); });
  CHECK(late.code() == errc::stopped);
  auto stop = spawn(other, worker.stop());
  run_until(other, [&] { return stop.done(); });
  CHECK(stop.succeeded());
}

TEST_CASE("A context destroyed while a worker starts, or before, fails later calls", "[b60]") {
  const bool begun = GENERATE(false, true);
  checkpoint gate;
  gate.open();
  std::optional<asio::io_context> loop(std::in_place);
  auto strand = std::make_optional(asio::make_strand(*loop));
  logged_worker worker(*strand, [&] {
    gate.pass();
    return logged_state();
  });
  strand.reset();
  if (begun) {
    asio::co_spawn(*loop, worker.run(do_nothing), [](std::exception_ptr) { FAIL("completed"); });
    while (gate.arrived() == 0)
      test::step(*loop);
  }
  loop.reset();
  asio::io_context other;
  auto late = spawn(other, worker.run(do_nothing));
  auto start = spawn(other, worker.start());
  run_until(other, [&] { return late.done() && start.done(); });
  CHECK_FALSE(late.succeeded());
  CHECK_FALSE(start.succeeded());
}

TEST_CASE("A worker that is moved takes its thread along") {
  asio::io_context loop;
  logged_worker first(loop.get_executor(), [] { return logged_state(); });
  auto home = [](logged_state&) { return std::this_thread::get_id(); };
  auto before = spawn(loop, first.run(home));
  run_until(loop, [&] { return before.done(); });
  logged_worker second(std::move(first));
  auto after = spawn(loop, second.run(home));
  run_until(loop, [&] { return after.done(); });
  CHECK(before.value() == after.value());
}

namespace {

/// What a thread leaves behind: an arrival, when it has ended.
struct farewell {
  checkpoint& gate;
  ~farewell() { gate.arrive(); }
};

}  // namespace

TEST_CASE("Threads of failed starts are joined by the next start, or with the context", "[b19]") {
  checkpoint ended;
  std::set<std::thread::id> ids;
  {
    asio::io_context loop;
    logged_worker worker(loop.get_executor(), [&]() -> logged_state {
      thread_local const farewell last{ended};
      ids.insert(std::this_thread::get_id());
      throw std::runtime_error("broken");
    });
    for (int i = 1; i <= 50; ++i) {
      auto call = spawn(loop, worker.run(do_nothing));
      run_until(loop, [&] { return call.done(); });
      REQUIRE_FALSE(call.succeeded());
      ended.await(i);
    }
  }
  // The id of a thread that was not joined is not given to another one. That of one that was is, at once.
  CHECK(ids.size() < 10);
}

namespace {

/// Starts a worker and uses it twice, holding something in its frame.
asio::awaitable<void> use(asio::awaitable<void> start, asio::awaitable<void> first, asio::awaitable<void> second,
                          std::shared_ptr<int>) {
  co_await std::move(start);
  co_await std::move(first);
  co_await std::move(second);
}

}  // namespace

TEST_CASE("A context may be destroyed at any step of a worker's start and calls, after the worker or before", "[b5][b60]") {
  const bool on_strand = GENERATE(false, true);
  const bool worker_first = GENERATE(false, true);
  bool complete = false;
  for (std::size_t steps = 0; !complete; ++steps) {
    asio::io_context other;
    std::optional<asio::io_context> loop(std::in_place);
    asio::any_io_executor home = loop->get_executor();
    if (on_strand) home = asio::make_strand(*loop);
    auto alive = std::make_shared<int>();
    using shared = std::shared_ptr<int>;
    std::optional<worker_thread<shared>> worker(std::in_place, home, [&] { return alive; });
    home = nullptr;
    const auto idle = [](shared&) {};
    auto elsewhere = spawn(other, use(worker->start(), worker->run(idle), worker->run(idle), alive));
    test::drain(other);
    auto here = spawn(*loop, use(worker->start(), worker->run(idle), worker->run(idle), alive));
    auto late_run = worker->run(idle);
    auto late_start = worker->start();
    auto late_stop = worker->stop();
    std::size_t left = steps;
    run_until(*loop, [&] { return here.done() || left-- == 0; });
    complete = here.done();
    test::drain(other);

    if (worker_first) worker.reset();
    loop.reset();
    CAPTURE(on_strand, worker_first, steps, complete);
    CHECK(here.completions() == (complete ? 1 : 0));
    run_until(other, [&] { return elsewhere.done(); });
    CHECK((elsewhere.succeeded() || elsewhere.aborted() || elsewhere.code() == errc::stopped));
    CHECK(alive.use_count() == 1);  // no frame is left, and no state: the thread was joined
    auto run = spawn(other, std::move(late_run));
    auto start = spawn(other, std::move(late_start));
    auto stop = spawn(other, std::move(late_stop));
    run_until(other, [&] { return run.done() && start.done() && stop.done(); });
    CHECK((run.aborted() || run.code() == errc::stopped));
    CHECK((start.aborted() || start.code() == errc::stopped));
    CHECK(stop.succeeded());
  }
}
