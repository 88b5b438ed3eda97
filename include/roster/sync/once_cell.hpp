#pragma once

#include <roster/detail/waiter.hpp>
#include <roster/sync/detail/cell_state.hpp>

#include <functional>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

ROSTER_BEGIN_NAMESPACE

/// A value that is made the first time somebody asks for it: once, however many coroutines ask.
///
/// The first caller's initialiser runs; everybody who asks before it has ended joins its *flight* and gets the same value or
/// the same exception. After a failure the cell is empty again, and the next call starts a new flight. All callers share the
/// flight: cancelling one call detaches that caller, and the initialiser is cancelled only when the last one has left. A call
/// that arrives before a cancelled initialiser has ended waits for it, takes its value if there is one after all, and otherwise
/// starts a new flight; initialisers never overlap.
///
/// Each flight runs on its own strand of the cell's executor. An initialiser that awaits its own cell gets `would_deadlock`,
/// and so does what it awaits on the same executor, through `&&` or `co_spawn`; what it detaches there may wait. The value
/// lives until the cell, and everybody who got it, is gone. `T` may be `void`.
///
/// **Deadlock**: an initialiser that awaits its own cell by way of another executor or another cell waits for ever.
///
/// If memory for posting runs out, the program terminates; if it runs out while Asio completes an operation that the
/// initialiser awaits, the exception leaves the context's `run`, and the flight never ends.
///
/// **Thread safety**: all members but the destructor may be called concurrently, from any thread.
///
///     roster::async_once_cell<config> cell{executor};
///     auto settings = co_await cell.get_or_init(read_config, path);
template <typename T>
class async_once_cell {
  using stored_type = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

 public:
  /// What a caller gets: shared ownership of the value; never null.
  using value_type = std::shared_ptr<const stored_type>;

  /// An empty cell whose flights run on `executor`.
  explicit async_once_cell(asio::any_io_executor executor)
      : state_(detail::make_context_bound<detail::cell_state<stored_type>>(executor)) {}

  /// An empty cell whose flights run on the executor of `context`.
  explicit async_once_cell(detail::execution_context_like auto& context) : async_once_cell(context.get_executor()) {}

  async_once_cell(const async_once_cell&) = delete;
  async_once_cell& operator=(const async_once_cell&) = delete;

  /// Callers that wait get `operation_aborted`; a running initialiser is cancelled and its value dropped.
  ~async_once_cell() { state_->abandon(); }

  /// The value if it is there, else null. One atomic load. The pointer is valid as long as the cell.
  const stored_type* try_get() const noexcept { return state_->try_get(); }

  /// The value, made by `initialise(arguments...)` if need be, which returns `asio::awaitable<T>`. Callable and arguments are
  /// copied or moved into the flight.
  ///
  /// **Completion**: with the value; at once, without suspending, when it is there.
  /// **Executor**: resumes on the coroutine's own; the initialiser runs on a strand of the cell's.
  /// **Cancellation**: terminal; detaches this caller.
  /// **Errors**: whatever the initialiser throws; `operation_aborted` when cancelled, when the cell, or its context, is
  /// destroyed, and when what the initialiser awaits on another context is destroyed, the initialiser with it; `would_deadlock`
  /// when called by the initialiser.
  template <typename Initialise, typename... Args>
  [[nodiscard]] asio::awaitable<value_type> get_or_init(Initialise&& initialise, Args&&... arguments) {
    ROSTER_CHECK_CALLABLE(Initialise);
    if (auto value = state_->value()) return ready(std::move(value));
    return start(state_, make_flight(std::forward<Initialise>(initialise), std::forward<Args>(arguments)...),
                 asio::any_io_executor(), asio::use_awaitable);
  }

  /// The same for any completion token. Handler signature: `void(std::exception_ptr, value_type)`.
  ///
  /// **Completion**: exactly once, never inside this call.
  /// **Executor**: the handler's associated executor, the cell's by default.
  /// **Cancellation**: terminal, partial and total; detaches this caller.
  /// **Errors**: as `get_or_init`.
  template <typename Initialise, typename Token>
  [[nodiscard]] auto async_get_or_init(Initialise&& initialise, Token&& token) {
    ROSTER_CHECK_CALLABLE(Initialise);
    return start(state_, make_flight(std::forward<Initialise>(initialise)), state_->executor(), std::forward<Token>(token));
  }

 private:
  using state_ptr = std::shared_ptr<detail::cell_state<stored_type>>;
  using flight_ptr = std::shared_ptr<detail::flight<stored_type>>;

  template <typename Initialise, typename... Args>
  class flight final : public detail::flight<stored_type> {
   public:
    template <typename I, typename... As>
    explicit flight(I&& initialise, As&&... arguments)
        : initialise_(std::forward<I>(initialise)), arguments_(std::forward<As>(arguments)...) {}

    asio::awaitable<stored_type> start() override {
      if constexpr (std::is_void_v<T>) {
        co_await call();
        co_return std::monostate();
      } else {
        co_return co_await call();
      }
    }

   private:
    asio::awaitable<T> call() {
      return std::apply([this](Args&... arguments) { return std::invoke(initialise_, std::move(arguments)...); }, arguments_);
    }

    Initialise initialise_;
    std::tuple<Args...> arguments_;
  };

  template <typename Handler>
  class pending_value final
      : public detail::pending_waiter<detail::cell_waiter<stored_type>, Handler, void(std::exception_ptr, value_type)> {
   public:
    using pending_value::pending_waiter::pending_waiter;

    bool awaited_on(const detail::flight_strand& strand) const noexcept override {
      return asio::get_associated_cancellation_slot(this->handler()).is_connected() &&
             detail::is_strand(asio::get_associated_executor(this->handler(), asio::any_io_executor()), strand);
    }
  };

  template <typename Initialise, typename... Args>
  static flight_ptr make_flight(Initialise&& initialise, Args&&... arguments) {
    return std::make_shared<flight<std::decay_t<Initialise>, std::decay_t<Args>...>>(std::forward<Initialise>(initialise),
                                                                                     std::forward<Args>(arguments)...);
  }

  static asio::awaitable<value_type> ready(value_type value) { co_return value; }

  template <typename Token>
  static auto start(state_ptr state, flight_ptr own, asio::any_io_executor executor, Token&& token) {
    return detail::async_wait<void(std::exception_ptr, value_type), pending_value>(std::move(executor), std::move(state),
                                                                                   std::forward<Token>(token), std::move(own));
  }

  const state_ptr state_;
};

ROSTER_END_NAMESPACE
