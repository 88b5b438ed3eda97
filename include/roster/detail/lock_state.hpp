#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/closing_service.hpp>
#include <roster/detail/pending_handler.hpp>
#include <roster/detail/shared_queue.hpp>

#include <boost/asio/strand.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

class lock_state;

enum class lock_mode : bool { shared, exclusive };

/// A waiter in the queue of a lock. Everything here is touched on the lock's strand only.
class lock_waiter : public queue_node<lock_waiter> {
 public:
  explicit lock_waiter(lock_mode wanted) : mode(wanted) {}
  lock_waiter(const lock_waiter&) = delete;
  lock_waiter& operator=(const lock_waiter&) = delete;
  virtual ~lock_waiter() = default;

  /// Posts the handler: with a guard for `owner`, or with an error and no guard.
  virtual void complete(std::shared_ptr<lock_waiter> self, error_code code, std::shared_ptr<lock_state> owner) noexcept = 0;

  const lock_mode mode;
  bool cancelled = false;
};

/// The reader/writer lock itself: one atomic word for whoever finds it free, a queue on a strand for everybody else.
///
/// The word holds
///
///     bit  0      W  a writer holds the lock
///     bit  1      F  fairness is demanded: the head of the queue was found ungrantable, newcomers must queue
///     bits 2-31   R  the number of readers that hold the lock
///     bits 32-63  P  the number of waiters that were announced and neither granted nor removed
///
///     0                free, nobody waits
///     W                one writer               W with R > 0, or with a second W: never
///     R > 0            readers
///     P > 0, F = 0     waiters are on their way to the strand, or a release has not been looked at yet
///     P > 0, F = 1     the head waits for W = R = 0 (a writer) or W = 0 (a reader); that release schedules a drain
///     P = 0, F = 1     only inside `grant`, which ends by clearing F when the queue is empty
///
/// Only the strand lowers P and changes F, so "somebody waits" seen by a release stays true until the strand acts.
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

  explicit lock_state(const asio::any_io_executor& executor) : executor_(executor), strand_(executor) {}

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

  /// Tries a little longer: a holder on another thread is usually gone within some tens of nanoseconds.
  bool spin_lock(lock_mode mode) noexcept {
    for (int i = 0; i < 50; ++i)
      if (try_lock(mode)) return true;
    return false;
  }

  void unlock_shared() noexcept { released(word_.fetch_sub(reader, std::memory_order_acq_rel) - reader); }
  void unlock_exclusive() noexcept { released(word_.fetch_sub(writer, std::memory_order_acq_rel) - writer); }

  void downgrade() noexcept {
    if (word_.fetch_add(reader - writer, std::memory_order_acq_rel) >= waiter) drain();
  }

  /// Announces a waiter and sends it to the strand.
  void enqueue(std::shared_ptr<lock_waiter> node) noexcept {
    word_.fetch_add(waiter, std::memory_order_acq_rel);  // before the dispatch: a release from now on schedules a drain
    if (closed_.load(std::memory_order_acquire)) return reject(std::move(node));
    asio::dispatch(*strand_, arrival(shared(), std::move(node)));
  }

  /// Takes a waiter out, unless it was granted.
  void cancel(std::shared_ptr<lock_waiter> node) noexcept {
    if (closed_.load(std::memory_order_acquire)) return;
    asio::dispatch(*strand_, [self = shared(), node = std::weak_ptr<lock_waiter>(node)] {
      if (auto live = node.lock()) self->leave(std::move(live));
    });
  }

  /// The lock object is gone: whoever waits is told.
  void close() noexcept {
    if (word_.load(std::memory_order_acquire) < waiter || closed_.load(std::memory_order_acquire)) return;
    asio::dispatch(*strand_, [self = shared()] { self->abort_all(); });
  }

  void context_closed() noexcept override {
    closed_.store(true, std::memory_order_release);
    abort_all();
    strand_.reset();
    executor_ = nullptr;
  }

 private:
  /// A waiter on its way to the strand. If the strand dies before it gets there, the waiter is told.
  class arrival {
   public:
    arrival(std::shared_ptr<lock_state> state, std::shared_ptr<lock_waiter> node) noexcept
        : state_(std::move(state)), node_(std::move(node)) {}
    arrival(arrival&&) = default;
    ~arrival() {
      if (node_) state_->reject(std::move(node_));
    }
    void operator()() noexcept { state_->arrive(std::move(node_)); }

   private:
    std::shared_ptr<lock_state> state_;
    std::shared_ptr<lock_waiter> node_;
  };

  static void tell(std::shared_ptr<lock_waiter> node, error_code code, std::shared_ptr<lock_state> owner) noexcept {
    auto& told = *node;
    told.complete(std::move(node), code, std::move(owner));
  }

  std::shared_ptr<lock_state> shared() { return std::static_pointer_cast<lock_state>(shared_from_this()); }

  void released(std::uint64_t word) noexcept {
    if (!(word & (writer | readers)) && word >= waiter) [[unlikely]]
      drain();
  }

  /// Has the strand look at the queue; at most one such visit is under way. The visit clears the flag before it looks, with an
  /// exchange, so that a release which found the flag set is seen by the visit that it relies on.
  void drain() noexcept {
    if (closed_.load(std::memory_order_acquire)) return;
    if (draining_.exchange(true, std::memory_order_acq_rel)) return;
    asio::dispatch(*strand_, [self = shared()] {
      self->draining_.exchange(false, std::memory_order_acq_rel);
      self->grant();
    });
  }

  // From here on: on the strand.

  void arrive(std::shared_ptr<lock_waiter> node) noexcept {
    if (node->cancelled) return reject(std::move(node));
    queue_.push_back(std::move(node));
    grant();
  }

  void leave(std::shared_ptr<lock_waiter> node) noexcept {
    node->cancelled = true;  // for a waiter whose arrival is still under way
    if (!node->queued()) return;
    queue_.erase(*node);
    reject(std::move(node));
    grant();  // those behind it may have been waiting only for it
  }

  void reject(std::shared_ptr<lock_waiter> node) noexcept {
    word_.fetch_sub(waiter, std::memory_order_acq_rel);
    tell(std::move(node), asio::error::operation_aborted, nullptr);
  }

  void abort_all() noexcept {
    while (auto node = queue_.pop_front())
      reject(std::move(node));
    grant();
  }

  void grant() noexcept {
    while (!queue_.empty()) {
      const auto mode = queue_.front().mode;
      if (!(mode == lock_mode::exclusive ? take<writer, writer | readers>() : take<reader, writer>())) return;
      tell(queue_.pop_front(), error_code(), shared());
      if (mode == lock_mode::exclusive) return;
    }
    word_.fetch_and(~fair, std::memory_order_relaxed);  // publishes nothing: it only reopens the fast path
  }

  /// Turns one waiter into a holder if none of `Obstacles` is in the word, else closes the gate.
  template <std::uint64_t Hold, std::uint64_t Obstacles>
  bool take() noexcept {
    auto word = word_.load(std::memory_order_relaxed);
    for (;;) {
      const bool free = !(word & Obstacles);
      const auto next = free ? (word - waiter + Hold) & ~fair : word | fair;
      if (word_.compare_exchange_weak(word, next, std::memory_order_acquire, std::memory_order_relaxed)) return free;
    }
  }

  asio::any_io_executor executor_;  // may be a strand itself; neither may outlive the context
  std::optional<asio::strand<asio::any_io_executor>> strand_;
  std::atomic<std::uint64_t> word_{0};
  std::atomic<bool> draining_{false};
  std::atomic<bool> closed_{false};  // the context is gone: nothing may be posted to the strand
  shared_queue<lock_waiter> queue_;
};

}  // namespace detail

ROSTER_END_NAMESPACE
