#include <roster/exec/worker_thread.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/exec.hpp"

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_future.hpp>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
namespace asio = boost::asio;
using roster::call_options;
using roster::device;
using roster::errc;
using roster::run_context;
using roster::worker_thread;
using test::checkpoint;
using test::run_until;
using test::spawn;

namespace {

/// Notes where it lives. Neither copied nor moved.
class model {
 public:
  explicit model(std::shared_ptr<test::destruction_logger::log> log)
      : home_(std::this_thread::get_id()), death_(std::move(log)) {}
  model(const model&) = delete;
  model& operator=(const model&) = delete;
  std::thread::id home() const { return home_; }

 private:
  std::thread::id home_;
  test::destruction_logger death_;
};

struct counter {
  int value = 0;
};

struct greedy {
  template <typename Anything>
  explicit greedy(Anything&& from) : number(from) {}
  greedy(const greedy&) = delete;
  greedy& operator=(const greedy&) = delete;
  int number;
};

}  // namespace

TEST_CASE("A worker's state is constructed, used and destroyed on one and the same thread, not the loop's", "[b11][b16]") {
  asio::io_context loop;
  auto destroyed = std::make_shared<test::destruction_logger::log>();
  std::optional<worker_thread<model>> worker(std::in_place, loop.get_executor(), [=] { return model(destroyed); });

  auto thread_of_call = [](model& m) { return m.home() == std::this_thread::get_id() ? m.home() : std::thread::id(); };
  std::vector<test::task<std::thread::id>> calls;
  for (int i = 0; i < 5; ++i)
    calls.push_back(spawn(loop, worker->run(thread_of_call)));
  run_until(loop, [&] { return calls.back().done(); });
  for (auto& call : calls)
    CHECK(call.value() == calls.front().value());
  CHECK(calls.front().value() != std::this_thread::get_id());

  worker.reset();
  CHECK(*destroyed == test::destruction_logger::log{calls.front().value()});
}

TEST_CASE("The loop goes on while a worker computes", "[b11]") {
  asio::io_context loop;
  worker_thread<counter> worker(loop.get_executor(), [] { return counter(); });
  checkpoint ticks;
  auto call = spawn(loop, worker.run([](counter&, checkpoint* barrier) { barrier->await(100); }, &ticks));
  for (int i = 0; i < 100; ++i)
    asio::post(loop, [&] { ticks.arrive(); });
  run_until(loop, [&] { return call.done(); });
  CHECK(call.succeeded());
}

namespace {
std::atomic<int> creations{0};
std::atomic<int> failures{0};
void count_creations() {
  ++creations;
  if (failures.fetch_sub(1) > 0) throw std::system_error(EAGAIN, std::generic_category(), "no thread");
}

/// While it lives, `failing` thread creations fail.
struct creation_seam {
  explicit creation_seam(int failing = 0) {
    creations = 0;
    failures = failing;
    roster::detail::before_thread_creation = count_creations;
  }
  creation_seam(const creation_seam&) = delete;
  creation_seam& operator=(const creation_seam&) = delete;
  ~creation_seam() { roster::detail::before_thread_creation = nullptr; }
};
}  // namespace

TEST_CASE("The thread starts with the first call, not before", "[b16]") {
  creation_seam seam;
  asio::io_context loop;
  worker_thread<counter> worker(loop.get_executor(), [] { return counter(); });
  auto prepared = worker.run([](counter& c) { return ++c.value; });
  test::drain(loop);
  CHECK(creations == 0);
  auto call = spawn(loop, std::move(prepared));
  run_until(loop, [&] { return call.done(); });
  CHECK(call.value() == 1);
  CHECK(creations == 1);
}

TEST_CASE("A worker's caller resumes on its own executor, whether it starts the worker or finds it started", "[b4]") {
  test::loop_thread callers, workers;
  worker_thread<counter> worker(workers.context().get_executor(), [] { return counter(); });
  auto caller = [](worker_thread<counter>& w) -> asio::awaitable<bool> {
    const auto mine = std::this_thread::get_id();
    bool at_home = true;
    for (int i = 0; i < 2; ++i) {
      co_await w.start();
      at_home = at_home && std::this_thread::get_id() == mine;
      co_await w.run([](counter&) {});
      at_home = at_home && std::this_thread::get_id() == mine;
    }
    co_await w.stop();
    co_return at_home&& std::this_thread::get_id() == mine;
  };
  CHECK(asio::co_spawn(callers.context(), caller(worker), asio::use_future).get());
}

TEST_CASE("A start of a worker that has started completes without suspending", "[b16]") {
  asio::io_context loop;
  worker_thread<counter> worker(loop.get_executor(), [] { return counter(); });
  auto first = spawn(loop, worker.start());
  run_until(loop, [&] { return first.done(); });
  auto often = [](worker_thread<counter>& w) -> asio::awaitable<void> {
    for (int i = 0; i < 1000; ++i)
      co_await w.start();
  };
  auto again = spawn(loop, often(worker));
  CHECK(test::drain(loop) < 10);
  CHECK(again.succeeded());
}

TEST_CASE("A worker's async_run completes on its handler's executor, the worker's by default, and not inside the call",
          "[b3][b4]") {
  asio::io_context loop, other;
  worker_thread<counter> worker(loop.get_executor(), [] { return counter(); });
  auto start = spawn(loop, worker.start());
  run_until(loop, [&] { return start.done(); });
  const bool stopped = GENERATE(false, true);  // refused, a call completes without ever leaving the loop
  if (stopped) {
    auto stopping = spawn(loop, worker.stop());
    run_until(loop, [&] { return stopping.done(); });
  }
  const auto nothing = [](counter&) {};
  int calls = 0, at_home = 0, elsewhere = 0;
  int calls_inside = -1;
  asio::post(loop, [&] {
    worker.async_run(nothing, [&](const std::exception_ptr& failure) {
      calls += (test::code_of(failure) == errc::stopped) == stopped;
      at_home += loop.get_executor().running_in_this_thread();
    });
    calls_inside = calls;
  });
  run_until(loop, [&] { return calls == 1; });
  CHECK(calls_inside == 0);
  CHECK(at_home == 1);
  worker.async_run(nothing, asio::bind_executor(other.get_executor(), [&](const std::exception_ptr&) { ++elsewhere; }));
  test::drain(loop);
  CHECK(elsewhere == 0);
  run_until(other, [&] { return elsewhere == 1; });
}

TEST_CASE("start makes the state ahead of the first call", "[b16]") {
  asio::io_context loop;
  int made = 0;
  worker_thread<counter> worker(loop.get_executor(), [&] { return counter{++made}; });
  auto first = spawn(loop, worker.start());
  run_until(loop, [&] { return first.done(); });
  CHECK(made == 1);
  auto again = spawn(loop, worker.start());
  auto call = spawn(loop, worker.run([](counter& c) { return c.value; }));
  run_until(loop, [&] { return call.done(); });
  CHECK(again.succeeded());
  CHECK(call.value() == 1);
}

TEST_CASE("Concurrent first calls start one thread and load once", "[b17]") {
  creation_seam seam;
  asio::io_context loop;
  test::loop_thread other;
  std::atomic<int> loads{0};
  checkpoint gate;
  worker_thread<counter> worker(loop.get_executor(), [&] {
    gate.pass();
    ++loads;
    return counter();
  });
  auto add = [](counter& c) { return ++c.value; };
  std::vector<test::task<int>> here;
  std::vector<std::future<int>> there;
  for (int i = 0; i < 50; ++i) {
    here.push_back(spawn(loop, worker.run(add)));
    there.push_back(asio::co_spawn(other.context(), worker.run(add), asio::use_future));
  }
  while (gate.arrived() == 0)  // the start may come from the other context, at any time
    test::drain(loop);
  gate.open();
  run_until(loop, [&] { return here.back().done(); });
  int last = 0;
  for (auto& call : there)
    last = std::max(last, call.get());
  for (auto& call : here)
    last = std::max(last, call.value());
  CHECK(last == 100);
  CHECK(loads == 1);
  CHECK(creations == 1);
}

TEST_CASE("The state is what the factory returns, though it could be made from anything", "[b16]") {
  asio::io_context loop;
  worker_thread<greedy> worker{loop.get_executor(), [] { return greedy(7); }};
  auto call = spawn(loop, worker.run([](greedy& state) { return state.number; }));
  run_until(loop, [&] { return call.done(); });
  CHECK(call.value() == 7);
}

TEST_CASE("Whatever is asked of a worker whose context died is refused", "[b60]") {
  asio::io_context elsewhere;
  std::optional<asio::io_context> loop(std::in_place);
  worker_thread<counter> worker{loop->get_executor(), [] { return counter(); }};
  loop.reset();
  auto call = spawn(elsewhere, worker.run([](counter&) {}));
  test::drain(elsewhere);
  CHECK(call.code() == errc::stopped);
  CHECK_THROWS_AS(worker.async_run([](counter&) {}, [](std::exception_ptr) {}), asio::execution::bad_executor);
  auto stream = worker.start_stream<int>(roster::call_options(), [](counter&, roster::sink<int>&, roster::run_context&) {});
  auto next = spawn(elsewhere, stream.next());
  test::drain(elsewhere);
  CHECK(next.code() == errc::stopped);
}

TEST_CASE("Calls run one at a time, in the order they came, also those that wait for admission", "[b16]") {
  asio::io_context loop;
  checkpoint gate;
  worker_thread<std::vector<int>> worker(
      loop.get_executor(), [] { return std::vector<int>(); }, device(), 2);
  auto started = spawn(loop, worker.start());
  run_until(loop, [&] { return started.done(); });
  auto first = spawn(loop, worker.run([](std::vector<int>&, checkpoint* barrier) { barrier->pass(); }, &gate));
  test::drain(loop);
  gate.await();

  auto note = [](std::vector<int>& order, int n) {
    order.push_back(n);
    return order;
  };
  std::vector<test::task<std::vector<int>>> calls;
  for (int i = 0; i < 8; ++i)
    calls.push_back(spawn(loop, worker.run(note, i)));
  test::drain(loop);
  CHECK(worker.depth() == 9);
  gate.open();
  run_until(loop, [&] { return calls.back().done(); });
  CHECK(calls.back().value() == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7});
  CHECK(worker.depth() == 0);
}

TEST_CASE("Results and arguments of a worker's calls may be move-only, void, or references into the state") {
  asio::io_context loop;
  worker_thread<counter> worker(loop.get_executor(), [] { return counter(); });
  auto caller = [](worker_thread<counter>& w) -> asio::awaitable<void> {
    auto two = std::make_unique<int>(2);
    std::unique_ptr<int> doubled = co_await w.run(
        [](counter&, std::unique_ptr<int> n) {
          *n *= 2;
          return n;
        },
        std::move(two));
    CHECK(*doubled == 4);
    co_await w.run([](counter& c, run_context&, int n) { c.value = n; }, 5);
    std::reference_wrapper<int> value = co_await w.run([](counter& c) -> int& { return c.value; });
    CHECK(value.get() == 5);
  };
  auto call = spawn(loop, caller(worker));
  run_until(loop, [&] { return call.done(); });
  CHECK(call.succeeded());
}

TEST_CASE("Callable and arguments are destroyed on the worker's thread before the caller resumes, or when it cannot start") {
  asio::io_context loop;
  auto destroyed = std::make_shared<test::destruction_logger::log>();
  bool broken = GENERATE(false, true);
  worker_thread<counter> worker(loop.get_executor(), [&] {
    if (broken) throw std::runtime_error("broken");
    return counter();
  });
  auto thread_of_call = [](counter&, const test::destruction_logger&) { return std::this_thread::get_id(); };
  auto call = spawn(loop, worker.run(thread_of_call, test::destruction_logger(destroyed)));
  run_until(loop, [&] { return call.done(); });
  REQUIRE(destroyed->size() == 1);
  CHECK(destroyed->front() == (broken ? std::this_thread::get_id() : call.value()));
}

TEST_CASE("Work on a worker that throws, even what is no exception, fails that call only", "[b15]") {
  asio::io_context loop;
  worker_thread<counter> worker(loop.get_executor(), [] { return counter(); });
  auto standard = spawn(loop, worker.run([](counter&) { throw std::runtime_error("out of memory"); }));
  auto number = spawn(loop, worker.run([](counter&) { throw 42; }));
  auto healthy = spawn(loop, worker.run([](counter& c) { return ++c.value; }));
  run_until(loop, [&] { return healthy.done(); });
  CHECK_THROWS_WITH(std::rethrow_exception(standard.failure()), "out of memory");
  CHECK_THROWS_AS(std::rethrow_exception(number.failure()), int);
  CHECK(healthy.value() == 1);
}

TEST_CASE("The first call fixes the device, and the factory receives it", "[b18]") {
  asio::io_context loop;
  worker_thread<std::string> worker(
      loop.get_executor(), [](const device& target) { return target.name(); }, "cpu");
  auto name = [](std::string& s) { return s; };

  const bool chosen = GENERATE(true, false);
  auto first = spawn(loop, chosen ? worker.run(call_options().on("cuda:1"), name) : worker.run(name));
  run_until(loop, [&] { return first.done(); });
  CHECK(first.value() == (chosen ? "cuda:1" : "cpu"));

  auto same = spawn(loop, worker.run(call_options().on(first.value()), name));
  auto any = spawn(loop, worker.run(name));
  run_until(loop, [&] { return same.done() && any.done(); });
  CHECK(same.succeeded());
  CHECK(any.succeeded());
}

TEST_CASE("A call for a second device is refused with both names, also while the worker starts", "[b18]") {
  asio::io_context loop;
  checkpoint gate;
  worker_thread<counter> worker(loop.get_executor(), [&] {
    gate.pass();
    return counter();
  });
  auto nothing = [](counter&) {};
  auto first = spawn(loop, worker.run(call_options().on("cuda:0"), nothing));
  auto during = spawn(loop, worker.run(call_options().on("cuda:1"), nothing));
  test::drain(loop);
  gate.open();
  run_until(loop, [&] { return first.done() && during.done(); });
  auto after = spawn(loop, worker.run_detachable(call_options().on("cpu"), nothing));
  run_until(loop, [&] { return after.done(); });

  CHECK(first.succeeded());
  for (auto* refused : {&during, &after}) {
    CHECK(refused->code() == errc::device_mismatch);
    CHECK_THROWS_WITH(std::rethrow_exception(refused->failure()), Catch::Contains("cuda:0"));
  }
  CHECK_THROWS_WITH(std::rethrow_exception(during.failure()), Catch::Contains("cuda:1"));
  CHECK_THROWS_WITH(std::rethrow_exception(after.failure()), Catch::Contains("cpu"));
}

TEST_CASE("A load that fails reaches every caller with its cause, and the next call tries again", "[b19]") {
  creation_seam seam;
  asio::io_context loop;
  checkpoint gate;
  int attempts = 0;
  worker_thread<counter> worker(loop.get_executor(), [&](const device& target) {
    gate.pass();
    if (++attempts == 1) throw std::runtime_error("no such file: digits.onnx");
    if (attempts == 2) throw 42;
    return counter{static_cast<int>(target.name().size())};
  });
  auto value = [](counter& c) { return c.value; };
  std::vector<test::task<int>> calls;
  for (int i = 0; i < 3; ++i)
    calls.push_back(spawn(loop, worker.run(call_options().on("cpu"), value)));
  test::drain(loop);
  gate.open();
  for (auto& call : calls) {
    run_until(loop, [&] { return call.done(); });
    CHECK_THROWS_WITH(std::rethrow_exception(call.failure()), "no such file: digits.onnx");
  }

  auto second = spawn(loop, worker.run(value));
  run_until(loop, [&] { return second.done(); });
  CHECK_THROWS_AS(std::rethrow_exception(second.failure()), int);

  auto third = spawn(loop, worker.run(call_options().on("cuda:0"), value));  // a failed start fixed no device
  run_until(loop, [&] { return third.done(); });
  CHECK(third.value() == 6);
  CHECK(creations == 3);
}

TEST_CASE("When the thread cannot be made the callers are told, and the next call tries again", "[b20]") {
  creation_seam seam(1);
  asio::io_context loop;
  worker_thread<counter> worker(loop.get_executor(), [] { return counter(); });
  auto nothing = [](counter&) {};
  auto first = spawn(loop, worker.run(nothing));
  auto second = spawn(loop, worker.run(nothing));
  run_until(loop, [&] { return first.done() && second.done(); });
  CHECK_THROWS_AS(std::rethrow_exception(first.failure()), std::system_error);
  CHECK_THROWS_AS(std::rethrow_exception(second.failure()), std::system_error);
  auto third = spawn(loop, worker.run(nothing));
  run_until(loop, [&] { return third.done(); });
  CHECK(third.succeeded());
}

TEST_CASE("Work may post more work to its own worker", "[b21]") {
  asio::io_context loop;
  worker_thread<counter> worker(loop.get_executor(), [] { return counter(); });
  bool told = false;
  auto follow_up = [&](counter& c) { c.value = 7; };
  auto work = [&](counter&) {
    worker.async_run(follow_up, asio::bind_executor(loop.get_executor(), [&](std::exception_ptr failure) { told = !failure; }));
    return worker.on_own_thread();
  };
  auto call = spawn(loop, worker.run(work));
  run_until(loop, [&] { return call.done() && told; });
  CHECK(call.value());
  CHECK_FALSE(worker.on_own_thread());
  auto value = spawn(loop, worker.run([](counter& c) { return c.value; }));
  run_until(loop, [&] { return value.done(); });
  CHECK(value.value() == 7);
}

TEST_CASE("Waiting on a worker for its own worker fails with would_deadlock, in work and in the factory", "[b21]") {
  std::vector<std::shared_future<void>> kept;  // the exceptions in them are freed here, by one thread
  test::loop_thread home;
  std::optional<worker_thread<counter>> worker;
  const auto outcome_with = [&](auto token) {
    auto& result = kept.emplace_back(worker->async_run([](counter&) {}, std::move(token)).share());
    try {
      result.get();
    } catch (const boost::system::system_error& failure) {
      return failure.code();
    }
    return roster::error_code();
  };
  const auto rethrow = [](const std::exception_ptr& failure) {
    if (failure) std::rethrow_exception(failure);
  };
  const auto form = GENERATE(0, 1, 2);
  const auto outcome = [&] {
    if (form == 0) return outcome_with(asio::use_future);
    if (form == 1) return outcome_with(asio::use_future(rethrow));
    return outcome_with(asio::bind_executor(home.context().get_executor(), asio::use_future));
  };
  roster::error_code in_factory;
  worker.emplace(home.context().get_executor(), [&] {
    in_factory = outcome();
    return counter();
  });
  auto work = [&](counter&) { return outcome(); };
  CHECK(worker->async_run(work, asio::use_future).get() == errc::would_deadlock);
  CHECK(in_factory == errc::would_deadlock);
  CHECK_FALSE(outcome());
}

TEST_CASE("A call whose deadline has passed when the worker gets to it is never started", "[b43]") {
  asio::io_context loop;
  worker_thread<counter> worker(loop.get_executor(), [] { return counter(); });
  auto late =
      spawn(loop, worker.run(call_options().deadline(call_options::time_point::clock::now()), [](counter& c) { c.value = 1; }));
  auto value = spawn(loop, worker.run([](counter& c) { return c.value; }));
  run_until(loop, [&] { return value.done(); });
  CHECK(late.code() == errc::deadline_exceeded);
  CHECK(value.value() == 0);
}
