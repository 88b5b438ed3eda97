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

/// A waiter on the way to its executor, where it takes the lock if it can. Destroyed on the way, it leaves the queue, and its
/// handler is destroyed.
class lock_awakening {
 public:
  lock_awakening(std::shared_ptr<lock_waiter> waiter, std::shared_ptr<lock_state> lock) noexcept
      : waiter_(std::move(waiter)), lock_(std::move(lock)) {}
  lock_awakening(lock_awakening&&) noexcept = default;
  lock_awakening& operator=(lock_awakening&&) = delete;
  inline ~lock_awakening();

  inline void operator()();

 private:
  std::shared_ptr<lock_waiter> waiter_;
  std::shared_ptr<lock_state> lock_;
};

/// A waiter in the queue of a lock. Is told whose lock it has got, or why it has got none.
class lock_waiter : public waiter<lock_waiter, error_code, std::shared_ptr<lock_state>> {
 public:
  /// One that competes is woken by a release, unless the gate is closed, and takes the lock if it is still free when its
  /// executor gets to it. One that does not is handed the lock. A lock has waiters of one kind only.
  lock_waiter(lock_mode wanted, bool competing) : mode(wanted), competes(competing) {}

  // Of those that compete:

  /// Posts the awakening to the handler's executor.
  virtual void wake(lock_awakening) noexcept {}

  /// As `tell`, but calls the handler at once: the awakening has arrived.
  virtual void arrive(std::shared_ptr<lock_waiter>, error_code, std::shared_ptr<lock_state>) {}

  /// Destroys the handler: the awakening was destroyed.
  virtual void drop(std::shared_ptr<lock_waiter>) noexcept {}

  const lock_mode mode;
  const bool competes;

 private:
  friend class lock_state;
  bool woken_ = false;  // at the head, or taken out since, and its awakening is on the way
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
  static constexpr std::uint64_t waiter = std::uint64_t{1} << 32;
  static constexpr std::uint64_t readers = waiter - reader;

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
    // fault b2: `word >= waiter` -> `word >= waiter && hold == writer`: a reader's release wakes nobody
    if (!(word & (writer | readers)) && word >= waiter) [[unlikely]]
      pass_on(std::move(owner));
  }

  void downgrade() noexcept {
    // fault l1: never: a downgrade lets no reader in
    if (word_.fetch_add(reader - writer, std::memory_order_acq_rel) >= waiter) look();
  }

  /// Queues, and grants what can be granted.
  void enqueue(std::shared_ptr<lock_waiter> node) noexcept {
    std::unique_lock lock(mutex_);  // short:
    if (closed_) {
      lock.unlock();
      return lock_waiter::tell(std::move(node), asio::error::operation_aborted, nullptr);
    }
    word_.fetch_add(waiter, std::memory_order_acq_rel);  // a release from now on looks at the queue
    queue_.push_back(std::move(node));
    // fault m1: first `word_.fetch_sub(waiter, std::memory_order_acq_rel);
    //   const bool taken = word_.load(std::memory_order_acquire) & (writer | readers);
    //   word_.fetch_add(waiter, std::memory_order_acq_rel);
    //   if (taken) return;`: a waiter is announced after it has looked at the lock
    if (queue_.size() == 1) grant(lock, false);  // else somebody looks, or waits, for the head
  }

  /// Takes a waiter out, unless it was granted. One that is on its way hears of it when it arrives.
  void cancel(std::shared_ptr<lock_waiter> node) noexcept {
    {
      std::lock_guard lock(mutex_);  // short:
      if (!node->queued()) return;
      queue_.erase(*node);
      word_.fetch_sub(waiter, std::memory_order_acq_rel);
      if (node->woken_) node = nullptr;  // fault m1c: drop: a waiter that was woken is told twice
    }
    if (node) lock_waiter::tell(std::move(node), asio::error::operation_aborted, nullptr);
    // fault b1: drop: a cancellation does not grant again
    look();  // those behind it may have been waiting only for it
  }

  /// The lock object, or its context, is gone: whoever waits is told, at once or when it arrives.
  void close() noexcept override {
    shared_queue<lock_waiter> waiters;
    {
      std::lock_guard lock(mutex_);  // short:
      // fault b5: drop: a lock whose context died queues newcomers
      closed_ = true;
      word_.fetch_sub(waiter * queue_.size(), std::memory_order_acq_rel);
      if (!queue_.empty() && queue_.front().woken_) queue_.pop_front();
      waiters.take_all(queue_);
    }
    while (auto node = waiters.pop_front())
      lock_waiter::tell(std::move(node), asio::error::operation_aborted, nullptr);
    look();
  }

  /// An awakening has arrived: how its waiter completes, holding the lock if there is no error. Nothing if it was passed on its
  /// way: then the gate is closed, the next release hands it the lock, and `node` is let go of.
  std::optional<error_code> arrived(std::shared_ptr<lock_waiter>& node) noexcept {
    std::unique_lock lock(mutex_);  // short:
    node->woken_ = false;
    if (!node->queued()) return asio::error::operation_aborted;
    // fault b2: `true` -> `false`: a head that came and found the lock taken leaves the gate open
    if (!take(node->mode, true)) {
      // fault m1w: drop: a waiter that was passed is kept beyond the lock's mutex
      node = nullptr;  // under the mutex: not the last reference, which must not outlive the handler
      return std::nullopt;
    }
    queue_.erase(*node);
    // fault b2: drop: a waiter that was woken leaves those behind it to themselves
    if (node->mode == lock_mode::shared) grant(lock, false);  // other readers
    return error_code();
  }

 private:
  /// Wakes the head, so that the lock is free until somebody can use it; hands it over where the gate is closed, the head does
  /// not compete, or somebody is granting.
  void pass_on(std::shared_ptr<lock_state> owner) noexcept {
    std::unique_lock lock(mutex_);  // short:
    if (granting_ || queue_.empty() || !queue_.front().competes || (word_.load(std::memory_order_relaxed) & fair))
      return grant(lock, true);
    auto& head = queue_.front();
    if (std::exchange(head.woken_, true)) return;  // it will look
    auto self = queue_.share_front();
    lock.unlock();
    head.wake(lock_awakening(std::move(self), owner ? std::move(owner) : shared(this)));
  }

  /// A waiter has left, or readers may follow.
  void look() noexcept {
    std::unique_lock lock(mutex_);  // short:
    grant(lock, false);
  }

  /// Grants from the head of the queue, up to somebody who has to wait or is on its way. One at a time does so, for all others:
  /// waiters are told in order, and a handler that its executor destroys, which releases the lock again, makes this a loop and
  /// no recursion.
  void grant(std::unique_lock<std::mutex>& lock, bool released) noexcept {  // short: let go of while a waiter is told
    released_ |= released;
    if (granting_) {
      // Whoever grants may be long in coming back; until then nobody else shall pass the head.
      // fault m1g: drop: a release that leaves the granting to another leaves the gate open
      if (released && !queue_.empty()) word_.fetch_or(fair, std::memory_order_relaxed);  // publishes nothing
      return;
    }
    granting_ = true;
    while (auto granted = next_granted(std::exchange(released_, false))) {
      lock.unlock();
      lock_waiter::tell(std::move(granted), error_code(), shared(this));
      lock.lock();  // short:
    }
    // fault m1: first `lock.unlock(); lock.lock();`: a release that comes while another grants is forgotten
    granting_ = false;
  }

  /// Under the mutex.
  std::shared_ptr<lock_waiter> next_granted(bool released) noexcept {
    if (queue_.empty()) {
      if (word_.load(std::memory_order_relaxed) & fair)
        // fault b2: drop: the gate stays closed when the queue empties
        word_.fetch_and(~fair, std::memory_order_relaxed);  // publishes nothing: it only reopens the fast path
      return nullptr;
    }
    // fault m1d: drop: a waiter that is on its way is handed the lock
    if (queue_.front().woken_) return nullptr;  // it will look
    return take(queue_.front().mode, released) ? queue_.pop_front() : nullptr;
  }

  bool take(lock_mode mode, bool passed) noexcept {
    return mode == lock_mode::exclusive ? take<writer, writer | readers>(passed) : take<reader, writer>(passed);
  }

  /// Turns one waiter into a holder if none of `Obstacles` is in the word. Else closes the gate if that is necessary: readers
  /// may follow each other for ever, and a head that was `passed` (where somebody has just left, or it was woken, and the lock
  /// is taken) must not be again. A writer's release looks.
  template <std::uint64_t Hold, std::uint64_t Obstacles>
  bool take(bool passed) noexcept {
    auto word = word_.load(std::memory_order_relaxed);
    for (;;) {
      const bool free = !(word & Obstacles);
      // fault m1p: `!passed` -> `true`: a head that was passed by a writer does not close the gate
      if (!free && !passed && !(word & readers)) return false;
      // fault b2: `word | fair` -> `word`: the gate is never closed
      const auto next = free ? (word - waiter + Hold) & ~fair : word | fair;
      if (word_.compare_exchange_weak(word, next, std::memory_order_acquire, std::memory_order_relaxed)) return free;
    }
  }

  std::atomic<std::uint64_t> word_{0};
  std::mutex mutex_;
  bool granting_ = false;
  bool released_ = false;  // since the last look, while somebody grants
  bool closed_ = false;    // the lock or its context is gone
  shared_queue<lock_waiter> queue_;
};

inline lock_awakening::~lock_awakening() {
  if (!waiter_) return;
  lock_->cancel(waiter_);  // fault b5: drop: a waiter that is destroyed on its way stays in the queue
  auto& dropped = *waiter_;
  dropped.drop(std::move(waiter_));
}

inline void lock_awakening::operator()() {
  auto self = std::move(waiter_);
  auto owner = std::move(lock_);
  const auto code = owner->arrived(self);
  if (!code) return;
  if (*code) owner = nullptr;
  auto& waiter = *self;
  waiter.arrive(std::move(self), *code, std::move(owner));
}

}  // namespace detail

ROSTER_END_NAMESPACE
