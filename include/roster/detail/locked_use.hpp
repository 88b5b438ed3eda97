#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/home_executor.hpp>
#include <roster/sync/shared_mutex.hpp>

#include <boost/asio/co_spawn.hpp>

#include <functional>
#include <memory>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// What is used under a lock, by coroutines of any context.
struct lockable {
  explicit lockable(const asio::any_io_executor& executor) : home(make_home(executor)), mutex(executor) {}

  const std::shared_ptr<const home_executor> home;
  async_shared_mutex mutex;
};

template <lock_mode Mode>
asio::awaitable<void> wait_and_use(std::shared_ptr<lockable> target, std::function<void()> use) {
  if constexpr (Mode == lock_mode::shared) {
    const auto guard = co_await target->mutex.lock_shared();
    use();
  } else {
    const auto guard = co_await target->mutex.lock();
    use();
  }
}

/// Calls `use` under the lock: now if it is free, else on the home executor, so that the lock is never handed to a coroutine
/// whose own executor is busy or stopped, and keeps everybody waiting. There `use` may outlive the caller.
template <lock_mode Mode>
asio::awaitable<void> with_lock(std::shared_ptr<lockable> target, std::function<void()> use) {
  if constexpr (Mode == lock_mode::shared) {
    if (const auto guard = target->mutex.try_lock_shared()) co_return use();
  } else {
    if (const auto guard = target->mutex.try_lock()) co_return use();
  }
  const auto& home = target->home->get();
  if (!home) throw error(errc::stopped, "the context of the registry is gone");
  co_await asio::co_spawn(home, wait_and_use<Mode>(target, std::move(use)), asio::use_awaitable);
}

}  // namespace detail

ROSTER_END_NAMESPACE
