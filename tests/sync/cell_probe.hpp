#pragma once

#include <roster/sync/once_cell.hpp>

#include "tests/support/asio.hpp"

#include <boost/asio/bind_executor.hpp>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <utility>

namespace test {

using int_cell = roster::async_once_cell<int>;

/// An initialiser that counts its runs, waits at a gate, and then does as told.
struct probe {
  explicit probe(asio::io_context& context) : gate(context) {}

  asio::awaitable<int> make() {
    ++started;
    const running_guard guard(*this);
    if (deaf) {
      co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
      co_await asio::this_coro::throw_if_cancelled(false);
    }
    try {
      co_await gate.wait();
    } catch (const boost::system::system_error&) {
      ++cancelled;
      if (!stubborn) throw;
    }
    if (fails) throw std::runtime_error("cause");
    co_return result;
  }

  /// Copyable, trivially destructible: what `get_or_init` takes on every compiler.
  auto initialiser() {
    return [this] { return make(); };
  }

  class gate gate;
  int result = 7;
  bool fails = false;
  bool deaf = false;      // cancellation does not reach it
  bool stubborn = false;  // cancellation reaches it, and it goes on
  int started = 0;
  int cancelled = 0;
  int running = 0;
  int most_running = 0;

 private:
  struct running_guard {
    explicit running_guard(probe& p) : self(p) { self.most_running = std::max(self.most_running, ++self.running); }
    running_guard(const running_guard&) = delete;
    running_guard& operator=(const running_guard&) = delete;
    ~running_guard() { --self.running; }
    probe& self;
  };
};

inline asio::awaitable<int> get(int_cell& cell, probe& initialiser) {
  const auto value = co_await cell.get_or_init(initialiser.initialiser());
  co_return *value;
}

inline asio::awaitable<int> seven() {
  co_return 7;
}

/// One `async_get_or_init` with a plain callback.
template <typename T = int>
class cell_request {
 public:
  using value_type = typename roster::async_once_cell<T>::value_type;

  template <typename Initialise>
  cell_request(roster::async_once_cell<T>& cell, Initialise initialise) {
    cell.async_get_or_init(initialise, handler());
  }

  template <typename Initialise>
  cell_request(roster::async_once_cell<T>& cell, Initialise initialise, const asio::any_io_executor& executor) {
    cell.async_get_or_init(initialise, asio::bind_executor(executor, handler()));
  }

  bool done() const { return state_->calls == 1; }
  bool waits() const { return state_->calls == 0; }
  int calls() const { return state_->calls; }
  bool has_value() const { return done() && !state_->failure && state_->value; }
  bool failed() const { return done() && state_->failure && !state_->value; }
  bool aborted() const { return failed() && code_of(state_->failure) == asio::error::operation_aborted; }
  bool dropped() const { return waits() && state_.use_count() == 1; }
  const std::exception_ptr& failure() const { return state_->failure; }
  value_type& value() { return state_->value; }
  void cancel(asio::cancellation_type type = asio::cancellation_type::terminal) { state_->signal.emit(type); }

 private:
  struct state {
    asio::cancellation_signal signal;
    int calls = 0;
    std::exception_ptr failure;
    value_type value;
  };

  auto handler() {
    return asio::bind_cancellation_slot(state_->signal.slot(), [self = state_](std::exception_ptr failure, value_type value) {
      ++self->calls;
      self->failure = std::move(failure);
      self->value = std::move(value);
    });
  }

  std::shared_ptr<state> state_ = std::make_shared<state>();
};

}  // namespace test
