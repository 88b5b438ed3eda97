#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/context_bound.hpp>
#include <roster/detail/pairing_heap.hpp>
#include <roster/detail/separate_compilation.hpp>
#include <roster/exec/time_source.hpp>

#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// The deadline of an operation, which may end before.
class deadline : public heap_node<deadline> {
 public:
  explicit deadline(clock::time_point time) : when(time) {}
  deadline(const deadline&) = delete;
  deadline& operator=(const deadline&) = delete;
  virtual ~deadline() = default;

  /// It has passed: asks whoever decides between that and another end. No mutex of the deadlines is held.
  virtual void passed() noexcept = 0;

  const clock::time_point when;

 private:
  friend class deadlines;
  std::shared_ptr<deadline> self_;  // while it is in the heap
};

struct earlier_deadline {
  bool operator()(const deadline& left, const deadline& right) const noexcept { return left.when < right.when; }
};

/// The deadlines of one context by one time source, and one alarm for all of them, set while there are any.
class deadlines final : public context_bound {
 public:
  deadlines(const asio::any_io_executor& executor, std::shared_ptr<time_source> time)
      : context_bound(executor), time_(std::move(time)) {}

  const std::shared_ptr<time_source>& time() const noexcept { return time_; }

  /// Those of the context of `executor`.
  static std::shared_ptr<deadlines> of(const asio::any_io_executor& executor, const std::shared_ptr<time_source>& time);

  /// Has `passed` called at its time, unless it is removed before. Throws what setting an alarm throws, having added nothing.
  void add(std::shared_ptr<deadline> added) {
    auto& fresh = *added;
    {
      std::lock_guard lock(mutex_);  // short:
      if (closed_) return;
      fresh.self_ = std::move(added);
      heap_.insert(fresh);
    }
    try {
      set_alarm();
    } catch (...) {
      remove(fresh);
      throw;
    }
  }

  void remove(deadline& removed) noexcept {
    std::shared_ptr<deadline> last;
    {
      std::lock_guard lock(mutex_);  // short:
      if (!removed.self_) return;
      heap_.erase(removed);
      last = std::move(removed.self_);
      if (!heap_.empty()) return;  // an alarm that comes too early is set anew
    }
    set_alarm();
  }

  /// Forgets all deadlines, and tells none: the context is being destroyed, and its threads have ended.
  void close() noexcept override {
    const auto ended = [&] {
      std::lock_guard lock(mutex_);  // short:
      closed_ = true;
      return std::move(alarm_);
    }();
    while (const auto forgotten = take(clock::time_point::max())) {
    }
  }

 private:
  void start() {
    alarm_ = time_->make_alarm(executor(), [weak = std::weak_ptr<deadlines>(shared(this))] {
      if (const auto self = weak.lock()) self->ring();
    });
  }

  void ring() noexcept {
    {
      std::lock_guard lock(mutex_);  // short:
      set_for_.reset();
    }
    while (const auto due = take(time_->now()))
      due->passed();
    set_alarm();
  }

  /// The first deadline, if it is not after `until`.
  std::shared_ptr<deadline> take(clock::time_point until) noexcept {
    std::lock_guard lock(mutex_);  // short:
    if (heap_.empty() || heap_.first().when > until) return nullptr;
    auto& first = heap_.first();
    heap_.erase(first);
    return std::move(first.self_);
  }

  /// Sets the alarm to the first deadline, or clears it: one thread at a time, and whoever comes meanwhile has that one look
  /// again. An alarm that rings too early is left as it is.
  void set_alarm() {
    std::unique_lock lock(mutex_);  // short:
    look_again_ = true;
    if (std::exchange(setting_, true)) return;
    while (std::exchange(look_again_, false) && !closed_) {
      std::optional<clock::time_point> wanted;
      if (!heap_.empty()) wanted = heap_.first().when;
      if (wanted == set_for_ || (wanted && set_for_ && *set_for_ < *wanted)) continue;
      const auto before = std::exchange(set_for_, wanted);
      lock.unlock();
      try {
        if (wanted)
          alarm_->set(*wanted);
        else
          alarm_->clear();
        lock.lock();  // short:
      } catch (...) {
        lock.lock();  // short:
        set_for_ = before;
        setting_ = false;
        throw;
      }
    }
    setting_ = false;
  }

  const std::shared_ptr<time_source> time_;
  std::unique_ptr<alarm> alarm_;  // of the thread that is `setting_` it
  std::mutex mutex_;
  pairing_heap<deadline, earlier_deadline> heap_;
  std::optional<clock::time_point> set_for_;  // when the alarm will ring
  bool setting_ = false;
  bool look_again_ = false;
  bool closed_ = false;
};

/// The deadlines of a context, by time source.
class deadline_service final : public asio::execution_context::service {
 public:
  using key_type = deadline_service;
  static inline asio::execution_context::id id;

  explicit deadline_service(asio::execution_context& context) : service(context) {}

  std::shared_ptr<deadlines> find(const std::shared_ptr<time_source>& time) const {
    std::lock_guard lock(mutex_);  // short:
    for (const auto& each : all_)
      if (each->time() == time) return each;
    return nullptr;
  }

  /// Adds `fresh`, unless somebody has added another for the same time before; returns the one that is there.
  std::shared_ptr<deadlines> add(std::shared_ptr<deadlines> fresh) {
    std::list<std::shared_ptr<deadlines>> one(1, fresh);
    std::lock_guard lock(mutex_);  // short:
    for (const auto& each : all_)
      if (each->time() == fresh->time()) return each;
    all_.splice(all_.end(), one);
    return fresh;
  }

 private:
  void shutdown() override {}

  mutable std::mutex mutex_;
  std::list<std::shared_ptr<deadlines>> all_;
};

#if ROSTER_DEFINITIONS_HERE

ROSTER_DECL std::shared_ptr<deadlines> deadlines::of(const asio::any_io_executor& executor,
                                                     const std::shared_ptr<time_source>& time) {
  auto& service = asio::use_service<deadline_service>(context_of(executor));
  if (auto found = service.find(time)) return found;
  auto fresh = make_context_bound<deadlines>(executor, time);
  fresh->start();
  return service.add(std::move(fresh));
}

#endif

}  // namespace detail

ROSTER_END_NAMESPACE
