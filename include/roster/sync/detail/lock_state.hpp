#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/context_bound.hpp>
#include <roster/detail/shared_queue.hpp>
#include <roster/detail/waiter.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

class lock_state;

enum class lock_mode : bool { shared, exclusive };

class lock_waiter;

/// A waiter that was woken, on the way to its executor, where it takes the lock if it can. Destroyed on the way, it leaves the
/// queue, and its handler is destroyed. The `Waiter` has `arrive`, which is `complete` but calls the handler at once, and
/// `drop`.
template <typename Waiter>
class lock_awakening {
 public:
  lock_awakening(std::shared_ptr<lock_waiter> waiter, std::shared_ptr<lock_state> lock) noexcept
      : waiter_(std::move(waiter)), lock_(std::move(lock)) {}
  lock_awakening(lock_awakening&&) noexcept = default;
  lock_awakening& operator=(lock_awakening&&) = delete;
  ~lock_awakening();

  void operator()();

 private:
  std::shared_ptr<lock_waiter> waiter_;
  std::shared_ptr<lock_state> lock_;
};

/// A waiter in the queue of a lock. Is told whose lock it has got, or why it has got none.
class lock_waiter : public waiter<lock_waiter, error_code, std::shared_ptr<lock_state>> {
 public:
  /// One that competes is woken by a release, unless the gate is closed, and takes the lock if it is still free when its
  /// executor gets to it. One that does not is handed the lock.
  lock_waiter(lock_mode wanted, bool competing) : mode(wanted), competes(competing) {}

  /// Posts a `lock_awakening` to the handler's executor.
  virtual void wake(std::shared_ptr<lock_waiter>, std::shared_ptr<lock_state>) noexcept {}

  const lock_mode mode;
  const bool competes;

 private:
  friend class lock_state;

  enum class place {
    queued,
    woken,      // queued, and its awakening is on the way
    withdrawn,  // not queued any more, and hears of it when its awakening arrives
    done        // granted, or told
  };

  bool waits() const noexcept { return place_ == place::queued || place_ == place::woken; }

  place place_ = place::done;
};

/// The reader/writer lock itself: one atomic word for whoever finds it free, a queue for everybody else.
///
/// The word holds
///
///     bit  0      W  a writer holds the lock
///     bit  1      F  the gate is closed: the head of the queue was found behind readers, or passed; newcomers must queue
///     bits 2-31   R  the number of readers that hold the lock
///     bits 32-63  P  the number of waiters in the queue
///
///     0                free, nobody waits
///     W                one writer               W with R > 0, or with a second W: never
///     R > 0            readers
///     P > 0, F = 0     the head waits for a writer's release, or is woken; or somebody is about to look at the queue
///     P > 0, F = 1     the head waits for W = R = 0 (a writer) or W = 0 (a reader)
///     P = 0, F = 1     only until the look that finds the queue empty clears F
///
/// P and F change under the mutex of the queue only, so "somebody waits" seen by a release stays true until somebody looks.
/// Every change is one read-modify-write. An acquisition is `acquire`, so that it sees what earlier holders wrote; a release
/// is `acq_rel`: it publishes the section, and the last reader's must also carry the other readers' sections to the next
/// writer, which reads only that last value (a release sequence would do; acq_rel also orders the look at P).
class lock_state final : public context_bound {
 public:
  static constexpr std::uint64_t writer = 1;
  static constexpr std::uint64_t fair = 2;
  static constexpr std::uint64_t reader = 4;
  static constexpr std::uint64_t waiting = std::uint64_t{1} << 32;
  static constexpr std::uint64_t readers = waiting - reader;

  using context_bound::context_bound;

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

  void unlock(lock_mode mode) noexcept { unlock(mode, nullptr); }

  /// The same, for an owner who has no further use for its reference.
  void unlock(lock_mode mode, std::shared_ptr<lock_state> owner) noexcept {
    const auto hold = mode == lock_mode::shared ? reader : writer;
    // fault m1: `word_.fetch_sub(hold, std::memory_order_acq_rel)` ->
    //   `std::pair{word_.load(std::memory_order_acquire), word_.fetch_sub(hold, std::memory_order_acq_rel)}.first`:
    //   a reader's release looks for waiters before it releases
    const auto word = word_.fetch_sub(hold, std::memory_order_acq_rel) - hold;
    // fault b2: `word >= waiting` -> `word >= waiting && hold == writer`: a reader's release wakes nobody
    if (!(word & (writer | readers)) && word >= waiting) [[unlikely]]
      release_to_head(std::move(owner));
  }

  void downgrade() noexcept {
    // fault l1: never: a downgrade lets no reader in
    if (word_.fetch_add(reader - writer, std::memory_order_acq_rel) >= waiting) look();
  }

  /// Queues, and grants what can be granted.
  void enqueue(std::shared_ptr<lock_waiter> node) noexcept {
    std::unique_lock lock(mutex_);  // short:
    if (closed_) {
      lock.unlock();
      return lock_waiter::tell(std::move(node), asio::error::operation_aborted, nullptr);
    }
    word_.fetch_add(waiting, std::memory_order_acq_rel);  // a release from now on looks at the queue
    node->place_ = place::queued;
    queue_.push_back(std::move(node));
    // fault m1: first `word_.fetch_sub(waiting, std::memory_order_acq_rel);
    //   const bool taken = word_.load(std::memory_order_acquire) & (writer | readers);
    //   word_.fetch_add(waiting, std::memory_order_acq_rel);
    //   if (taken) return;`: a waiter is announced after it has looked at the lock
    // fault b2: always: a waiter that comes first does not look at the lock
    if (queue_.size() > 1) return;  // somebody looks, or waits, for the head
    grant(false);
    tell_granted(lock);
  }

  /// Takes a waiter out, unless it was granted. One whose awakening is on the way hears of it then.
  void cancel(std::shared_ptr<lock_waiter> node) noexcept {
    std::unique_lock lock(mutex_);  // short:
    // fault b1: never: a waiter that was granted the lock is cancelled
    if (!node->waits()) return;
    // fault m1c: `node->place_ == place::queued` -> `true`: a waiter that was woken is told twice
    const bool told = node->place_ == place::queued;
    withdraw(*node);
    if (!told) node = nullptr;  // under the mutex: not the last reference, which must not outlive the handler
    // fault b1: drop: a cancellation does not grant again
    grant(false);  // those behind it may have been waiting only for it
    if (told) {
      lock.unlock();
      lock_waiter::tell(std::move(node), asio::error::operation_aborted, nullptr);
      lock.lock();  // short:
    }
    tell_granted(lock);
  }

  /// The lock object, or its context, is gone: whoever waits is told, at once or when its awakening arrives.
  void close() noexcept override {
    shared_queue<lock_waiter> told;
    std::unique_lock lock(mutex_);  // short:
    // fault b5: drop: a lock whose context died queues newcomers
    closed_ = true;
    while (!queue_.empty()) {
      // fault b5: `queue_.front().place_ == place::woken` -> `false`: a waiter on its way is told twice when its lock dies
      const bool woken = queue_.front().place_ == place::woken;
      if (auto node = withdraw(queue_.front()); !woken) told.push_back(std::move(node));
    }
    // fault b5: drop: a lock whose context died keeps its gate closed
    grant(false);
    lock.unlock();
    while (auto node = told.pop_front())
      lock_waiter::tell(std::move(node), asio::error::operation_aborted, nullptr);
  }

  /// An awakening has arrived: how its waiter completes, holding the lock if there is no error. Nothing if it was passed on its
  /// way: then the gate is closed, the next release hands it the lock, and `node` is released.
  std::optional<error_code> try_after_wake(std::shared_ptr<lock_waiter>& node) noexcept {
    std::unique_lock lock(mutex_);  // short:
    if (node->place_ == place::withdrawn) return asio::error::operation_aborted;
    // fault b2: `true` -> `false`: a head that came and found the lock taken leaves the gate open
    if (!try_grant(node->mode, true)) {
      // fault b2: drop: a waiter that was passed counts as on its way
      node->place_ = place::queued;
      // fault m1w: drop: a waiter that was passed is kept beyond the lock's mutex
      node = nullptr;  // under the mutex: not the last reference, which must not outlive the handler
      return std::nullopt;
    }
    node->place_ = place::done;
    queue_.erase(*node);
    // fault b2: drop: a waiter that was woken leaves those behind it to themselves
    if (node->mode == lock_mode::shared) grant(false);  // other readers
    tell_granted(lock);
    return error_code();
  }

 private:
  using place = lock_waiter::place;

  /// Wakes the head, so that the lock is free until somebody can use it; grants where the gate is closed or the head does not
  /// compete, and where somebody is telling: an executor that destroys what it is given would make waking a recursion.
  void release_to_head(std::shared_ptr<lock_state> owner) noexcept {
    std::unique_lock lock(mutex_);  // short:
    // fault l2: `!queue_.front().competes` -> `false`: a function under the lock is woken, not called
    if (telling_ || queue_.empty() || !queue_.front().competes || (word_.load(std::memory_order_relaxed) & fair)) {
      // fault m1g: first `if (telling_) return;`: a release leaves the decision to somebody who tells
      grant(true);
      return tell_granted(lock);
    }
    auto& head = queue_.front();
    // fault b1: never: a waiter on its way is woken again
    if (std::exchange(head.place_, place::woken) == place::woken) return;  // it will try
    auto self = queue_.share_front();
    lock.unlock();
    head.wake(std::move(self), owner ? std::move(owner) : shared(this));
  }

  /// Somebody has left, or readers may follow.
  void look() noexcept {
    std::unique_lock lock(mutex_);  // short:
    grant(false);
    tell_granted(lock);
  }

  // Under the mutex:

  std::shared_ptr<lock_waiter> withdraw(lock_waiter& node) noexcept {
    // fault b1: `node.place_ == place::woken` -> `false`: a waiter that leaves on its way comes all the same
    node.place_ = node.place_ == place::woken ? place::withdrawn : place::done;
    word_.fetch_sub(waiting, std::memory_order_acq_rel);
    return queue_.erase(node);
  }

  /// Decides who holds the lock: grants from the head of the queue, up to somebody who has to wait or was woken.
  void grant(bool head_was_passed) noexcept {
    while (!queue_.empty()) {
      auto& head = queue_.front();
      // fault m1d: never: a waiter that is on its way is handed the lock
      if (head.place_ == place::woken) return;  // it will try
      if (!try_grant(head.mode, std::exchange(head_was_passed, false))) return;
      // fault b1: drop: a waiter that was granted the lock counts as queued
      head.place_ = place::done;
      granted_.push_back(queue_.pop_front());
    }
    if (word_.load(std::memory_order_relaxed) & fair)
      // fault b2: drop: the gate stays closed when the queue empties
      word_.fetch_and(~fair, std::memory_order_relaxed);  // publishes nothing: it only reopens the fast path
  }

  /// Tells whoever was granted the lock, in order. One at a time does so, for all others: a handler that its executor destroys,
  /// which releases the lock again, makes this a loop and no recursion.
  void tell_granted(std::unique_lock<std::mutex>& lock) noexcept {  // short: released while a waiter is told
    // fault b3c: never: who releases while somebody tells, tells too
    if (telling_) return;
    telling_ = true;
    while (auto next = granted_.pop_front()) {
      lock.unlock();
      lock_waiter::tell(std::move(next), error_code(), shared(this));
      lock.lock();  // short:
    }
    // fault b2: drop: whoever has told keeps all others from telling
    // fault m1: first `lock.unlock(); lock.lock();`: what is granted while somebody tells is forgotten
    telling_ = false;
  }

  bool try_grant(lock_mode mode, bool head_was_passed) noexcept {
    return mode == lock_mode::exclusive ? try_grant<writer, writer | readers>(head_was_passed)
                                        : try_grant<reader, writer>(head_was_passed);
  }

  /// Turns one waiter into a holder if none of `Obstacles` is in the word. Else closes the gate if that is necessary: readers
  /// may follow each other for ever, and a head that was passed (somebody has just released, or it was woken, and the lock is
  /// taken) must not be again. A writer's release looks.
  template <std::uint64_t Hold, std::uint64_t Obstacles>
  bool try_grant(bool head_was_passed) noexcept {
    auto word = word_.load(std::memory_order_relaxed);
    for (;;) {
      const bool free = !(word & Obstacles);
      // fault m1p: `!head_was_passed` -> `true`: a head that was passed by a writer does not close the gate
      if (!free && !head_was_passed && !(word & readers)) return false;
      // fault b2: `word | fair` -> `word`: the gate is never closed
      const auto next = free ? (word - waiting + Hold) & ~fair : word | fair;
      if (word_.compare_exchange_weak(word, next, std::memory_order_acquire, std::memory_order_relaxed)) return free;
    }
  }

  std::atomic<std::uint64_t> word_{0};
  std::mutex mutex_;
  bool telling_ = false;
  bool closed_ = false;  // the lock or its context is gone
  shared_queue<lock_waiter> queue_;
  shared_queue<lock_waiter> granted_;  // to be told
};

template <typename Waiter>
lock_awakening<Waiter>::~lock_awakening() {
  if (!waiter_) return;
  lock_->cancel(waiter_);  // fault b5: drop: a waiter that is destroyed on its way stays in the queue
  auto& dropped = static_cast<Waiter&>(*waiter_);
  dropped.drop(std::move(waiter_));
}

template <typename Waiter>
void lock_awakening<Waiter>::operator()() {
  auto self = std::move(waiter_);
  auto owner = std::move(lock_);
  const auto code = owner->try_after_wake(self);
  if (!code) return;
  // fault b1: drop: a waiter that left on its way is given the lock with its error
  if (*code) owner = nullptr;
  auto& waiter = static_cast<Waiter&>(*self);
  waiter.arrive(std::move(self), *code, std::move(owner));
}

}  // namespace detail

ROSTER_END_NAMESPACE
