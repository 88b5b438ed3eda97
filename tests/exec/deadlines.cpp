#include <roster/detail/pairing_heap.hpp>
#include <roster/exec/blocking_pool.hpp>
#include <roster/exec/within.hpp>
#include <roster/exec/worker_thread.hpp>
#include <roster/testing/hand_driven_loop.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/exec.hpp"
#include "tests/support/stress.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

namespace asio = boost::asio;
using namespace std::chrono_literals;
using roster::call_options;
using roster::errc;
using roster::hand_driven_loop;
using roster::run_context;
using test::checkpoint;
using test::destruction_logger;
using test::run_until;
using test::spawn;

namespace {

/// One thread, held by a call until `gate` is opened.
struct busy_pool {
  busy_pool() : holder(test::occupy(loop, pool, gate)) {}
  ~busy_pool() { gate.open(); }

  call_options in(roster::clock::duration after) const { return call_options().deadline(time->from_now(after)); }

  void pass(roster::clock::duration by) {
    time->advance(by);
    test::drain(loop);
  }

  std::shared_ptr<roster::manual_time> time = std::make_shared<roster::manual_time>();
  asio::io_context loop;
  checkpoint gate;
  roster::blocking_pool pool{1, 16, time};
  test::task<void> holder;
};

/// Counts how often alarms are set.
class counted_time final : public roster::time_source {
 public:
  time_point now() const noexcept override { return manual.now(); }

  std::unique_ptr<roster::alarm> make_alarm(const asio::any_io_executor& executor, std::function<void()> ring) override {
    ++alarms;
    return std::make_unique<counted_alarm>(*this, manual.make_alarm(executor, std::move(ring)));
  }

  roster::manual_time manual;
  int alarms = 0, set = 0, cleared = 0;

 private:
  class counted_alarm final : public roster::alarm {
   public:
    counted_alarm(counted_time& in, std::unique_ptr<roster::alarm> real) : counts_(in), real_(std::move(real)) {}
    void set(roster::clock::time_point when) override {
      ++counts_.set;
      real_->set(when);
    }
    void clear() noexcept override {
      ++counts_.cleared;
      real_->clear();
    }

   private:
    counted_time& counts_;
    const std::unique_ptr<roster::alarm> real_;
  };
};

}  // namespace

TEST_CASE("A queued call leaves at its deadline, whatever the thread is doing, and its work is destroyed", "[b43][b44]") {
  busy_pool f;
  const auto work = [](const destruction_logger&) {};
  const auto destroyed = std::make_shared<destruction_logger::log>();
  const bool detachable = GENERATE(false, true);
  auto late = spawn(f.loop, detachable ? f.pool.run_detachable(f.in(1s), work, destruction_logger(destroyed))
                                       : f.pool.run(f.in(1s), work, destruction_logger(destroyed)));
  auto later = spawn(f.loop, f.pool.run(f.in(3s), [] { return 7; }));
  test::drain(f.loop);
  CHECK(f.pool.queued() == 2);

  f.pass(999ms);
  CHECK_FALSE(late.done());
  f.pass(1ms);
  CHECK(late.code() == errc::deadline_exceeded);
  CHECK(destroyed->size() == 1);
  CHECK(f.pool.queued() == 1);  // its place is free

  f.gate.open();
  run_until(f.loop, [&] { return later.done(); });
  CHECK(later.value() == 7);
}

TEST_CASE("A call that waits for admission leaves at its deadline, and those behind it move up", "[b12][b43]") {
  const auto time = std::make_shared<roster::manual_time>();
  asio::io_context loop;
  checkpoint gate;
  roster::blocking_pool pool(1, 0, time);
  auto holder = test::occupy(loop, pool, gate);
  const auto nothing = [] {};
  auto late = spawn(loop, pool.run(call_options().deadline(time->from_now(1s)), nothing));
  auto behind = spawn(loop, pool.run(nothing));
  test::drain(loop);
  CHECK(pool.waiting() == 2);
  time->advance(1s);
  test::drain(loop);
  CHECK(late.code() == errc::deadline_exceeded);
  CHECK(pool.waiting() == 1);
  gate.open();
  run_until(loop, [&] { return behind.done(); });
  CHECK(behind.succeeded());
}

TEST_CASE("A call that runs at its deadline is asked to stop, and completes then if it is detachable, but keeps its thread",
          "[b43][b70]") {
  hand_driven_loop loop;
  roster::blocking_pool pool(1, 16, loop.time());
  loop.watch(pool);
  checkpoint begun, gate;
  const auto work = [&](run_context& context) {
    begun.arrive();
    gate.pass();
    return context.stop_requested();
  };
  const auto options = call_options().deadline(loop.time()->from_now(1s));
  const bool detachable = GENERATE(false, true);
  auto call = spawn(loop.context(), detachable ? pool.run_detachable(options, work) : pool.run(options, work));
  test::drain(loop.context());
  begun.await();
  loop.time()->advance(1s);
  test::drain(loop.context());
  CHECK(call.done() == detachable);
  CHECK(pool.running() == 1);
  gate.open();
  loop.run();
  if (detachable)
    CHECK(call.code() == errc::deadline_exceeded);
  else
    CHECK(call.value());
  CHECK(pool.running() == 0);
}

TEST_CASE("A call whose deadline has passed when it is made never starts", "[b43]") {
  busy_pool f;
  bool started = false;
  const auto work = [&] { started = true; };
  auto call = spawn(f.loop, f.pool.run(f.in(0s), work));
  test::drain(f.loop);
  CHECK(call.code() == errc::deadline_exceeded);  // the thread is busy
  f.gate.open();
  run_until(f.loop, [&] { return f.holder.done(); });
  CHECK_FALSE(started);
}

TEST_CASE("Calls end one way: cancelled, stopped or in time, a deadline that passes later changes nothing", "[b43][b47]") {
  busy_pool f;
  const auto work = [] { return 7; };
  auto cancelled = spawn(f.loop, f.pool.run(f.in(1s), work));
  auto in_time = spawn(f.loop, f.pool.run(f.in(1s), work));
  test::drain(f.loop);
  cancelled.cancel();
  test::drain(f.loop);
  CHECK(cancelled.aborted());
  f.gate.open();
  run_until(f.loop, [&] { return in_time.done(); });
  CHECK(in_time.value() == 7);
  CHECK_FALSE(f.time->next_alarm());
  f.pass(1h);

  checkpoint gate;
  auto holder = test::occupy(f.loop, f.pool, gate);
  auto stopped = spawn(f.loop, f.pool.run(f.in(1s), work));
  test::drain(f.loop);
  auto stop = spawn(f.loop, f.pool.stop());
  test::drain(f.loop);
  CHECK(stopped.code() == errc::stopped);
  CHECK_FALSE(f.time->next_alarm());
  gate.open();
  run_until(f.loop, [&] { return stop.done(); });
}

TEST_CASE("A deadline far away does not keep a loop running whose calls have ended", "[b43]") {
  asio::io_context loop;
  roster::blocking_pool pool(1);
  auto call = spawn(loop, pool.run(call_options().deadline(roster::steady_time()->from_now(1h)), [] { return 7; }));
  loop.run();
  CHECK(call.value() == 7);
}

TEST_CASE("Deadlines hold by Asio's timers too", "[b43]") {
  asio::io_context loop;
  checkpoint gate;
  roster::blocking_pool pool(1);
  auto holder = test::occupy(loop, pool, gate);
  auto call = spawn(loop, pool.run(call_options().deadline(roster::steady_time()->from_now(1ms)), [] {}));
  run_until(loop, [&] { return call.done(); });
  CHECK(call.code() == errc::deadline_exceeded);
  gate.open();
  loop.run();
}

TEST_CASE("10,000 calls have one alarm, which is not set for each", "[b43]") {
  const auto time = std::make_shared<counted_time>();
  asio::io_context loop;
  checkpoint gate;
  roster::blocking_pool pool(1, 20'000, time);
  auto holder = test::occupy(loop, pool, gate);
  int expired = 0, succeeded = 0;
  const auto nothing = [] {};
  for (int i = 0; i < 10'000; ++i) {
    const auto call = [](roster::blocking_pool& on, call_options options, decltype(nothing)& work, int& late,
                         int& ended) -> asio::awaitable<void> {
      try {
        co_await on.run(options, work);
        ++ended;
      } catch (const boost::system::system_error& failure) {
        late += failure.code() == errc::deadline_exceeded;
      }
    };
    const auto options = call_options().deadline(time->from_now(std::chrono::milliseconds(1 + i % 100)));
    asio::co_spawn(loop, call(pool, options, nothing, expired, succeeded), asio::detached);
  }
  test::drain(loop);
  CHECK(time->alarms == 1);
  CHECK(time->set == 1);
  time->manual.advance(50ms);
  test::drain(loop);
  CHECK(expired == 5'000);
  CHECK(pool.queued() == 5'000);
  CHECK(time->set <= 52);
  gate.open();
  run_until(loop, [&] { return succeeded == 5'000; });
  CHECK(time->alarms == 1);
  CHECK_FALSE(time->manual.next_alarm());
}

TEST_CASE("Neither do those of a strand, or of a context with threads", "[b43]") {
  asio::thread_pool threads(1);
  roster::blocking_pool pool(1);
  const bool on_strand = GENERATE(false, true);
  const auto executor =
      on_strand ? asio::any_io_executor(asio::make_strand(threads)) : asio::any_io_executor(threads.get_executor());
  std::atomic<int> result{0};
  const auto call = [](roster::blocking_pool& on, std::atomic<int>& to) -> asio::awaitable<void> {
    to = co_await on.run(call_options().timeout(1h), [] { return 7; });
  };
  asio::co_spawn(executor, call(pool, result), asio::detached);
  threads.join();
  CHECK(result == 7);
}

TEST_CASE("A timeout counts from when the call is made, and the earlier of it and the deadline counts", "[b43]") {
  busy_pool f;
  const auto nothing = [] {};
  auto made = f.pool.run(call_options().timeout(3s), nothing);
  f.pass(1s);
  auto third = spawn(f.loop, std::move(made));
  auto second = spawn(f.loop, f.pool.run(f.in(2s).timeout(1s), nothing));
  auto first = spawn(f.loop, f.pool.run(f.in(500ms).timeout(1s), nothing));
  test::drain(f.loop);
  f.pass(500ms);
  CHECK(first.code() == errc::deadline_exceeded);
  CHECK_FALSE(second.done());
  f.pass(500ms);
  CHECK(second.code() == errc::deadline_exceeded);
  CHECK_FALSE(third.done());
  f.pass(1s);
  CHECK(third.code() == errc::deadline_exceeded);

  auto never = spawn(f.loop, f.pool.run(call_options().timeout(-1s), nothing));
  test::drain(f.loop);
  CHECK(never.code() == errc::deadline_exceeded);
}

TEST_CASE("What a pool ends a call with is an error of the library", "[b43]") {
  busy_pool f;
  const auto nothing = [] {};
  auto late = spawn(f.loop, f.pool.run(f.in(1s), nothing));
  auto stopped = spawn(f.loop, f.pool.run(nothing));
  test::drain(f.loop);
  f.pass(1s);
  CHECK_THROWS_AS(std::rethrow_exception(late.failure()), roster::error);
  auto stop = spawn(f.loop, f.pool.stop());
  test::drain(f.loop);
  CHECK_THROWS_AS(std::rethrow_exception(stopped.failure()), roster::error);
  f.gate.open();
  run_until(f.loop, [&] { return stop.done(); });
}

TEST_CASE("A call gives up at its deadline while its worker starts, which the start does not notice", "[b18][b43]") {
  hand_driven_loop loop;
  checkpoint begun, gate;
  const auto slow = [&] {
    begun.arrive();
    gate.pass();
    return 7;
  };
  roster::worker_thread<int> worker(loop.get_executor(), slow, roster::device(), 16, loop.time());
  const auto get = [](int& state) { return state; };
  auto late = spawn(loop.context(), worker.run(call_options().timeout(1s), get));
  auto in_time = spawn(loop.context(), worker.run(call_options().timeout(1h), get));
  test::drain(loop.context());
  begun.await();
  loop.time()->advance(1s);
  test::drain(loop.context());
  CHECK(late.code() == errc::deadline_exceeded);
  gate.open();
  loop.run();
  CHECK(in_time.value() == 7);
  CHECK(gate.arrived() == 1);
  CHECK_FALSE(loop.time()->next_alarm());
}

TEST_CASE("A caller that has left work that runs keeps no alarm", "[b13][b43]") {
  const auto time = std::make_shared<roster::manual_time>();
  asio::io_context loop;
  checkpoint gate;
  roster::blocking_pool pool(1, 16, time);
  auto call = spawn(loop, pool.run_detachable(call_options().deadline(time->from_now(1h)), &checkpoint::pass, &gate));
  test::drain(loop);
  gate.await();
  CHECK(time->next_alarm());
  call.cancel();
  test::drain(loop);
  CHECK(call.aborted());
  CHECK_FALSE(time->next_alarm());
  gate.open();
}

TEST_CASE("What ends after its deadline has failed, also if its caller's context had not looked at the time", "[b43][b70]") {
  const auto time = std::make_shared<roster::manual_time>();
  asio::io_context loop;
  roster::blocking_pool pool(1, 16, time);
  const auto late = [&](run_context& context) {
    time->advance(1h);
    return context.expired() ? 7 : 0;
  };
  const auto stops = [&](run_context&) {
    time->advance(1h);
    throw boost::system::system_error(asio::error::operation_aborted);
  };
  const auto until = [&] { return call_options().timeout(1s); };
  auto detachable = spawn(loop, pool.run_detachable(until(), late));
  run_until(loop, [&] { return detachable.done(); });
  CHECK(detachable.code() == errc::deadline_exceeded);
  auto waited_for = spawn(loop, pool.run(until(), late));
  run_until(loop, [&] { return waited_for.done(); });
  CHECK(waited_for.value() == 7);
  auto stopped = spawn(loop, pool.run(until(), stops));
  run_until(loop, [&] { return stopped.done(); });
  CHECK(stopped.code() == errc::deadline_exceeded);
}

namespace {

/// Time whose alarms cannot be made, or set, when a test says so.
class unreliable_time final : public roster::time_source {
 public:
  time_point now() const noexcept override { return manual.now(); }

  std::unique_ptr<roster::alarm> make_alarm(const asio::any_io_executor& executor, std::function<void()> ring) override {
    made_on = executor;
    if (cannot_make) throw std::bad_alloc();
    return std::make_unique<unreliable_alarm>(*this, manual.make_alarm(executor, std::move(ring)));
  }

  roster::manual_time manual;
  asio::any_io_executor made_on;
  bool cannot_make = false, cannot_set = false;

 private:
  class unreliable_alarm final : public roster::alarm {
   public:
    unreliable_alarm(unreliable_time& in, std::unique_ptr<roster::alarm> real) : owner_(in), real_(std::move(real)) {}
    void set(roster::clock::time_point when) override {
      real_->clear();
      if (std::exchange(owner_.cannot_set, false)) throw std::bad_alloc();
      real_->set(when);
    }
    void clear() noexcept override { real_->clear(); }

   private:
    unreliable_time& owner_;
    const std::unique_ptr<roster::alarm> real_;
  };
};

}  // namespace

TEST_CASE("A call whose deadline cannot be kept fails, and those of others are kept", "[b43]") {
  const auto time = std::make_shared<unreliable_time>();
  asio::io_context loop;
  checkpoint gate;
  roster::blocking_pool pool(1, 16, time);
  auto holder = test::occupy(loop, pool, gate);
  const auto nothing = [] {};
  time->cannot_make = true;
  auto without_alarm = spawn(loop, pool.run(call_options().timeout(1s), nothing));
  test::drain(loop);
  CHECK_THROWS_AS(std::rethrow_exception(without_alarm.failure()), std::bad_alloc);
  time->cannot_make = false;

  auto second = spawn(loop, pool.run(call_options().timeout(2s), nothing));
  test::drain(loop);
  time->cannot_set = true;
  auto first = spawn(loop, pool.run(call_options().timeout(1s), nothing));
  test::drain(loop);
  CHECK_THROWS_AS(std::rethrow_exception(first.failure()), std::bad_alloc);
  auto third = spawn(loop, pool.run(call_options().timeout(3s), nothing));
  test::drain(loop);
  CHECK(pool.queued() == 2);
  time->manual.advance(2s);
  test::drain(loop);
  CHECK(second.code() == errc::deadline_exceeded);
  time->manual.advance(1s);
  test::drain(loop);
  CHECK(third.code() == errc::deadline_exceeded);
  gate.open();
  run_until(loop, [&] { return holder.done(); });
}

TEST_CASE("The alarm of a context does not wait for a strand", "[b43]") {
  const auto time = std::make_shared<unreliable_time>();
  asio::io_context loop;
  roster::blocking_pool pool(1, 16, time);
  auto call = spawn(asio::make_strand(loop), pool.run(call_options().timeout(1s), [] {}));
  run_until(loop, [&] { return call.done(); });
  CHECK(time->made_on == loop.get_executor());
}

TEST_CASE("A context may be destroyed while work ends that its callers have left", "[b5][b43]") {
  for (int round = 0; round < 200; ++round) {
    roster::blocking_pool pool(1);
    auto loop = std::make_optional<asio::io_context>();
    checkpoint gate;
    const auto work = [&](run_context& context) {
      gate.arrive();
      while (!context.stop_requested())
        std::this_thread::yield();
    };
    auto call = std::make_optional(spawn(*loop, pool.run_detachable(call_options().timeout(1h), work)));
    test::drain(*loop);
    gate.await();
    call->cancel();
    test::drain(*loop);
    CHECK(call->aborted());
    call.reset();
    loop.reset();
  }
}

TEST_CASE("A context that is destroyed with deadlines ahead tells nobody", "[b5][b43]") {
  const auto time = std::make_shared<roster::manual_time>();
  auto loop = std::make_optional<asio::io_context>();
  checkpoint gate;
  {
    roster::blocking_pool pool(1, 16, time);
    auto holder = std::make_optional(test::occupy(*loop, pool, gate));
    auto call = std::make_optional(spawn(*loop, pool.run(call_options().deadline(time->from_now(1s)), [] {})));
    test::drain(*loop);
    gate.open();
  }
  loop.reset();
  time->advance(1h);
  CHECK_FALSE(time->next_alarm());
}

TEST_CASE("What within waits for shares the alarm of all others", "[b43]") {
  const auto time = std::make_shared<counted_time>();
  asio::io_context loop;
  test::gate closed(loop);
  std::vector<test::task<void>> calls;
  for (int i = 0; i < 100; ++i)
    calls.push_back(spawn(loop, roster::within(time, time->from_now(std::chrono::seconds(1 + i)), closed.wait())));
  test::drain(loop);
  CHECK(time->alarms == 1);
  CHECK(time->set == 1);
  time->manual.advance(50s);
  test::drain(loop);
  CHECK(std::ranges::count_if(calls, [](const auto& call) { return call.done(); }) == 50);
  closed.open();
  test::drain(loop);
  CHECK(std::ranges::all_of(calls, [](const auto& call) { return call.done(); }));
  CHECK(time->alarms == 1);
  CHECK_FALSE(time->manual.next_alarm());
}

TEST_CASE("A pairing heap gives the least of what is in it, whatever was taken out", "[b43]") {
  struct item : roster::detail::heap_node<item> {
    int value = 0;
    bool inside = false;
  };
  struct less {
    bool operator()(const item& left, const item& right) const { return left.value < right.value; }
  };
  std::mt19937 random(7);
  std::vector<item> items(200);
  roster::detail::pairing_heap<item, less> heap;
  std::multiset<int> expected;
  for (int step = 0; step < 20'000; ++step) {
    auto& one = items[random() % items.size()];
    if (one.inside) {
      heap.erase(one);
      expected.erase(expected.find(one.value));
    } else {
      one.value = static_cast<int>(random() % 50);
      heap.insert(one);
      expected.insert(one.value);
    }
    one.inside = !one.inside;
    REQUIRE(heap.empty() == expected.empty());
    if (heap.empty()) continue;
    REQUIRE(heap.first().value == *expected.begin());
    if (step % 3 == 0) {
      auto& least = heap.first();
      heap.erase(least);
      least.inside = false;
      expected.erase(expected.begin());
    }
  }
}

TEST_CASE("However deadlines, cancellations and ends meet, each call ends once and nothing is left", "[b43][b47][stress]") {
  test::stress([](unsigned seed) {
    asio::thread_pool callers(2);
    std::atomic<int> ended{0}, other{0};
    constexpr int calls = 400;
    {
      roster::blocking_pool pool(2);
      const auto call = [](roster::blocking_pool& on, unsigned kind, std::atomic<int>& ends,
                           std::atomic<int>& others) -> asio::awaitable<void> {
        const auto work = [kind](run_context& context) {
          for (unsigned i = 0; i < kind % 300 && !context.stop_requested(); ++i)
            std::this_thread::yield();
        };
        const auto options = call_options().deadline(roster::steady_time()->from_now(std::chrono::microseconds(kind % 700)));
        try {
          if (kind % 2)
            co_await on.run(options, work);
          else
            co_await on.run_detachable(options, work);
        } catch (const boost::system::system_error& failure) {
          others += failure.code() != errc::deadline_exceeded && failure.code() != asio::error::operation_aborted;
        }
        ++ends;
      };
      std::mt19937 random(seed);
      for (int i = 0; i < calls; ++i) {
        auto signal = std::make_shared<asio::cancellation_signal>();
        auto strand = asio::make_strand(callers);
        asio::co_spawn(strand, call(pool, static_cast<unsigned>(random()), ended, other),
                       asio::bind_cancellation_slot(signal->slot(), [signal](std::exception_ptr) {}));
        if (random() % 4 == 0) asio::post(strand, [signal] { signal->emit(asio::cancellation_type::terminal); });
      }
      while (ended < calls)
        std::this_thread::yield();
    }
    callers.join();
    CHECK(other == 0);
  });
}
