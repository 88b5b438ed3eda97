#pragma once

#include <roster/exec/time_source.hpp>

#include <boost/asio/execution/outstanding_work.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/prefer.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

/// Time that passes when a test says so. It begins a century after the clock's epoch, so that it shows when some part of a
/// program goes by another clock. No context may be destroyed while it is advanced.
///
/// **Thread safety**: all members may be called concurrently, from any thread; of its alarms, as of all alarms, each by one
/// thread at a time.
///
///     auto time = std::make_shared<roster::manual_time>();
///     roster::blocking_pool pool{1, 16, time};
///     time->advance(std::chrono::minutes(5));
class manual_time final : public time_source {
 public:
  manual_time() : alarms_(std::make_shared<alarms>()) {}

  /// The time now.
  time_point now() const noexcept override {
    std::lock_guard lock(alarms_->mutex);  // short:
    return alarms_->now;
  }

  /// Lets time pass. What is due rings in order: of alarms for the same instant first the one that was set first.
  void advance(duration by) { advance_to(from_now(by)); }

  /// Lets it become `when`. Time never goes back: for an instant that has passed nothing happens.
  void advance_to(time_point when) {
    while (auto due = alarms_->next(when))
      due->ring();
  }

  /// When the next alarm rings, if one is set.
  std::optional<time_point> next_alarm() const {
    std::lock_guard lock(alarms_->mutex);  // short:
    if (alarms_->set.empty()) return std::nullopt;
    return alarms_->set.begin()->first.first;
  }

  std::unique_ptr<alarm> make_alarm(const asio::any_io_executor& executor, std::function<void()> ring) override {
    return std::make_unique<manual_alarm>(alarms_, executor, std::move(ring));
  }

 private:
  // Posts, so that nothing rings on the stack of the one who advances the time.
  struct bell {
    void ring() const {
      asio::post(work, [function = function] { (*function)(); });
    }

    std::shared_ptr<const std::function<void()>> function;
    decltype(asio::prefer(std::declval<asio::any_io_executor>(), asio::execution::outstanding_work.tracked)) work;
  };

  using place = std::pair<time_point, std::uint64_t>;  // when, and how many were set before

  struct alarms {
    std::optional<bell> next(time_point until) {
      std::lock_guard lock(mutex);  // short:
      const auto first = set.begin();
      if (first == set.end() || first->first.first > until) {
        now = (std::max)(now, until);
        return std::nullopt;
      }
      now = (std::max)(now, first->first.first);
      return std::move(set.extract(first).mapped());
    }

    std::mutex mutex;
    time_point now{std::chrono::years(100)};
    std::uint64_t count = 0;
    std::map<place, bell> set;
  };

  class manual_alarm final : public alarm {
   public:
    manual_alarm(std::shared_ptr<alarms> all, const asio::any_io_executor& executor, std::function<void()> ring)
        : alarms_(std::move(all)), executor_(executor), ring_(std::make_shared<const std::function<void()>>(std::move(ring))) {}
    ~manual_alarm() override { clear(); }

    void set(time_point when) override {
      clear();
      std::map<place, bell> fresh;
      fresh.emplace(place(), bell{ring_, asio::prefer(executor_, asio::execution::outstanding_work.tracked)});
      auto node = fresh.extract(fresh.begin());
      {
        std::lock_guard lock(alarms_->mutex);  // short:
        if (when > alarms_->now) {
          node.key() = place_ = place(when, alarms_->count++);
          alarms_->set.insert(std::move(node));
          return;
        }
      }
      node.mapped().ring();
    }

    void clear() noexcept override {
      std::unique_lock lock(alarms_->mutex);  // short:
      const auto cleared = alarms_->set.extract(place_);
      lock.unlock();  // before the executor's work ends
    }

   private:
    const std::shared_ptr<alarms> alarms_;
    const asio::any_io_executor executor_;
    const std::shared_ptr<const std::function<void()>> ring_;
    place place_;
  };

  const std::shared_ptr<alarms> alarms_;
};

ROSTER_END_NAMESPACE
