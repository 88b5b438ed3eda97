#pragma once

// Every completion token of Asio, as far as this version of Boost has it.

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/exec.hpp"

#include <boost/asio/append.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/consign.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/promise.hpp>
#include <boost/asio/experimental/use_promise.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/prepend.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/version.hpp>
#if BOOST_ASIO_VERSION >= 102700
#include <boost/asio/bind_immediate_executor.hpp>
#endif
#if BOOST_ASIO_VERSION >= 103100
#include <boost/asio/cancel_after.hpp>
#include <boost/asio/cancel_at.hpp>
#endif

#include <chrono>
#include <exception>
#include <future>
#include <memory>
#include <type_traits>
#include <utility>

namespace test {

/// A copyable handler with an executor of its own that counts its calls without a failure.
class counting_handler {
 public:
  using executor_type = asio::io_context::executor_type;

  explicit counting_handler(asio::io_context& loop) : executor_(loop.get_executor()) {}

  executor_type get_executor() const noexcept { return executor_; }

  template <typename Failure, typename... Results>
  void operator()(Failure failure, Results&&...) const {
    if (!failure) ++*calls;
  }

  std::shared_ptr<int> calls = std::make_shared<int>(0);

 private:
  executor_type executor_;
};

/// Starts an operation once with each token. `start(token)` returns what the operation returns; each operation succeeds, and
/// its default executor may be any.
template <typename Start>
class token_check {
 public:
  token_check(asio::io_context& loop, Start start) : loop_(loop), start_(std::move(start)) {}

  void run() {
    handlers();
    futures();
    coroutines();
    promises();
    timeouts();
  }

 private:
  /// `decorate(handler)` is a token that calls the handler in the end.
  template <typename Decorate>
  void handler(const char* name, Decorate decorate) {
    INFO(name);
    const counting_handler inner(loop_);
    auto token = decorate(inner);
    start_(std::move(token));
    CHECK(*inner.calls == 0);
    run_until(loop_, [&] { return *inner.calls == 1; });
  }

  void handlers() {
    handler("an rvalue", [](auto inner) { return inner; });
    handler("append", [](auto inner) { return asio::append(std::move(inner), 1); });
    handler("consign", [](auto inner) { return asio::consign(std::move(inner), std::make_shared<int>(1)); });
    handler("prepend", [](auto inner) {
      auto behind = [inner](int, auto&&... results) { inner(std::forward<decltype(results)>(results)...); };
      return asio::prepend(asio::bind_executor(inner.get_executor(), std::move(behind)), 1);
    });
    handler("bind_executor", [this](auto inner) { return asio::bind_executor(loop_.get_executor(), std::move(inner)); });
    handler("bind_allocator", [](auto inner) {
      return asio::bind_allocator(counting_allocator<void>(std::make_shared<allocation_counts>()), std::move(inner));
    });
    asio::cancellation_signal signal;
    handler("bind_cancellation_slot",
            [&](auto inner) { return asio::bind_cancellation_slot(signal.slot(), std::move(inner)); });
#if BOOST_ASIO_VERSION >= 102700
    handler("bind_immediate_executor",
            [this](auto inner) { return asio::bind_immediate_executor(loop_.get_executor(), std::move(inner)); });
#endif
    lvalues();
    INFO("detached");
    auto kept = std::make_shared<int>(1);
    const std::weak_ptr<int> watched = kept;
    start_(asio::consign(asio::bind_executor(loop_.get_executor(), asio::detached), std::move(kept)));
    run_until(loop_, [&] { return watched.expired(); });
  }

  /// A handler that is passed as an lvalue is copied.
  void lvalues() {
    INFO("an lvalue");
    counting_handler inner(loop_);
    start_(inner);
    REQUIRE(inner.calls);
    run_until(loop_, [&] { return *inner.calls == 1; });
    start_(std::as_const(inner));
    run_until(loop_, [&] { return *inner.calls == 2; });
  }

  void futures() {
    finish(start_(asio::use_future), "use_future");
    finish(start_(asio::use_future(counting_handler(loop_))), "use_future(f)");
    finish(start_(asio::bind_executor(loop_.get_executor(), asio::use_future)), "bind_executor(e, use_future)");
  }

  template <typename Future>
  void finish(Future future, const char* name) {
    INFO(name);
    loop_.restart();
    while (future.wait_for(std::chrono::seconds(0)) != std::future_status::ready)
      loop_.poll();
    (void)future.get();
  }

  /// `await(start)` is a coroutine.
  template <typename Await>
  void coroutine(const char* name, Await await) {
    INFO(name);
    auto running = spawn(loop_, await(start_));
    run_until(loop_, [&] { return running.done(); });
    CHECK(running.succeeded());
  }

  void coroutines() {
    coroutine("use_awaitable", [](Start start) -> asio::awaitable<void> { (void)co_await start(asio::use_awaitable); });
    coroutine("as_tuple", [](Start start) -> asio::awaitable<void> {
      const auto results = co_await start(asio::as_tuple(asio::use_awaitable));
      CHECK_FALSE(std::get<0>(results));
    });
    coroutine("append",
              [](Start start) -> asio::awaitable<void> { (void)co_await start(asio::append(asio::use_awaitable, 1)); });
    coroutine("consign",
              [](Start start) -> asio::awaitable<void> { (void)co_await start(asio::consign(asio::use_awaitable, 1)); });
    coroutine("bind_executor", [](Start start) -> asio::awaitable<void> {
      const auto executor = co_await asio::this_coro::executor;
      (void)co_await start(asio::bind_executor(executor, asio::use_awaitable));
    });
    coroutine("bind_cancellation_slot", [](Start start) -> asio::awaitable<void> {
      asio::cancellation_signal signal;
      (void)co_await start(asio::bind_cancellation_slot(signal.slot(), asio::use_awaitable));
    });
    coroutine("as_tuple(deferred)", [](Start start) -> asio::awaitable<void> {
      const auto results = co_await start(asio::as_tuple(asio::deferred));
      CHECK_FALSE(std::get<0>(results));
    });
    coroutine("deferred, started later", [](Start start) -> asio::awaitable<void> {
      auto operation = start(asio::deferred);
      (void)co_await std::move(operation)(asio::use_awaitable);
    });
#if BOOST_ASIO_VERSION >= 102700  // 1.81 cannot co_await a deferred void(exception_ptr, T)
    coroutine("deferred", [](Start start) -> asio::awaitable<void> { (void)co_await start(asio::deferred); });
#endif
  }

  void promises() {
    coroutine("use_promise", [](Start start) -> asio::awaitable<void> {
      const auto executor = co_await asio::this_coro::executor;
      auto promise = start(asio::bind_executor(executor, asio::experimental::use_promise));
      (void)co_await std::move(promise)(asio::use_awaitable);
    });
  }

  void timeouts() {
#if BOOST_ASIO_VERSION >= 103100
    handler("cancel_after", [](auto inner) { return asio::cancel_after(std::chrono::hours(1), std::move(inner)); });
    handler("cancel_at", [](auto inner) {
      return asio::cancel_at(std::chrono::steady_clock::now() + std::chrono::hours(1), std::move(inner));
    });
    coroutine("cancel_after", [](Start start) -> asio::awaitable<void> {
      (void)co_await start(asio::cancel_after(std::chrono::hours(1), asio::use_awaitable));
    });
    coroutine("cancel_after(deferred)", [](Start start) -> asio::awaitable<void> {
      (void)co_await start(asio::cancel_after(std::chrono::hours(1), asio::deferred));
    });
    handler("cancel_after with a timer",
            [this](auto inner) { return asio::cancel_after(timer_, std::chrono::hours(1), std::move(inner)); });
#endif
  }

  asio::io_context& loop_;
  Start start_;
  asio::steady_timer timer_{loop_};
};

template <typename Start>
void check_every_token(asio::io_context& loop, Start start) {
  token_check<Start>(loop, std::move(start)).run();
}

}  // namespace test
