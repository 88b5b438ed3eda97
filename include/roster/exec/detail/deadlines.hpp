#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/context_bound.hpp>
#include <roster/detail/pairing_heap.hpp>
#include <roster/detail/separate_compilation.hpp>
#include <roster/exec/time_source.hpp>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#if ROSTER_DEFINITIONS_HERE
#include <boost/asio/io_context.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#endif

ROSTER_BEGIN_NAMESPACE

namespace detail {

class deadlines;

/// The deadline of an operation, which withdraws it when it has ended in another way.
class deadline : public heap_node<deadline> {
 public:
  explicit deadline(clock::time_point time) : when(time) {}
  deadline(const deadline&) = delete;
  deadline& operator=(const deadline&) = delete;
  virtual ~deadline() = default;

  /// It has passed: asks whoever decides between that and another end. No mutex of the deadlines is held.
  virtual void passed() noexcept = 0;

  /// It does not count any more. May be repeated, and come after `passed`.
  void withdraw() noexcept;

  const clock::time_point when;

 private:
  friend class deadlines;
  std::shared_ptr<deadlines> owner_;
  std::shared_ptr<deadline> self_;  // while it is in the heap
};

struct earlier_deadline {
  bool operator()(const deadline& left, const deadline& right) const noexcept { return left.when < right.when; }
};

/// The deadlines of one context by one time source, and one alarm for all of them, set while there are any. It is set under
/// the mutex. If it cannot be set anew for those that are there, the program terminates.
class deadlines final : public context_bound {
 public:
  deadlines(const asio::any_io_executor& executor, std::shared_ptr<time_source> time)
      : context_bound(executor), time_(std::move(time)) {}

  const std::shared_ptr<time_source>& time() const noexcept { return time_; }

  /// Those of the context of `executor`.
  static std::shared_ptr<deadlines> of(const asio::any_io_executor& executor, const std::shared_ptr<time_source>& time);

  /// Has `passed` called at its time, unless it ends before. Throws what setting an alarm throws, having added nothing.
  void add(std::shared_ptr<deadline> added) {
    auto& fresh = *added;
    fresh.owner_ = shared(this);
    std::lock_guard lock(mutex_);  // short:
    if (closed_) return;
    heap_.insert(fresh);
    try {
      set_alarm();
    } catch (...) {
      heap_.erase(fresh);
      reset_alarm();
      throw;
    }
    fresh.self_ = std::move(added);
  }

  void remove(deadline& removed) noexcept {
    const auto last = [&]() -> std::shared_ptr<deadline> {
      std::lock_guard lock(mutex_);  // short:
      if (!removed.self_) return nullptr;
      heap_.erase(removed);
      if (heap_.empty() && set_for_) {
        alarm_->clear();
        set_for_.reset();
      }
      return std::move(removed.self_);
    }();
  }

  /// Forgets all deadlines, and tells none: the context is being destroyed, and its threads have ended.
  void close() noexcept override {
    const auto ended = [&] {
      std::lock_guard lock(mutex_);  // short:
      closed_ = true;
      set_for_.reset();
      return std::move(alarm_);
    }();
    while (const auto forgotten = take((clock::time_point::max)())) {
    }
  }

 private:
  void start() {
    alarm_ = time_->make_alarm(executor(), [weak = std::weak_ptr<deadlines>(shared(this))] {
      if (const auto self = weak.lock()) self->ring();
    });
  }

  void ring() noexcept {
    while (const auto due = take(time_->now()))
      due->passed();
    std::lock_guard lock(mutex_);  // short:
    set_for_.reset();
    reset_alarm();
  }

  /// The first deadline, if it is not after `until`.
  std::shared_ptr<deadline> take(clock::time_point until) noexcept {
    std::lock_guard lock(mutex_);  // short:
    if (heap_.empty() || heap_.first().when > until) return nullptr;
    auto& first = heap_.first();
    heap_.erase(first);
    return std::move(first.self_);
  }

  // Under the mutex.

  /// An alarm that was set for an earlier time stays.
  void set_alarm() {
    // fault d1: `*set_for_ <= heap_.first().when` -> `true`: an alarm is not set anew for an earlier deadline
    if (closed_ || heap_.empty() || (set_for_ && *set_for_ <= heap_.first().when)) return;
    set_for_.reset();  // whatever becomes of the next line
    alarm_->set(heap_.first().when);
    set_for_ = heap_.first().when;
  }

  /// For those that were added before, and cannot be told of a failure.
  void reset_alarm() noexcept { set_alarm(); }

  const std::shared_ptr<time_source> time_;
  std::mutex mutex_;
  std::unique_ptr<alarm> alarm_;
  pairing_heap<deadline, earlier_deadline> heap_;
  std::optional<clock::time_point> set_for_;  // when the alarm will ring, at the latest
  bool closed_ = false;
};

inline void deadline::withdraw() noexcept {
  if (owner_) owner_->remove(*this);
}

/// The deadlines of a context, by time source. Found without a lock: none is taken out before the context ends.
class deadline_service final : public asio::execution_context::service {
 public:
  using key_type = deadline_service;
  static inline asio::execution_context::id id;

  explicit deadline_service(asio::execution_context& context) : service(context) {}
  ~deadline_service() {
    for (auto* next = first_.load(std::memory_order_acquire); next;)
      delete std::exchange(next, next->next);
  }

  std::shared_ptr<deadlines> find(const std::shared_ptr<time_source>& time) const {
    for (auto* each = first_.load(std::memory_order_acquire); each; each = each->next)
      if (each->all->time() == time) return each->all;
    return nullptr;
  }

  /// Two that are added for one time at once are both used.
  void add(std::shared_ptr<deadlines> fresh) {
    auto* added = new entry{std::move(fresh), first_.load(std::memory_order_relaxed)};
    while (!first_.compare_exchange_weak(added->next, added, std::memory_order_acq_rel, std::memory_order_relaxed)) {
    }
  }

 private:
  struct entry {
    const std::shared_ptr<deadlines> all;
    entry* next;
  };

  void shutdown() override {}

  std::atomic<entry*> first_{nullptr};
};

#if ROSTER_DEFINITIONS_HERE

/// What a strand is on, whose handlers would keep an alarm waiting: of those that are known.
inline asio::any_io_executor outside_strands(asio::any_io_executor executor) {
  if (const auto* strand = executor.target<asio::strand<asio::any_io_executor>>())
    return outside_strands(strand->get_inner_executor());
  if (const auto* strand = executor.target<asio::strand<asio::io_context::executor_type>>())
    return strand->get_inner_executor();
  if (const auto* strand = executor.target<asio::strand<asio::thread_pool::executor_type>>())
    return strand->get_inner_executor();
  return executor;
}

ROSTER_DECL std::shared_ptr<deadlines> deadlines::of(const asio::any_io_executor& executor,
                                                     const std::shared_ptr<time_source>& time) {
  auto& service = asio::use_service<deadline_service>(context_of(executor));
  if (auto found = service.find(time)) return found;
  auto fresh = make_context_bound<deadlines>(outside_strands(executor), time);
  fresh->start();
  service.add(fresh);
  return fresh;
}

#endif

}  // namespace detail

ROSTER_END_NAMESPACE
