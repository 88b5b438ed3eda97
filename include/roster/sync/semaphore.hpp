#pragma once

#include <roster/detail/separate_compilation.hpp>
#include <roster/detail/waiter.hpp>
#include <roster/sync/detail/semaphore_state.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

template <typename Executor>
class basic_async_semaphore;

/// One permit of an `async_semaphore`, given back by the destructor. Any thread may give it back; it may outlive the semaphore.
class [[nodiscard]] semaphore_permit {
 public:
  /// Holds nothing.
  semaphore_permit() = default;

  /// Takes the permit over.
  semaphore_permit(semaphore_permit&&) noexcept = default;

  /// Gives its own permit back, takes the other over.
  semaphore_permit& operator=(semaphore_permit&& other) noexcept {
    if (this != &other) {
      release();
      state_ = std::move(other.state_);
    }
    return *this;
  }
  ~semaphore_permit() { release(); }

  /// Whether there is a permit to give back.
  bool owns_permit() const noexcept { return state_ != nullptr; }

  /// Gives the permit back now, to the first waiter if there is one. Never runs a waiter's code.
  void release() noexcept {
    if (auto state = std::move(state_)) state->release();
  }

 private:
  template <typename>
  friend class basic_async_semaphore;
  template <typename, typename, typename, typename>
  friend class detail::pending_waiter;

  explicit semaphore_permit(std::shared_ptr<detail::semaphore_state> state) noexcept : state_(std::move(state)) {}

  std::shared_ptr<detail::semaphore_state> state_;
};

/// Counted permits for coroutines, handed out first come, first served.
///
/// A released permit goes straight to the first waiter; `try_acquire` never overtakes one. Completing a waiter posts its
/// handler; if memory for that runs out, the program terminates.
///
/// `Executor` is that of the coroutines that call `acquire`; the other members work with any.
///
/// **Thread safety**: all members but the destructor may be called concurrently, from any thread.
template <typename Executor>
class basic_async_semaphore {
 public:
  /// What an acquisition returns.
  using permit = semaphore_permit;

  /// A semaphore with `permits` free permits, whose handlers run on `executor` unless they have one of their own.
  basic_async_semaphore(asio::any_io_executor executor, std::size_t permits);

  /// The same, on the executor of `context`.
  basic_async_semaphore(detail::execution_context_like auto& context, std::size_t permits)
      : basic_async_semaphore(context.get_executor(), permits) {}

  basic_async_semaphore(const basic_async_semaphore&) = delete;
  basic_async_semaphore& operator=(const basic_async_semaphore&) = delete;

  /// Callers that wait get `operation_aborted`; permits that are held stay valid.
  ~basic_async_semaphore();

  /// Waits for a permit.
  ///
  /// **Completion**: with the permit; at once, without suspending, when one is free.
  /// **Executor**: resumes on the coroutine's own.
  /// **Cancellation**: terminal; the waiter leaves the queue.
  /// **Errors**: `operation_aborted` when cancelled or when the semaphore, or its context, is destroyed.
  [[nodiscard]] asio::awaitable<permit, Executor> acquire() { return acquire(state_); }

  /// Takes a permit if one is free.
  [[nodiscard]] std::optional<permit> try_acquire() noexcept {
    if (!state_->try_acquire()) return std::nullopt;
    return permit(state_);
  }

  /// Starts waiting for a permit. Handler signature: `void(error_code, semaphore_permit)`.
  ///
  /// **Completion**: exactly once, never inside this call unless the handler's immediate executor (Boost 1.82) says so. The
  /// handler owns the permit: destroyed uncalled, it releases it.
  /// **Executor**: the handler's associated executor, the semaphore's by default.
  /// **Cancellation**: terminal, partial and total; the waiter leaves the queue.
  /// **Errors**: `operation_aborted` when cancelled or when the semaphore, or its context, is destroyed.
  template <typename Token>
  [[nodiscard]] auto async_acquire(Token&& token) {
    return start(state_, state_->executor(), std::forward<Token>(token));
  }

  /// The number of permits that `try_acquire` could take now.
  std::size_t available() const noexcept { return state_->available(); }

 private:
  using state_ptr = std::shared_ptr<detail::semaphore_state>;

  template <typename Handler>
  using pending_permit = detail::pending_waiter<detail::semaphore_waiter, Handler, void(error_code, permit)>;

  template <typename Token>
  static auto start(state_ptr state, asio::any_io_executor executor, Token&& token) {
    return detail::async_wait<void(error_code, permit), pending_permit>(std::move(executor), std::move(state),
                                                                        std::forward<Token>(token));
  }

  static asio::awaitable<permit, Executor> acquire(state_ptr state);

  const state_ptr state_;
};

#if ROSTER_DEFINITIONS_HERE

template <typename Executor>
basic_async_semaphore<Executor>::basic_async_semaphore(asio::any_io_executor executor, std::size_t permits)
    : state_(detail::make_context_bound<detail::semaphore_state>(executor, permits)) {}

template <typename Executor>
basic_async_semaphore<Executor>::~basic_async_semaphore() {
  state_->close();
}

template <typename Executor>
asio::awaitable<semaphore_permit, Executor> basic_async_semaphore<Executor>::acquire(state_ptr state) {
  if (state->try_acquire()) co_return permit(std::move(state));
  co_return co_await start(std::move(state), asio::any_io_executor(), asio::use_awaitable_t<Executor>());
}

#else
extern template class basic_async_semaphore<asio::any_io_executor>;
#endif

/// The semaphore for coroutines on `any_io_executor`, which is what `asio::awaitable<T>` means.
using async_semaphore = basic_async_semaphore<asio::any_io_executor>;

ROSTER_END_NAMESPACE
