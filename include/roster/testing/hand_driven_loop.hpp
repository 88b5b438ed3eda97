#pragma once

#include <roster/detail/context_bound.hpp>
#include <roster/exec/blocking_pool.hpp>
#include <roster/exec/detail/call_task.hpp>
#include <roster/testing/manual_time.hpp>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/io_context.hpp>

#include <fmt/format.h>

#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

/// What waits where nothing can run.
struct waiting_work {
  bool operations = false;                    ///< whether the loop has operations that have not completed
  std::size_t running = 0;                    ///< calls on threads that wait for ticks, or for room in their streams
  std::size_t queued = 0;                     ///< calls behind them
  std::optional<clock::duration> next_alarm;  ///< how long until the next alarm rings, if one is set
};

/// `operations pending, 1 running, 2 queued, next alarm in 500 ms`, or `nothing`.
inline std::string to_string(const waiting_work& what) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  if (what.operations) add("operations pending");
  if (what.running) add(fmt::format("{} running", what.running));
  if (what.queued) add(fmt::format("{} queued", what.queued));
  if (what.next_alarm)
    add(fmt::format("next alarm in {} ms", std::chrono::duration_cast<std::chrono::milliseconds>(*what.next_alarm).count()));
  return text.empty() ? "nothing" : text;
}

/// An event loop for tests, which runs until nothing can run any more, and a time that passes by hand: what a test sees then
/// does not depend on how fast threads are.
///
/// Nothing can run when no handler is ready, and each thread, of the pools that are watched and of the workers that belong to
/// the loop, waits for work, or for a tick inside a `scripted_engine`, or for room in a stream. Other work is waited for.
///
/// **Thread safety**: for one thread, the test's.
///
///     roster::hand_driven_loop loop;
///     roster::blocking_pool pool{1, 16, loop.time()};
///     loop.watch(pool);
///     loop.run();                             // until nothing can run
///     loop.advance(std::chrono::minutes(5));  // whatever these bring, in order
class hand_driven_loop {
 public:
  hand_driven_loop() { (void)detail::closing_list_of(get_executor()); }  // makes the services in their order
  hand_driven_loop(const hand_driven_loop&) = delete;
  hand_driven_loop& operator=(const hand_driven_loop&) = delete;

  /// The loop.
  asio::io_context& context() noexcept { return context_; }

  /// Its executor.
  asio::any_io_executor get_executor() noexcept { return context_.get_executor(); }

  /// The time, for pools, registries and workers.
  const std::shared_ptr<manual_time>& time() const noexcept { return time_; }

  /// Waits for the threads of `pool` too, which goes by its own time: give it `time()`. The pool may end before the loop.
  void watch(const blocking_pool& pool) { pools_.push_back(pool.shared_queue()); }

  /// Runs until nothing can run. Handlers' exceptions come out of it.
  void run() {
    for (;;) {
      while (poll()) {
      }
      const auto before = still();
      if (before && before == still() && !poll()) return;
      std::this_thread::yield();
    }
  }

  /// Lets time pass, from alarm to alarm, and runs after each what it brings.
  void advance(clock::duration by) {
    const auto until = time_->from_now(by);
    run();
    for (auto next = time_->next_alarm(); next && *next <= until; next = time_->next_alarm()) {
      time_->advance_to(*next);
      run();
    }
    time_->advance_to(until);
    run();
  }

  /// Runs a coroutine to its end, without letting time pass, and returns or throws its outcome. Throws `std::logic_error` if
  /// it cannot end, with what waits; it stays under way then.
  template <typename T>
  T run(asio::awaitable<T> coroutine) {
    const auto outcome = std::make_shared<detail::outcome<T>>();
    const auto end = [outcome](std::exception_ptr failure, auto... value) {
      outcome->failure = std::move(failure);
      outcome->value.emplace(std::move(value)...);
    };
    asio::co_spawn(context_, std::move(coroutine), end);
    run();
    if (!outcome->value) throw std::logic_error("the coroutine cannot end: " + to_string(waiting()));
    return std::move(*outcome).get();
  }

  /// What waited when `run` returned.
  waiting_work waiting() {
    const auto threads = still().value_or(detail::stillness());
    waiting_work all{!context_.stopped(), threads.running, threads.queued, std::nullopt};
    if (const auto next = time_->next_alarm()) all.next_alarm = *next - time_->now();
    return all;
  }

 private:
  bool poll() {
    context_.restart();
    return context_.poll() > 0;
  }

  /// Equal answers, one after the other, say that all threads were still at one time.
  std::optional<detail::stillness> still() {
    auto all = asio::use_service<detail::closing_service>(context_).threads()->still();
    for (const auto& queue : pools_) {
      const auto one = queue->still();
      if (!one || !all) return std::nullopt;
      all->add(*one);
    }
    return all;
  }

  const std::shared_ptr<manual_time> time_ = std::make_shared<manual_time>();
  asio::io_context context_{1};
  std::vector<std::shared_ptr<detail::task_queue>> pools_;
};

ROSTER_END_NAMESPACE
