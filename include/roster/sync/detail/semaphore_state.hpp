#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/context_bound.hpp>
#include <roster/detail/shared_queue.hpp>

#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

class semaphore_state;

class semaphore_waiter : public queue_node<semaphore_waiter> {
 public:
  semaphore_waiter() = default;
  semaphore_waiter(const semaphore_waiter&) = delete;
  semaphore_waiter& operator=(const semaphore_waiter&) = delete;
  virtual ~semaphore_waiter() = default;
  /// Posts the handler: with a permit of `owner`, or with an error and no permit.
  virtual void complete(std::shared_ptr<semaphore_waiter> self, error_code code,
                        std::shared_ptr<semaphore_state> owner) noexcept = 0;
};

/// The permits and the queue. A permit is free only while nobody waits, or while a release is handing permits on; so a
/// waiter that leaves owes nobody a wake-up.
class semaphore_state final : public closable {
 public:
  semaphore_state(const asio::any_io_executor& executor, std::size_t permits) : executor_(executor), available_(permits) {}

  const asio::any_io_executor& executor() const noexcept { return executor_; }

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
      if (releasing_) return;
      releasing_ = true;
    }
    // A loop, not a recursion: on an executor that was shut down the permit comes back from within `complete`.
    while (auto next = next_granted())
      tell(std::move(next), error_code(), shared());
  }

  void enqueue(std::shared_ptr<semaphore_waiter> node) noexcept {
    const bool granted = [&] {
      std::lock_guard lock(mutex_);  // short:
      if (take()) return true;
      if (!closed_) queue_.push_back(std::move(node));
      return false;
    }();
    if (!node) return;
    if (granted)
      tell(std::move(node), error_code(), shared());
    else
      tell(std::move(node), asio::error::operation_aborted, nullptr);
  }

  void cancel(std::shared_ptr<semaphore_waiter> node) noexcept {
    {
      std::lock_guard lock(mutex_);  // short:
      if (!node->queued()) return;
      queue_.erase(*node);
    }
    tell(std::move(node), asio::error::operation_aborted, nullptr);
  }

  void close() noexcept {
    auto waiters = [&] {
      std::lock_guard lock(mutex_);  // short:
      closed_ = true;
      return std::move(queue_);
    }();
    while (auto node = waiters.pop_front())
      tell(std::move(node), asio::error::operation_aborted, nullptr);
  }

  void context_closed() noexcept override {
    close();
    executor_ = nullptr;
  }

 private:
  static void tell(std::shared_ptr<semaphore_waiter> node, error_code code, std::shared_ptr<semaphore_state> owner) noexcept {
    auto& told = *node;
    told.complete(std::move(node), code, std::move(owner));
  }

  std::shared_ptr<semaphore_state> shared() { return std::static_pointer_cast<semaphore_state>(shared_from_this()); }

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
    releasing_ = false;
    return nullptr;
  }

  asio::any_io_executor executor_;  // may be a strand, which must not outlive the context
  mutable std::mutex mutex_;
  std::size_t available_;
  bool releasing_ = false;  // some release hands permits to waiters until one of the two runs out
  bool closed_ = false;
  shared_queue<semaphore_waiter> queue_;
};

}  // namespace detail

ROSTER_END_NAMESPACE
