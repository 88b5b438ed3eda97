#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/initiate.hpp>
#include <roster/detail/pending_handler.hpp>
#include <roster/detail/waiter.hpp>
#include <roster/exec/detail/deadlines.hpp>
#include <roster/exec/detail/task.hpp>
#include <roster/exec/detail/task_queue.hpp>

#include <boost/asio/recycling_allocator.hpp>

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// The result of a call that returns `R`: references become `reference_wrapper`.
template <typename R>
using result_of = std::conditional_t<std::is_lvalue_reference_v<R>, std::reference_wrapper<std::remove_reference_t<R>>,
                                     std::remove_cvref_t<R>>;

/// A value or an exception.
template <typename R>
struct outcome {
  using stored_type = std::conditional_t<std::is_void_v<R>, std::monostate, R>;

  std::exception_ptr failure;
  std::optional<stored_type> value;

  R get() && {
    if (failure) std::rethrow_exception(std::move(failure));
    if constexpr (!std::is_void_v<R>) return std::move(*value);
  }
};

/// A callable with its arguments. Called with the arguments its thread adds (an engine, say), then its own; the `run_context`
/// is passed on to callables that take one.
template <typename F, typename... Args>
class bound_work {
 public:
  template <typename G, typename... As>
  explicit bound_work(std::in_place_t, G&& function, As&&... arguments)
      : function_(std::forward<G>(function)), arguments_(std::forward<As>(arguments)...) {}

  template <typename... ContextArgs>
  decltype(auto) operator()(run_context& context, ContextArgs&... context_args) {
    return std::apply(
        [&](Args&... arguments) -> decltype(auto) {
          if constexpr (std::is_invocable_v<F, ContextArgs&..., run_context&, Args...>)
            return std::invoke(std::move(function_), context_args..., context, std::move(arguments)...);
          else
            return std::invoke(std::move(function_), context_args..., std::move(arguments)...);
        },
        arguments_);
  }

 private:
  F function_;
  std::tuple<Args...> arguments_;
};

template <typename F, typename... Args>
auto bind_work(F&& function, Args&&... arguments) {
  return bound_work<std::decay_t<F>, std::decay_t<Args>...>(std::in_place, std::forward<F>(function),
                                                            std::forward<Args>(arguments)...);
}

/// When a cancelled call that runs completes: when its work has returned, or at once, if the work owns all it touches.
enum class on_cancel { wait, detach };

/// The one implementation of `task`: a piece of work and the handler that waits for it.
template <typename Handler, typename Work, on_cancel Policy, bool WrapOutcome>
class call_task final : public task {
  using result_type = result_of<std::invoke_result_t<Work&, run_context&>>;
  using outcome_type = outcome<result_type>;
  using pending_type = typename decltype([] {
    if constexpr (WrapOutcome)
      return std::type_identity<pending_handler<Handler, outcome_type>>();
    else if constexpr (std::is_void_v<result_type>)
      return std::type_identity<pending_handler<Handler, std::exception_ptr>>();
    else
      return std::type_identity<pending_handler<Handler, std::exception_ptr, result_type>>();
  }())::type;

 public:
  call_task(Handler&& handler, const asio::any_io_executor& fallback, std::optional<call_options::time_point> deadline,
            const clock& time, enqueue_mode mode, Work&& work)
      : task(deadline, time, mode), pending_(std::move(handler), fallback), work_(std::move(work)) {}

  const Handler& handler() const noexcept { return pending_.handler(); }

  void execute() noexcept override {
    try {
      // fault b43: never: a call whose deadline has passed is started
      if (context.expired()) throw error(errc::deadline_exceeded);
      if constexpr (std::is_void_v<result_type>) {
        (*work_)(context);
        result_.value.emplace();
      } else {
        result_.value.emplace((*work_)(context));
      }
    } catch (...) {
      result_.failure = std::current_exception();
    }
    // fault d1: never: work that ends late, before its caller is told, is a success
    if (is_late()) {
      result_.value.reset();
      result_.failure = make_exception(errc::deadline_exceeded);
    }
    work_.reset();
  }

  void deliver(std::shared_ptr<task> self) noexcept override { complete(std::move(self), std::move(result_)); }

  void abandon(std::shared_ptr<task> self, error_code reason) noexcept override {
    fail(std::move(self), make_exception(reason));
  }

  void fail(std::shared_ptr<task> self, std::exception_ptr failure) noexcept {
    work_.reset();
    complete(std::move(self), {std::move(failure), std::nullopt});
  }

  bool detachable() const noexcept override { return Policy == on_cancel::detach; }

  void interrupt(std::shared_ptr<task> self, error_code reason) noexcept override {
    context.request_stop();
    complete(std::move(self), {make_exception(reason), std::nullopt});
  }

  /// Keeps the call's deadline, if it has one, in the context that its handler is called on.
  void keep_deadline(std::shared_ptr<task_queue> queue) {
    if (!context.deadline()) return;
    const auto all = deadlines::of(pending_.executor(), queue->time());
    expiry =
        std::allocate_shared<task_deadline>(asio::recycling_allocator<void>(), *context.deadline(), *this, std::move(queue));
    all->add(expiry);
  }

 private:
  /// Work whose caller waits for it may end after its deadline, but not by stopping because of that.
  bool is_late() const noexcept {
    if (!context.expired()) return false;
    return Policy == on_cancel::detach || code_of(result_.failure) == asio::error::operation_aborted;
  }

  void complete(std::shared_ptr<task> self, outcome_type result) noexcept {
    if constexpr (WrapOutcome)
      pending_.post(std::move(self), std::move(result));
    else if constexpr (std::is_void_v<result_type>)
      pending_.post(std::move(self), std::move(result.failure));
    else
      pending_.post(std::move(self), std::move(result.failure), result.value ? std::move(*result.value) : result_type());
  }

  pending_type pending_;
  std::optional<Work> work_;
  outcome_type result_;
};

/// Starts an operation that runs `work(run_context&)` on a thread of `queue`. With `WrapOutcome`, the handler takes an
/// `outcome`, which needs no default-constructible result, else `(exception_ptr, result)`.
template <on_cancel Policy, bool WrapOutcome, typename Work, typename Token>
auto async_call(std::shared_ptr<task_queue> queue, asio::any_io_executor fallback,
                std::optional<call_options::time_point> deadline, enqueue_mode mode, Work work, Token&& token) {
  using result_type = result_of<std::invoke_result_t<Work&, run_context&>>;
  using signature = typename decltype([] {
    if constexpr (WrapOutcome)
      return std::type_identity<void(outcome<result_type>)>();
    else if constexpr (std::is_void_v<result_type>)
      return std::type_identity<void(std::exception_ptr)>();
    else
      return std::type_identity<void(std::exception_ptr, result_type)>();
  }())::type;
  return initiate<signature>(
      std::move(fallback), std::forward<Token>(token),
      []<typename Handler>(Handler handler, const asio::any_io_executor& executor, std::shared_ptr<task_queue> target,
                           std::optional<call_options::time_point> task_deadline, enqueue_mode task_mode, Work task_work) {
        auto node = make_node<call_task<Handler, Work, Policy, WrapOutcome>>(std::move(handler), executor, task_deadline,
                                                                             *target->time(), task_mode, std::move(task_work));
        connect_cancellation<task>(asio::get_associated_cancellation_slot(node->handler()), target, node);
        try {
          node->keep_deadline(target);
        } catch (...) {
          auto& failed = *node;
          return failed.fail(std::move(node), std::current_exception());
        }
        target->enqueue(std::move(node));
      },
      std::move(queue), deadline, mode, std::move(work));
}

/// Turns an operation's outcome into a result or an exception.
template <typename R>
asio::awaitable<R> unwrap(asio::awaitable<outcome<R>> operation) {
  auto result = co_await std::move(operation);
  co_return std::move(result).get();
}

/// The coroutine form of `async_call`.
template <on_cancel Policy, typename Work>
auto call(std::shared_ptr<task_queue> queue, std::optional<call_options::time_point> deadline, enqueue_mode mode, Work work) {
  using result_type = result_of<std::invoke_result_t<Work&, run_context&>>;
  constexpr bool wrap = !std::is_void_v<result_type> && !std::is_nothrow_default_constructible_v<result_type>;
  auto operation =
      async_call<Policy, wrap>(std::move(queue), asio::any_io_executor(), deadline, mode, std::move(work), asio::use_awaitable);
  if constexpr (wrap)
    return unwrap(std::move(operation));
  else
    return operation;
}

}  // namespace detail

ROSTER_END_NAMESPACE
