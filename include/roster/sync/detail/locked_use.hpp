#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/waiter.hpp>
#include <roster/sync/detail/lock_state.hpp>
#include <roster/sync/shared_mutex.hpp>

#include <exception>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// Something to do under a lock, and the handler that waits for it. It is done by whoever lets it in, at once: a coroutine that
/// was handed the lock instead, or woken, would hold up the queue until its executor, which may be busy or stopped, gets round
/// to it.
template <typename Handler, lock_mode Mode>
class pending_use final : public lock_waiter {
 public:
  pending_use(Handler&& handler, const asio::any_io_executor& fallback, std::function<void()> use)
      : lock_waiter(Mode, false), use_(std::move(use)), pending_(std::move(handler), fallback) {}

  const Handler& handler() const noexcept { return pending_.handler(); }

 private:
  void complete(std::shared_ptr<lock_waiter> self, error_code code, std::shared_ptr<lock_state> owner) noexcept override {
    auto failure = code ? make_exception(code) : use(*owner);
    pending_.post(std::move(self), std::move(failure));
  }

  std::exception_ptr use(lock_state& owner) noexcept {
    std::exception_ptr failure;
    try {
      use_();
    } catch (...) {
      failure = std::current_exception();
    }
    owner.unlock(Mode);
    return failure;
  }

  const std::function<void()> use_;  // destroyed with the handler, on its executor
  pending_handler<Handler, std::exception_ptr> pending_;
};

template <lock_mode Mode>
struct pending_section {
  template <typename Handler>
  using type = pending_use<Handler, Mode>;
};

struct lock_access {
  static const std::shared_ptr<lock_state>& state(const async_shared_mutex& mutex) noexcept { return mutex.state_; }
};

template <lock_mode Mode, typename Token>
auto async_use(std::shared_ptr<lock_state> lock, std::function<void()> use, Token&& token) {
  return async_wait<void(std::exception_ptr), pending_section<Mode>::template type>(asio::any_io_executor(), std::move(lock),
                                                                                    std::forward<Token>(token), std::move(use));
}

/// Calls `use` under the lock: now if it is free, else as soon as it is, on any thread. It must be short, and own what it
/// touches, the mutex included.
template <lock_mode Mode>
asio::awaitable<void> with_lock(async_shared_mutex& mutex, std::function<void()> use) {
  if constexpr (Mode == lock_mode::shared) {
    if (const auto guard = mutex.try_lock_shared()) co_return use();
  } else {
    if (const auto guard = mutex.try_lock()) co_return use();
  }
  co_await async_use<Mode>(lock_access::state(mutex), std::move(use), asio::use_awaitable);
}

}  // namespace detail

ROSTER_END_NAMESPACE
