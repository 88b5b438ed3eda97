#pragma once

// Coroutines and contexts driven by hand.

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/execution.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>

#include <cstddef>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

namespace test {

namespace asio = boost::asio;
using boost::system::error_code;

/// Runs everything that is ready, now, on this thread.
inline std::size_t drain(asio::io_context& context) {
  context.restart();
  return context.poll();
}

/// Runs at most `count` handlers.
inline std::size_t step(asio::io_context& context, std::size_t count = 1) {
  std::size_t done = 0;
  context.restart();
  while (done < count && context.poll_one() == 1)
    ++done;
  return done;
}

/// The code of a failure; success for null, `errc::state_not_recoverable` for what is no `system_error`.
inline error_code code_of(const std::exception_ptr& failure) {
  if (!failure) return {};
  try {
    std::rethrow_exception(failure);
  } catch (const boost::system::system_error& e) {
    return e.code();
  } catch (...) {
    return make_error_code(boost::system::errc::state_not_recoverable);
  }
}

/// How a spawned coroutine ended, and the means to cancel it.
struct outcome {
  asio::cancellation_signal signal;
  int completions = 0;
  std::exception_ptr failure;
};

/// Spawns all tasks, whatever they return: what `co_spawn` makes of a type takes long to compile.
inline void spawn_task(const asio::any_io_executor& executor, asio::awaitable<void> coroutine, std::shared_ptr<outcome> told) {
  const auto slot = told->signal.slot();
  asio::co_spawn(executor, std::move(coroutine),
                 asio::bind_cancellation_slot(slot, [told = std::move(told)](std::exception_ptr failure) {
                   ++told->completions;
                   told->failure = std::move(failure);
                 }));
}

/// A spawned coroutine.
template <typename T>
class task {
  using stored_type = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

  struct state : outcome {
    std::optional<stored_type> value;
  };

 public:
  task(const asio::any_io_executor& executor, asio::awaitable<T> coroutine) {
    spawn_task(executor, run(state_, std::move(coroutine)), state_);
  }

  /// Ended, one way or the other; exactly once.
  bool done() const { return state_->completions == 1; }
  int completions() const { return state_->completions; }
  bool succeeded() const { return done() && !state_->failure; }
  error_code code() const { return code_of(state_->failure); }
  bool aborted() const { return done() && code() == asio::error::operation_aborted; }
  const std::exception_ptr& failure() const { return state_->failure; }
  stored_type& value() { return state_->value.value(); }

  void cancel(asio::cancellation_type type = asio::cancellation_type::terminal) { state_->signal.emit(type); }

 private:
  static asio::awaitable<void> run(std::shared_ptr<state> self, asio::awaitable<T> coroutine) {
    if constexpr (std::is_void_v<T>) {
      co_await std::move(coroutine);
      self->value.emplace();
    } else {
      self->value.emplace(co_await std::move(coroutine));
    }
  }

  std::shared_ptr<state> state_ = std::make_shared<state>();
};

template <typename T>
task<T> spawn(asio::any_io_executor executor, asio::awaitable<T> coroutine) {
  return {std::move(executor), std::move(coroutine)};
}

template <typename T>
task<T> spawn(asio::io_context& context, asio::awaitable<T> coroutine) {
  return {context.get_executor(), std::move(coroutine)};
}

/// Coroutines wait here until it is opened. For one thread.
class gate {
 public:
  explicit gate(asio::any_io_executor executor) : timer_(std::move(executor), asio::steady_timer::time_point::max()) {}
  explicit gate(asio::io_context& context) : gate(context.get_executor()) {}

  void open() {
    open_ = true;
    timer_.cancel();
  }

  int waiting() const { return waiting_; }

  /// Throws `operation_aborted` when cancelled.
  asio::awaitable<void> wait() {
    error_code code;
    ++waiting_;
    if (!open_) co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, code));
    --waiting_;
    if (!open_) throw boost::system::system_error(code);
  }

 private:
  asio::steady_timer timer_;
  bool open_ = false;
  int waiting_ = 0;
};

/// What follows is in a coroutine that was cancelled.
inline asio::awaitable<void> wait_until_cancelled(gate& closed) {
  try {
    co_await closed.wait();
  } catch (const boost::system::system_error&) {
  }
}

struct allocation_counts {
  std::size_t live = 0;
  std::size_t total = 0;
};

/// Counts what is allocated through its copies.
template <typename T>
class counting_allocator {
 public:
  using value_type = T;

  explicit counting_allocator(std::shared_ptr<allocation_counts> counts) : counts_(std::move(counts)) {}
  template <typename U>
  counting_allocator(const counting_allocator<U>& other) : counts_(other.counts()) {}

  T* allocate(std::size_t n) {
    ++counts_->live;
    ++counts_->total;
    return std::allocator<T>().allocate(n);
  }
  void deallocate(T* memory, std::size_t n) {
    --counts_->live;
    std::allocator<T>().deallocate(memory, n);
  }

  const std::shared_ptr<allocation_counts>& counts() const { return counts_; }
  template <typename U>
  bool operator==(const counting_allocator<U>& other) const {
    return counts_ == other.counts();
  }

 private:
  std::shared_ptr<allocation_counts> counts_;
};

/// Makes a handler with an allocator and a cancellation slot that outlives it, and notes how much memory of that allocator was
/// live when the handler was destroyed. (A handler may own the memory that its allocator gives out.)
class handler_memory {
 public:
  auto handler() {
    auto owner = std::shared_ptr<void>(nullptr, [this](void*) { live_at_the_end = counts_->live; });
    return asio::bind_cancellation_slot(
        signal_.slot(), asio::bind_allocator(counting_allocator<void>(counts_), [owner = std::move(owner)](auto&&...) {}));
  }

  std::size_t live() const { return counts_->live; }

  std::optional<std::size_t> live_at_the_end;

 private:
  std::shared_ptr<allocation_counts> counts_ = std::make_shared<allocation_counts>();
  asio::cancellation_signal signal_;
};

/// Destroys what it is given, as a strand does whose context is shutting down.
struct dropping_executor {
  asio::execution_context* context;

  template <typename F>
  void execute(F&& function) const {
    const std::decay_t<F> dropped(std::forward<F>(function));
  }
  asio::execution_context& query(asio::execution::context_t) const noexcept { return *context; }
  static constexpr asio::execution::blocking_t query(asio::execution::blocking_t) noexcept {
    return asio::execution::blocking.never;
  }
  friend bool operator==(const dropping_executor&, const dropping_executor&) noexcept = default;
};

}  // namespace test
