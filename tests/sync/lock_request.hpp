#pragma once

#include <roster/sync/shared_mutex.hpp>

#include "tests/support/asio.hpp"

#include <boost/asio/bind_executor.hpp>

#include <memory>
#include <optional>
#include <utility>

namespace test {

/// One `async_lock` or `async_lock_shared` with a plain callback: what became of it, and the guard it brought.
template <typename Guard>
class lock_request {
 public:
  explicit lock_request(roster::async_shared_mutex& mutex) { start(mutex, handler()); }

  lock_request(roster::async_shared_mutex& mutex, const asio::any_io_executor& executor) {
    start(mutex, asio::bind_executor(executor, handler()));
  }

  bool done() const { return state_->calls == 1; }
  int calls() const { return state_->calls; }
  bool holds() const { return done() && !state_->code && state_->guard.owns_lock(); }
  bool aborted() const { return done() && state_->code == asio::error::operation_aborted && !state_->guard.owns_lock(); }
  bool waits() const { return state_->calls == 0; }

  /// Whether the handler was neither called nor exists any more.
  bool dropped() const { return state_->calls == 0 && state_.use_count() == 1; }

  Guard& guard() { return state_->guard; }
  void release() { state_->guard.unlock(); }
  void cancel(asio::cancellation_type type = asio::cancellation_type::terminal) { state_->signal.emit(type); }

 private:
  struct state {
    asio::cancellation_signal signal;
    int calls = 0;
    error_code code;
    Guard guard;
  };

  auto handler() {
    return asio::bind_cancellation_slot(state_->signal.slot(), [self = state_](error_code code, Guard guard) {
      ++self->calls;
      self->code = code;
      self->guard = std::move(guard);
    });
  }

  template <typename Handler>
  static void start(roster::async_shared_mutex& mutex, Handler handler) {
    if constexpr (std::is_same_v<Guard, roster::async_shared_mutex::unique_guard>)
      mutex.async_lock(std::move(handler));
    else
      mutex.async_lock_shared(std::move(handler));
  }

  std::shared_ptr<state> state_ = std::make_shared<state>();
};

/// Lets the holder pass the head of the queue, so that the next release does not wake the head but hands it the lock.
inline void pass_head(asio::io_context& context, roster::async_shared_mutex& mutex,
                      std::optional<roster::async_shared_mutex::unique_guard>& holder) {
  holder.reset();
  holder = mutex.try_lock().value();
  drain(context);
}

using write_request = lock_request<roster::async_shared_mutex::unique_guard>;
using read_request = lock_request<roster::async_shared_mutex::shared_guard>;

}  // namespace test
