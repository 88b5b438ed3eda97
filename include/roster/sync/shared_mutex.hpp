#pragma once

#include <roster/detail/waiter.hpp>
#include <roster/sync/detail/lock_state.hpp>
#include <roster/sync/detail/locked_section.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

ROSTER_BEGIN_NAMESPACE

template <typename Executor>
class basic_async_shared_mutex;

namespace detail {

/// Ownership of a lock in one mode.
template <lock_mode Mode>
class [[nodiscard]] lock_guard {
 public:
  /// A guard that owns nothing.
  lock_guard() = default;
  lock_guard(lock_guard&& other) noexcept = default;
  lock_guard& operator=(lock_guard&& other) noexcept {
    if (this != &other) {
      unlock();
      state_ = std::move(other.state_);
    }
    return *this;
  }
  ~lock_guard() { unlock(); }

  /// Whether there is a lock to release.
  bool owns_lock() const noexcept { return state_ != nullptr; }

  /// Releases the lock now, if it is still owned. Never runs a waiter's code.
  ///
  /// **Thread safety**: the guard itself is not to be shared, but any thread may release it.
  void unlock() noexcept {
    if (auto* state = state_.get()) state->unlock(Mode, std::move(state_));
  }

  /// Turns exclusive into shared ownership without letting a writer in between. The readers at the head of the queue are
  /// granted too; if the first of them was woken already, when its executor runs it.
  [[nodiscard]] lock_guard<lock_mode::shared> downgrade() && noexcept requires(Mode == lock_mode::exclusive) {
    if (state_) state_->downgrade();
    return lock_guard<lock_mode::shared>(std::move(state_));
  }

 private:
  template <typename>
  friend class roster::basic_async_shared_mutex;
  friend class lock_guard<lock_mode::exclusive>;
  template <typename, typename, typename, typename>
  friend class pending_waiter;
  template <typename, lock_mode>
  friend class pending_lock;

  explicit lock_guard(std::shared_ptr<lock_state> state) noexcept : state_(std::move(state)) {}

  std::shared_ptr<lock_state> state_;
};

template <typename Handler, lock_mode Mode>
class pending_lock final : public pending_waiter<lock_waiter, Handler, void(error_code, lock_guard<Mode>)> {
 public:
  pending_lock(Handler&& handler, const asio::any_io_executor& fallback)
      : pending_lock::pending_waiter(std::move(handler), fallback, Mode, true) {}

  static auto attempt(const std::shared_ptr<lock_state>& lock) noexcept {
    return lock->try_lock(Mode) ? std::optional(lock_waiter::told_type(error_code(), lock)) : std::nullopt;
  }

  void wake(std::shared_ptr<lock_waiter> self, std::shared_ptr<lock_state> lock) noexcept override {
    this->pending_.post_function(lock_awakening<pending_lock>(std::move(self), std::move(lock)));
  }

  void arrive(std::shared_ptr<lock_waiter> self, error_code code, std::shared_ptr<lock_state> owner) {
    this->pending_.complete_here(std::move(self), code, lock_guard<Mode>(std::move(owner)));
  }

  void drop(std::shared_ptr<lock_waiter> self) noexcept { this->pending_.destroy(std::move(self)); }
};

}  // namespace detail

/// A reader/writer lock for coroutines: waiting suspends the coroutine, never the thread.
///
///     roster::async_shared_mutex mutex{executor};
///     {
///       const auto guard = co_await mutex.lock_shared();  // with other readers, until the guard is destroyed
///     }
///     const auto count = [models] { return models->size(); };
///     const auto size = co_await mutex.run_shared(count);  // for what is short: no loop has to be waited for
///
/// **Policy**: taking or releasing a free lock is one atomic operation. Waiters queue in order of arrival; readers queued
/// together are granted together. A release wakes the head of the queue, which takes the lock when its executor runs it; until
/// then the lock is free for others. Nobody starves as long as executors run: a head that finds the lock taken when it runs, or
/// that waits behind readers, closes the gate to all newcomers, `try_lock` included, and the next release hands it the lock.
///
/// **Deadlock**: there is no recursion: a coroutine that locks twice waits for itself for ever, and so may one that takes a
/// shared lock twice, since a writer that queued in between waits for the first and is waited for by the second. There is no
/// upgrade from shared to exclusive, for two readers that both upgrade would wait for each other. A waiter whose executor is
/// busy or stopped holds up those queued behind it, and a guard held across a `co_await` holds up everybody: where the section
/// is short and does not suspend, prefer `run`.
///
/// **Failure**: no poisoning. A release that somebody waits for posts to that waiter's executor; if that takes memory (an
/// `io_context`'s does not) and there is none, the program terminates, since the lock could not be passed on.
///
/// **Lifetime**: as everywhere in Asio, nobody may post to a context while it is being destroyed: use no lock on one thread
/// while another one destroys the context of somebody who waits for it.
///
/// **Why the queue is no `asio::strand`**: it is serialised as by one, but under a mutex held for a few instructions. A strand
/// step costs 97 ns inline and 270 to 370 ns posted, where the mutex costs 20, and a release under contention has two or three;
/// it allocates, so that releasing could fail; it nests when its inner executor runs inline, so that 100,000 waiters overflow
/// the stack; and it dies with its context. Waking instead of handing over costs 119 ns under contention, where a strand for
/// each acquisition costs 1,073 (`tests/benchmarks`).
///
/// `Executor` is that of the coroutines that call `lock`, `lock_shared`, `run` and `run_shared`; the others serve everybody.
///
/// **Thread safety**: all members but the destructor may be called concurrently, from any thread.
template <typename Executor>
class basic_async_shared_mutex {
 public:
  /// Exclusive ownership, released by the destructor. Any thread may release it; it may outlive the lock.
  using unique_guard = detail::lock_guard<detail::lock_mode::exclusive>;

  /// Shared ownership, released by the destructor. Any thread may release it; it may outlive the lock.
  using shared_guard = detail::lock_guard<detail::lock_mode::shared>;

  /// A free lock whose waiters complete on `executor` by default, and are told when its context is destroyed.
  explicit basic_async_shared_mutex(asio::any_io_executor executor)
      : state_(detail::make_context_bound<detail::lock_state>(executor)) {}

  /// The same, with `context`'s executor.
  explicit basic_async_shared_mutex(detail::execution_context_like auto& context)
      : basic_async_shared_mutex(context.get_executor()) {}

  basic_async_shared_mutex(const basic_async_shared_mutex&) = delete;
  basic_async_shared_mutex& operator=(const basic_async_shared_mutex&) = delete;

  /// Whoever waits is told `operation_aborted`; whoever holds a guard keeps it.
  ~basic_async_shared_mutex() { state_->close(); }

  /// Waits for exclusive ownership.
  ///
  /// **Completion**: with a guard; at once, without suspending, when the lock is free.
  /// **Executor**: resumes on the coroutine's own.
  /// **Cancellation**: terminal; the waiter leaves the queue. A coroutine that was cancelled before throws even if the lock is
  /// free.
  /// **Errors**: `operation_aborted` when cancelled or when the lock, or its context, is destroyed.
  [[nodiscard]] asio::awaitable<unique_guard, Executor> lock() { return acquire<detail::lock_mode::exclusive>(state_); }

  /// Waits for shared ownership, otherwise as `lock`.
  [[nodiscard]] asio::awaitable<shared_guard, Executor> lock_shared() { return acquire<detail::lock_mode::shared>(state_); }

  /// Takes exclusive ownership if that needs no waiting and the gate is open.
  [[nodiscard]] std::optional<unique_guard> try_lock() noexcept { return attempt<detail::lock_mode::exclusive>(); }

  /// Takes shared ownership if that needs no waiting and the gate is open.
  [[nodiscard]] std::optional<shared_guard> try_lock_shared() noexcept { return attempt<detail::lock_mode::shared>(); }

  /// Starts waiting for exclusive ownership. Handler signature: `void(error_code, unique_guard)`.
  ///
  /// **Completion**: exactly once, never inside this call unless the handler's immediate executor (Boost 1.82) says so. The
  /// guard travels with the handler: a handler destroyed uncalled releases the lock.
  /// **Executor**: the handler's associated executor, the lock's by default.
  /// **Cancellation**: terminal, partial and total; the waiter leaves the queue without a trace.
  /// **Errors**: `operation_aborted` when cancelled or when the lock, or its context, is destroyed.
  template <typename Token>
  [[nodiscard]] auto async_lock(Token&& token) {
    return start<detail::lock_mode::exclusive>(state_, state_->executor(), std::forward<Token>(token));
  }

  /// Starts waiting for shared ownership. Handler signature: `void(error_code, shared_guard)`. Otherwise as `async_lock`.
  template <typename Token>
  [[nodiscard]] auto async_lock_shared(Token&& token) {
    return start<detail::lock_mode::shared>(state_, state_->executor(), std::forward<Token>(token));
  }

  /// Calls `function()` under exclusive ownership: at once if the lock is free, else when its turn comes, on the thread whose
  /// release lets it in. So no executor that is busy or stopped ever holds the lock. The function must be short, must not wait
  /// for this lock, and must own what it touches; it is copied, and destroyed with the handler. g++ 12 needs one with captures
  /// to be named first, and passed as lvalue.
  ///
  /// **Completion**: with its result, which is default-constructible or void, when it has returned. If moving the result to a
  /// caller that had to wait throws, the program terminates.
  /// **Executor**: resumes on the coroutine's own.
  /// **Cancellation**: terminal; a function that has not been called never is. A coroutine that was cancelled before throws
  /// even if the lock is free.
  /// **Errors**: whatever the function throws; `operation_aborted` when cancelled or when the lock, or its context, is
  /// destroyed.
  ///
  ///     const auto erase = [models, key] { return models->erase(key); };
  ///     const auto erased = co_await models->mutex.run(erase);
  template <typename F>
  [[nodiscard]] auto run(F&& function) {
    ROSTER_CHECK_CALLABLE(F);
    // fault l2: `exclusive` -> `shared`: run calls its function beside readers
    return section<std::invoke_result_t<std::decay_t<F>&>>(state_, detail::lock_mode::exclusive, std::forward<F>(function));
  }

  /// The same under shared ownership.
  template <typename F>
  [[nodiscard]] auto run_shared(F&& function) {
    ROSTER_CHECK_CALLABLE(F);
    return section<std::invoke_result_t<std::decay_t<F>&>>(state_, detail::lock_mode::shared, std::forward<F>(function));
  }

  /// `run` for any completion token. Handler signature: `void(std::exception_ptr, R)`, `void(std::exception_ptr)` if the
  /// function returns nothing.
  ///
  /// **Completion**: exactly once, never inside this call unless the handler's immediate executor (Boost 1.82) says so. The
  /// function may be called inside this call.
  /// **Executor**: the handler's associated executor, the lock's by default.
  /// **Cancellation**: terminal, partial and total; a function that has not been called never is.
  /// **Errors**: as `run`.
  template <typename F, typename Token>
  [[nodiscard]] auto async_run(F&& function, Token&& token) {
    ROSTER_CHECK_CALLABLE(F);
    return start_section<std::invoke_result_t<std::decay_t<F>&>>(state_, state_->executor(), detail::lock_mode::exclusive,
                                                                 std::forward<F>(function), std::forward<Token>(token));
  }

  /// The same under shared ownership.
  template <typename F, typename Token>
  [[nodiscard]] auto async_run_shared(F&& function, Token&& token) {
    ROSTER_CHECK_CALLABLE(F);
    return start_section<std::invoke_result_t<std::decay_t<F>&>>(state_, state_->executor(), detail::lock_mode::shared,
                                                                 std::forward<F>(function), std::forward<Token>(token));
  }

  /// Calls `function()` under exclusive ownership, here and now, if that needs no waiting and the gate is open, and drops what
  /// it returns. The lock must outlive the call. Returns whether it was called; throws what it throws.
  template <typename F>
  [[nodiscard]] bool try_run(F&& function) {
    // fault l2: `exclusive` -> `shared`: try_run calls its function beside readers
    return attempt_section(detail::lock_mode::exclusive, function);
  }

  /// The same under shared ownership. Cheaper than a guard, which counts references to the lock.
  template <typename F>
  [[nodiscard]] bool try_run_shared(F&& function) {
    return attempt_section(detail::lock_mode::shared, function);
  }

  /// The executor of handlers that have none.
  const asio::any_io_executor& get_executor() const noexcept { return state_->executor(); }

 private:
  using state_ptr = std::shared_ptr<detail::lock_state>;

  template <detail::lock_mode Mode>
  std::optional<detail::lock_guard<Mode>> attempt() noexcept {
    if (!state_->try_lock(Mode)) return std::nullopt;
    return detail::lock_guard<Mode>(state_);
  }

  template <detail::lock_mode Mode>
  struct pending {
    template <typename Handler>
    using type = detail::pending_lock<Handler, Mode>;
  };

  template <detail::lock_mode Mode, typename Token>
  static auto start(state_ptr state, asio::any_io_executor executor, Token&& token) {
    return detail::async_wait<void(error_code, detail::lock_guard<Mode>), pending<Mode>::template type>(
        std::move(executor), std::move(state), std::forward<Token>(token));
  }

  template <detail::lock_mode Mode>
  static asio::awaitable<detail::lock_guard<Mode>, Executor> acquire(state_ptr state) {
    if (state->try_lock(Mode)) co_return detail::lock_guard<Mode>(std::move(state));
    co_return co_await start<Mode>(std::move(state), asio::any_io_executor(), asio::use_awaitable_t<Executor>());
  }

  template <typename R>
  struct sections {
    template <typename Handler>
    using pending = detail::pending_section<Handler, R>;
  };

  template <typename R, typename Token>
  static auto start_section(state_ptr state, asio::any_io_executor executor, detail::lock_mode mode,
                            std::function<R()> function, Token&& token) {
    return detail::async_wait<typename detail::section_signature<R>::type, sections<R>::template pending>(
        std::move(executor), std::move(state), std::forward<Token>(token), mode, std::move(function));
  }

  template <typename R>
  static asio::awaitable<R, Executor> section(state_ptr state, detail::lock_mode mode, std::function<R()> function) {
    // fault l2: first `co_return function();`: run calls its function without the lock
    if (state->try_lock(mode)) {
      const detail::scoped_hold hold(*state, mode);
      co_return function();
    }
    co_return co_await start_section<R>(std::move(state), asio::any_io_executor(), mode, std::move(function),
                                        asio::use_awaitable_t<Executor>());
  }

  template <typename F>
  bool attempt_section(detail::lock_mode mode, F& function) {
    // fault l2: never: try_run calls its function though the lock is taken
    if (!state_->try_lock(mode)) return false;
    const detail::scoped_hold hold(*state_, mode);
    function();
    return true;
  }

  const state_ptr state_;
};

/// The lock for coroutines on `any_io_executor`, which is what `asio::awaitable<T>` means.
using async_shared_mutex = basic_async_shared_mutex<asio::any_io_executor>;

ROSTER_END_NAMESPACE
