#pragma once

#include <roster/call/clock.hpp>
#include <roster/detail/asio.hpp>
#include <roster/detail/separate_compilation.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <utility>

ROSTER_BEGIN_NAMESPACE

/// One wait at a time, made by a `time_source`. Destroying it ends the wait; destroy it before its context.
///
/// **Thread safety**: none; calls of one alarm must not overlap. They are made under a lock: an implementation calls nothing of
/// the library.
class alarm {
 public:
  alarm() = default;
  alarm(const alarm&) = delete;
  alarm& operator=(const alarm&) = delete;
  virtual ~alarm() = default;

  /// Rings at `when`, or at once if that has passed, instead of whatever was set before. What it throws is the error of the
  /// operation whose deadline it was for.
  virtual void set(clock::time_point when) = 0;

  /// Ends the wait. Whoever is rung all the same, because that had begun, sees from the clock that it is not time yet.
  virtual void clear() noexcept = 0;
};

/// The clock of a program, and its alarms: whatever waits for time in a pool, a worker or a registry gets both from the one it
/// was given, so that a test can pass time by hand (`manual_time`).
///
/// A context in which it was used keeps a time source until it ends.
///
/// **Thread safety**: all members may be called concurrently, from any thread.
class time_source : public clock {
 public:
  /// An alarm, not set, that calls `ring` on a thread of the executor's context, if that is a strand perhaps outside of it, and
  /// never inside `set`. A ring that has begun may come after the alarm was cleared or destroyed, so `ring` should hold what it
  /// uses weakly. An alarm that is set counts as work of the context.
  virtual std::unique_ptr<alarm> make_alarm(const asio::any_io_executor& executor, std::function<void()> ring) = 0;
};

/// The time of `std::chrono::steady_clock`, with Asio's timers for alarms.
ROSTER_DECL const std::shared_ptr<time_source>& steady_time();

ROSTER_END_NAMESPACE

#if ROSTER_DEFINITIONS_HERE

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/system_executor.hpp>

ROSTER_BEGIN_NAMESPACE

namespace detail {

class steady_alarm final : public alarm {
 public:
  steady_alarm(const asio::any_io_executor& executor, std::function<void()> ring)
      : timer_(executor), ring_(std::make_shared<const std::function<void()>>(std::move(ring))) {}

  void set(clock::time_point when) override {
    timer_.expires_at(when);
    // Called where the timer's context finds that it is time, whatever the strand is doing.
    timer_.async_wait(asio::bind_executor(asio::system_executor(), [ring = ring_](error_code code) {
      if (!code) (*ring)();
    }));
  }

  void clear() noexcept override { timer_.cancel(); }

 private:
  asio::steady_timer timer_;
  const std::shared_ptr<const std::function<void()>> ring_;
};

class steady_time_source final : public time_source {
 public:
  time_point now() const noexcept override { return std::chrono::steady_clock::now(); }

  std::unique_ptr<alarm> make_alarm(const asio::any_io_executor& executor, std::function<void()> ring) override {
    return std::make_unique<steady_alarm>(executor, std::move(ring));
  }
};

}  // namespace detail

ROSTER_DECL const std::shared_ptr<time_source>& steady_time() {
  static const std::shared_ptr<time_source> only = std::make_shared<detail::steady_time_source>();
  return only;
}

ROSTER_END_NAMESPACE

#endif
