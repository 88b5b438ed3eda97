#pragma once

#include <roster/call/call_options.hpp>
#include <roster/detail/asio.hpp>
#include <roster/detail/cancel_spawned.hpp>
#include <roster/exec/detail/deadlines.hpp>
#include <roster/exec/time_source.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/system/system_error.hpp>

#include <chrono>
#include <memory>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// An operation and the deadline that cancels it, on one strand.
class timed_operation final : public deadline, public std::enable_shared_from_this<timed_operation> {
 public:
  timed_operation(const asio::strand<asio::any_io_executor>& strand, call_options::time_point until)
      : deadline(until), strand_(strand) {}

  void passed() noexcept override {
    asio::post(*strand_, [self = shared_from_this()] {
      if (self->ended_) return;
      self->expired_ = true;
      self->cancel();
    });
  }

  /// From any thread.
  void cancel_from_outside() noexcept {
    asio::post(*strand_, [self = shared_from_this()] {
      if (!self->ended_) self->cancel();
    });
  }

  /// The operation has ended.
  void finish() noexcept {
    ended_ = true;
    withdraw();
  }

  bool expired() const noexcept { return expired_; }
  const asio::strand<asio::any_io_executor>& strand() const noexcept { return *strand_; }
  asio::cancellation_slot slot() noexcept { return signal_.slot(); }

 private:
  void cancel() noexcept {
    ended_ = true;
    cancel_spawned(strand_, std::shared_ptr<asio::cancellation_signal>(shared_from_this(), &signal_));
  }

  const std::optional<asio::strand<asio::any_io_executor>> strand_;
  asio::cancellation_signal signal_;
  bool ended_ = false;
  bool expired_ = false;
};

template <typename T>
asio::awaitable<T> run_timed(std::shared_ptr<timed_operation> timed, std::shared_ptr<time_source> time,
                             asio::awaitable<T> operation) {
  struct finish_at_exit {
    explicit finish_at_exit(timed_operation& timed_op) : owner(timed_op) {}
    finish_at_exit(const finish_at_exit&) = delete;
    finish_at_exit& operator=(const finish_at_exit&) = delete;
    ~finish_at_exit() { owner.finish(); }
    timed_operation& owner;
  } finishing(*timed);
  deadlines::of(timed->strand(), time)->add(timed);
  try {
    auto token = asio::bind_cancellation_slot(timed->slot(), asio::use_awaitable);
    co_return co_await asio::co_spawn(timed->strand(), std::move(operation), std::move(token));
  } catch (const boost::system::system_error& failure) {
    if (!timed->expired() || failure.code() != asio::error::operation_aborted) throw;
  }
  throw error(errc::deadline_exceeded);
}

}  // namespace detail

/// Awaits an operation until it is `deadline` by `time`; then cancels it and awaits its end. Unlike Asio's `||` with a timer
/// this returns whatever the operation ends with, errors too, and may be used on a context with many threads.
///
/// **Completion**: when the operation has ended, with its value, even if that came after the deadline.
/// **Executor**: resumes on the coroutine's own; the operation runs on a strand of it.
/// **Cancellation**: terminal; cancels the operation, and awaits its end. Cancelling posts to the strand; if memory for
/// that runs out, the program terminates.
/// **Errors**: the operation's; `deadline_exceeded` when the deadline had passed and the operation ended as cancelled;
/// `invalid_argument` for a null `time`.
///
///     auto model = co_await roster::within(time, deadline, models.get("digits"));
template <typename T>
[[nodiscard]] asio::awaitable<T> within(std::shared_ptr<time_source> time, call_options::time_point deadline,
                                        asio::awaitable<T> operation) {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  const asio::cancellation_state cancellation = co_await asio::this_coro::cancellation_state;
  detail::required(time);
  const auto timed = std::make_shared<detail::timed_operation>(asio::strand<asio::any_io_executor>(executor), deadline);
  // Not co_spawn's own handler: up to Boost 1.81 at least, the strand uses it after it was destroyed here.
  if (auto slot = cancellation.slot(); slot.is_connected())
    slot.assign([weak = std::weak_ptr<detail::timed_operation>(timed)](asio::cancellation_type) {
      if (const auto running = weak.lock()) running->cancel_from_outside();
    });
  auto unconnected = asio::bind_cancellation_slot(asio::cancellation_slot(), asio::use_awaitable);
  co_return co_await asio::co_spawn(timed->strand(), detail::run_timed(timed, std::move(time), std::move(operation)),
                                    std::move(unconnected));
}

/// The same, by the steady clock.
template <typename T>
[[nodiscard]] asio::awaitable<T> within(call_options::time_point deadline, asio::awaitable<T> operation) {
  return within(steady_time(), deadline, std::move(operation));
}

/// The same, for as long as `duration` from now.
template <typename T>
[[nodiscard]] asio::awaitable<T> within(clock::duration duration, asio::awaitable<T> operation) {
  return within(steady_time()->from_now(duration), std::move(operation));
}

ROSTER_END_NAMESPACE
