#pragma once

// Stress: random operations from a seed, for a given time.

#include "tests/support/catch.hpp"
#include "tests/support/exec.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/system/system_error.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <exception>
#include <functional>
#include <iostream>
#include <mutex>
#include <optional>
#include <random>
#include <shared_mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace test {

/// Calls `body(seed)` with the seed `ROSTER_SEED`, or a random one, and goes on with the seeds that follow until
/// `ROSTER_STRESS_SECONDS` have passed. Without those it calls it once.
template <typename Body>
void stress(Body body) {
  const char* first = std::getenv("ROSTER_SEED");
  const char* seconds = std::getenv("ROSTER_STRESS_SECONDS");
  auto seed = first ? static_cast<std::uint32_t>(std::strtoul(first, nullptr, 10)) : std::random_device()();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds ? std::strtol(seconds, nullptr, 10) : 0);
  do {
    std::cerr << "ROSTER_SEED=" << seed << std::endl;  // a test that hangs, or that a sanitizer ends, tells nothing later
    INFO("ROSTER_SEED=" << seed);
    body(seed++);
  } while (std::chrono::steady_clock::now() < end);
}

/// An object that may be destroyed at any moment: while no call is inside it, but operations that calls began may be under way.
template <typename T>
class destroyable {
 public:
  template <typename... Args>
  explicit destroyable(Args&&... args) : object_(std::in_place, std::forward<Args>(args)...) {}

  /// What `function(object)` returns; throws `operation_aborted` when there is no object any more.
  template <typename Function>
  std::invoke_result_t<Function, T&> call(Function function) {
    const std::shared_lock alive(mutex_);  // orders the calls before the destruction, and not among themselves
    if (!object_) throw boost::system::system_error(boost::asio::error::operation_aborted);
    return std::invoke(function, *object_);
  }

  void destroy() {
    const std::unique_lock alone(mutex_);
    object_.reset();
  }

  /// Destroys it and makes another one.
  template <typename... Args>
  void renew(Args&&... args) {
    const std::unique_lock alone(mutex_);
    object_.emplace(std::forward<Args>(args)...);
  }

 private:
  std::shared_mutex mutex_;
  std::optional<T> object_;
};

/// Coroutines on loops that stop and resume at random: three with a thread each, or strands of one that three threads run.
class looped_coroutines {
 public:
  explicit looped_coroutines(std::mt19937& random) : random_(random) {
    const auto threads_each = static_cast<int>(random() % 2 ? 1 : 3);
    for (int threads = 0; threads < 3; threads += threads_each)
      loops_.emplace_back(threads_each);
  }
  looped_coroutines(const looped_coroutines&) = delete;
  looped_coroutines& operator=(const looped_coroutines&) = delete;
  ~looped_coroutines() { join(); }

  /// One of the loops.
  boost::asio::any_io_executor executor() { return loops_.front().context.get_executor(); }

  /// Starts a coroutine on an executor of its own, and calls `told(failure)` there when it ends.
  template <typename Told>
  void spawn(boost::asio::awaitable<void> coroutine, Told told) {
    auto& added = members_.emplace_back(loops_[members_.size() % loops_.size()].executor());
    auto handler = [this, told](const std::exception_ptr& failure) {
      told(failure);
      ended_.arrive();
    };
    boost::asio::co_spawn(added.executor, std::move(coroutine),
                          boost::asio::bind_cancellation_slot(added.signal.slot(), std::move(handler)));
  }

  /// Cancels one of the coroutines, unless it has ended.
  void cancel_one() {
    auto& cancelled = members_[random_() % members_.size()];
    boost::asio::post(cancelled.executor, [&cancelled] { cancelled.signal.emit(boost::asio::cancellation_type::terminal); });
  }

  /// Stops one of the loops wherever it is, or lets it go on.
  void stop_or_resume() {
    auto& picked = loops_[random_() % loops_.size()];
    if (picked.stopped())
      picked.resume();
    else
      picked.stop();
  }

  /// Lets all loops go on until every coroutine has ended and nothing is left to do.
  void join() {
    for (auto& each : loops_)
      each.resume();
    ended_.await(static_cast<int>(members_.size()));
    for (auto& each : loops_)
      each.finish();
  }

 private:
  struct member {
    explicit member(boost::asio::any_io_executor member_executor) : executor(std::move(member_executor)) {}
    boost::asio::any_io_executor executor;
    boost::asio::cancellation_signal signal;
  };

  class loop {
   public:
    explicit loop(int threads) : context(threads), count_(static_cast<std::size_t>(threads)) { resume(); }

    boost::asio::any_io_executor executor() {
      if (count_ == 1) return context.get_executor();
      return boost::asio::make_strand(context);
    }

    bool stopped() const { return threads_.empty(); }

    void stop() {
      context.stop();
      join();
    }

    void resume() {
      if (!stopped()) return;
      context.restart();
      while (threads_.size() < count_)
        threads_.emplace_back([this] { context.run(); });
    }

    void finish() {
      work_.reset();
      join();
    }

    boost::asio::io_context context;

   private:
    void join() {
      for (auto& each : threads_)
        each.join();
      threads_.clear();
    }

    const std::size_t count_;
    boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{context.get_executor()};
    std::vector<std::thread> threads_;
  };

  std::mt19937& random_;
  std::deque<loop> loops_;
  std::deque<member> members_;
  checkpoint ended_;
};

}  // namespace test
