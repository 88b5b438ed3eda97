#pragma once

#include <roster/detail/asio.hpp>

#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// The initiation that Asio calls to start an operation. Its associated executor is the default for handlers without one:
/// tokens such as `cancel_after` run their timers there. Handlers are taken by value: one passed as an lvalue is copied, as
/// everywhere in Asio.
///
/// Called as an rvalue it gives its executor away: a suspended coroutine keeps its initiation and may outlive the executor's
/// context, which a strand must not.
template <typename Start>
class initiation {
 public:
  using executor_type = asio::any_io_executor;

  initiation(executor_type executor, Start start) noexcept : executor_(std::move(executor)), start_(start) {}

  const executor_type& get_executor() const noexcept { return executor_; }

  template <typename Handler, typename... Args>
  void operator()(Handler handler, Args&&... args) && {
    // fault b4: `std::move(executor_)` -> `executor_type(asio::system_executor())`:
    //   a handler without an executor is called on any thread
    start_(std::move(handler), std::move(executor_), std::forward<Args>(args)...);
  }

  template <typename Handler, typename... Args>
  void operator()(Handler handler, Args&&... args) const& {
    start_(std::move(handler), executor_, std::forward<Args>(args)...);
  }

 private:
  executor_type executor_;
  Start start_;
};

/// Starts an operation for any completion token: calls the captureless `start(handler, executor, args...)` when the token says
/// so. `executor` is the default for handlers without one; it may be empty if the handler has one, as a coroutine's does.
template <typename Signature, typename Token, typename Start, typename... Args>
auto initiate(asio::any_io_executor executor, Token&& token, Start start, Args&&... args) {
  return asio::async_initiate<Token, Signature>(initiation<Start>(std::move(executor), start), token,
                                                std::forward<Args>(args)...);
}

}  // namespace detail

ROSTER_END_NAMESPACE
