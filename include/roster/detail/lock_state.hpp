#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/closing_service.hpp>
#include <roster/detail/pending_handler.hpp>
#include <roster/detail/shared_queue.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

class lock_state;

enum class lock_mode : bool { shared, exclusive };

/// A waiter in the queue of a lock.
class lock_waiter : public queue_node<lock_waiter> {
 public:
  explicit lock_waiter(lock_mode wanted) : mode(wanted) {}
  lock_waiter(const lock_waiter&) = delete;
  lock_waiter& operator=(const lock_waiter&) = delete;
  virtual ~lock_waiter() = default;

  /// Posts the handler: with a guard for `owner`, or with an error and no guard.
  virtual void complete(std::shared_ptr<lock_waiter> self, error_code code, std::shared_ptr<lock_state> owner) noexcept = 0;

  const lock_mode mode;
};

/// The reader/writer lock itself: one atomic word for whoever finds it free, a queue for everybody else.
///
/// The word holds
///
///     bit  0      W  a writer holds the lock
///     bit  1      F  fairness is demanded: the head of the queue was found behind readers, or passed; newcomers must queue
///     bits 2-31   R  the number of readers that hold the lock
///     bits 32-63  P  the number of waiters in the queue
///
///     0                free, nobody waits
///     W                one writer               W with R > 0, or with a second W: never
///     R > 0            readers
///     P > 0, F = 0     the head waits for a writer's release; or somebody is about to look at the queue
///     P > 0, F = 1     the head waits for W = R = 0 (a writer) or W = 0 (a reader)
///     P = 0, F = 1     only until the look that finds the queue empty clears F
///
/// P and F change under the mutex of the queue only, so "somebody waits" seen by a release stays true until somebody looks.
/// Every change is one read-modify-write. An acquisition is `acquire`, so that it sees what earlier holders wrote; a release
/// is `acq_rel`: it publishes the section, and the last reader's must also carry the other readers' sections to the next
/// writer, which reads only that last value (a release sequence would do; acq_rel also orders the look at P).
class lock_state final : public closable {
 public:
  static constexpr std::uint64_t writer = 1;
  static constexpr std::uint64_t fair = 2;
  static constexpr std::uint64_t reader = 4;
  static constexpr std::uint64_t waiter = std::uint64_t{1} << 32;
  static constexpr std::uint64_t readers = waiter - reader;

  explicit lock_state(const asio::any_io_executor& executor) : executor_(executor) {}

  const asio::any_io_executor& executor() const noexcept { return executor_; }

  bool try_lock(lock_mode mode) noexcept { return mode == lock_mode::shared ? try_lock_shared() : try_lock_exclusive(); }

  bool try_lock_shared() noexcept {
    auto word = word_.load(std::memory_order_relaxed);  // only a guess: the exchange decides
    while (!(word & (writer | fair)))
      if (word_.compare_exchange_weak(word, word + reader, std::memory_order_acquire, std::memory_order_relaxed)) return true;
    return false;
  }

  bool try_lock_exclusive() noexcept {
    auto word = word_.load(std::memory_order_relaxed);
    while (!(word & (writer | fair | readers)))
      if (word_.compare_exchange_weak(word, word | writer, std::memory_order_acquire, std::memory_order_relaxed)) return true;
    return false;
  }

  void unlock_shared() noexcept { released(word_.fetch_sub(reader, std::memory_order_acq_rel) - reader); }
  void unlock_exclusive() noexcept { released(word_.fetch_sub(writer, std::memory_order_acq_rel) - writer); }

  void downgrade() noexcept {
    if (word_.fetch_add(reader - writer, std::memory_order_acq_rel) >= waiter) look();
  }

  /// Grants, or queues.
  void enqueue(std::shared_ptr<lock_waiter> node) noexcept {
    std::unique_lock lock(mutex_);  // short:
    if (closed_) {
      lock.unlock();
      return tell(std::move(node), asio::error::operation_aborted, nullptr);
    }
    word_.fetch_add(waiter, std::memory_order_acq_rel);  // a release from now on looks at the queue
    queue_.push_back(std::move(node));
    grant(lock, false);
  }

  /// Takes a waiter out, unless it was granted.
  void cancel(std::shared_ptr<lock_waiter> node) noexcept {
    {
      std::lock_guard lock(mutex_);  // short:
      if (!node->queued()) return;
      queue_.erase(*node);
      word_.fetch_sub(waiter, std::memory_order_acq_rel);
    }
    tell(std::move(node), asio::error::operation_aborted, nullptr);
    look();  // those behind it may have been waiting only for it
  }

  /// The lock object, or its context, is gone: whoever waits is told.
  void close() noexcept {
    shared_queue<lock_waiter> waiters;
    {
      std::lock_guard lock(mutex_);  // short:
      closed_ = true;
      word_.fetch_sub(waiter * queue_.size(), std::memory_order_acq_rel);
      waiters.take_all(queue_);
    }
    while (auto node = waiters.pop_front())
      tell(std::move(node), asio::error::operation_aborted, nullptr);
    look();
  }

  void context_closed() noexcept override {
    close();
    executor_ = nullptr;
  }

 private:
  static void tell(std::shared_ptr<lock_waiter> node, error_code code, std::shared_ptr<lock_state> owner) noexcept {
    auto& told = *node;
    told.complete(std::move(node), code, std::move(owner));
  }

  std::shared_ptr<lock_state> shared() { return std::static_pointer_cast<lock_state>(shared_from_this()); }

  void released(std::uint64_t word) noexcept {
    if (!(word & (writer | readers)) && word >= waiter) [[unlikely]]
      look();
  }

  /// A holder, or a waiter, has left.
  void look() noexcept {
    std::unique_lock lock(mutex_);  // short:
    grant(lock, true);
  }

  /// Grants from the head of the queue as far as that goes. One at a time does so, for all others: waiters are told in order,
  /// and a handler that its executor destroys, which releases the lock again, makes this a loop and no recursion.
  void grant(std::unique_lock<std::mutex>& lock, bool released) noexcept {  // short: let go of while a waiter is told
    released_ |= released;
    if (granting_) {
      // Whoever grants may be long in coming back; until then nobody else shall pass the head.
      if (released && !queue_.empty()) word_.fetch_or(fair, std::memory_order_relaxed);  // publishes nothing
      return;
    }
    granting_ = true;
    while (auto granted = next_granted(std::exchange(released_, false))) {
      lock.unlock();
      tell(std::move(granted), error_code(), shared());
      lock.lock();  // short:
    }
    granting_ = false;
  }

  /// Under the mutex.
  std::shared_ptr<lock_waiter> next_granted(bool released) noexcept {
    if (queue_.empty()) {
      word_.fetch_and(~fair, std::memory_order_relaxed);  // publishes nothing: it only reopens the fast path
      return nullptr;
    }
    const bool taken =
        queue_.front().mode == lock_mode::exclusive ? take<writer, writer | readers>(released) : take<reader, writer>(released);
    return taken ? queue_.pop_front() : nullptr;
  }

  /// Turns one waiter into a holder if none of `Obstacles` is in the word. Else closes the gate if that is necessary: readers
  /// may follow each other for ever, and where somebody has just left, somebody else has passed the head. A writer's release
  /// looks.
  template <std::uint64_t Hold, std::uint64_t Obstacles>
  bool take(bool released) noexcept {
    auto word = word_.load(std::memory_order_relaxed);
    for (;;) {
      const bool free = !(word & Obstacles);
      if (!free && !released && !(word & readers)) return false;
      const auto next = free ? (word - waiter + Hold) & ~fair : word | fair;
      if (word_.compare_exchange_weak(word, next, std::memory_order_acquire, std::memory_order_relaxed)) return free;
    }
  }

  asio::any_io_executor executor_;  // may be a strand, which must not outlive the context
  std::atomic<std::uint64_t> word_{0};
  std::mutex mutex_;
  bool granting_ = false;
  bool released_ = false;  // since the last look
  bool closed_ = false;    // the lock or its context is gone
  shared_queue<lock_waiter> queue_;
};

}  // namespace detail

ROSTER_END_NAMESPACE
