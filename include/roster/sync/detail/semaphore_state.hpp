#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/context_bound.hpp>
#include <roster/detail/shared_queue.hpp>
#include <roster/detail/waiter.hpp>

#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

class semaphore_state;

/// Completed with the semaphore whose permit it holds now, or with an error.
class semaphore_waiter : public waiter<semaphore_waiter, error_code, std::shared_ptr<semaphore_state>> {
 public:
  static inline std::optional<told_type> attempt(const std::shared_ptr<semaphore_state>& state) noexcept;
};

/// The permits and the queue. A permit is free only while nobody waits, or while a release hands permits on; so a cancelled
/// waiter need not wake anyone.
class semaphore_state final : public context_bound {
 public:
  semaphore_state(const asio::any_io_executor& executor, std::size_t permits) : context_bound(executor), available_(permits) {}

  std::size_t available() const noexcept {
    std::lock_guard lock(mutex_);  // short:
    return queue_.empty() ? available_ : 0;
  }

  bool try_acquire() noexcept {
    std::lock_guard lock(mutex_);  // short:
    return take();
  }

  void release() noexcept {
    {
      std::lock_guard lock(mutex_);  // short:
      ++available_;
      // fault b3c: never: a permit that comes back while permits are handed on is handed on from within
      if (releasing_) return;
      releasing_ = true;
    }
    // A loop, not a recursion: on an executor that was shut down the permit is released from within `complete`.
    while (auto next = next_granted())
      semaphore_waiter::tell(std::move(next), error_code(), shared(this));
  }

  void enqueue(std::shared_ptr<semaphore_waiter> node) noexcept {
    const bool granted = [&] {
      std::lock_guard lock(mutex_);  // short:
      if (take()) return true;
      // fault p1: always: a semaphore whose context died queues newcomers
      if (!closed_) queue_.push_back(std::move(node));
      return false;
    }();
    if (!node) return;
    if (granted)
      semaphore_waiter::tell(std::move(node), error_code(), shared(this));
    else
      semaphore_waiter::tell(std::move(node), asio::error::operation_aborted, nullptr);
  }

  void cancel(std::shared_ptr<semaphore_waiter> node) noexcept {
    {
      std::lock_guard lock(mutex_);  // short:
      // fault p1: never: a waiter that was handed a permit is cancelled
      if (!node->queued()) return;
      queue_.erase(*node);
    }
    semaphore_waiter::tell(std::move(node), asio::error::operation_aborted, nullptr);
  }

  void close() noexcept override {
    auto waiters = [&] {
      std::lock_guard lock(mutex_);  // short:
      closed_ = true;
      return std::move(queue_);
    }();
    while (auto node = waiters.pop_front())
      semaphore_waiter::tell(std::move(node), asio::error::operation_aborted, nullptr);
  }

 private:
  bool take() noexcept {
    if (available_ == 0 || !queue_.empty()) return false;
    --available_;
    return true;
  }

  std::shared_ptr<semaphore_waiter> next_granted() noexcept {
    std::lock_guard lock(mutex_);  // short:
    if (available_ > 0 && !queue_.empty()) {
      --available_;
      return queue_.pop_front();
    }
    // fault p1: drop: permits are handed on once
    releasing_ = false;
    return nullptr;
  }

  mutable std::mutex mutex_;
  std::size_t available_;
  bool releasing_ = false;  // a release is handing permits to waiters until either runs out
  bool closed_ = false;
  shared_queue<semaphore_waiter> queue_;
};

inline auto semaphore_waiter::attempt(const std::shared_ptr<semaphore_state>& state) noexcept -> std::optional<told_type> {
  if (!state->try_acquire()) return std::nullopt;
  return told_type(error_code(), state);
}

}  // namespace detail

ROSTER_END_NAMESPACE
