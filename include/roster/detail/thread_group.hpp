#pragma once

#include <roster/version.hpp>

#include <atomic>
#include <cstddef>
#include <functional>
#include <iterator>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// Called before each thread is created, so that tests can make the creation fail: by throwing what `std::thread` would.
inline std::atomic<void (*)()> before_thread_creation{nullptr};

/// Threads that do nothing now: what they were given to do so far, and what of that waits.
struct stillness {
  std::size_t given = 0;
  std::size_t running = 0;
  std::size_t queued = 0;

  void add(const stillness& other) noexcept {
    given += other.given;
    running += other.running;
    queued += other.queued;
  }

  friend bool operator==(const stillness&, const stillness&) = default;
};

/// Threads that are joined by the next thread of the group, or by whoever destroys the owner: both may wait.
class thread_group : public std::enable_shared_from_this<thread_group> {
  struct member;

 public:
  using handle = std::shared_ptr<member>;

  thread_group() = default;
  thread_group(const thread_group&) = delete;
  thread_group& operator=(const thread_group&) = delete;

  /// Runs `body` on a new thread, which first joins the threads of the group that have ended. Throws what `std::thread` throws.
  /// `end` asks it to return, for `end_all`; `still` says whether it does nothing, for `still`.
  template <typename Body>
  handle launch(
      Body body, std::function<void()> end = [] {},
      std::function<std::optional<stillness>()> still = [] { return std::make_optional<stillness>(); }) {
    if (auto* seam = before_thread_creation.load()) seam();
    auto fresh = std::make_shared<member>();
    fresh->end = std::move(end);
    fresh->still = std::move(still);
    std::list<handle> entry(1, fresh);
    fresh->thread = std::thread([group = shared_from_this(), fresh, body = std::move(body)]() mutable {
      group->join_ended();  // fault b19t: drop: threads that have ended are joined at the end only
      {
        auto local = std::move(body);
        local();
      }
      fresh->ended = true;
    });
    std::lock_guard lock(mutex_);  // short:
    members_.splice(members_.end(), entry);
    return fresh;
  }

  /// Joins one thread, if nobody has. A thread that calls this for itself stays in the group, for others to join.
  void join(const handle& thread) noexcept {
    if (thread->thread.get_id() == std::this_thread::get_id()) return;
    for (auto& each : take([&](const member& m) { return &m == thread.get(); }))
      join(*each);
  }

  /// The sum over all threads that have not ended, if none of them does anything.
  std::optional<stillness> still() const {
    stillness all;
    std::lock_guard lock(mutex_);  // short:
    for (const auto& each : members_) {
      if (each->ended) continue;
      const auto one = each->still();
      if (!one) return std::nullopt;
      all.add(*one);
    }
    return all;
  }

  /// Joins every thread. A member that calls this itself is detached: no thread can wait for its own end.
  void join_all() noexcept {
    for (auto& each : take([](const member&) { return true; }))
      join(*each);
  }

  /// The same, after asking every thread to end.
  void end_all() noexcept {
    const auto all = take([](const member&) { return true; });
    for (auto& each : all)
      each->end();
    for (auto& each : all)
      join(*each);
  }

 private:
  struct member {
    std::thread thread;
    std::function<void()> end;
    std::function<std::optional<stillness>()> still;
    std::atomic<bool> ended{false};
  };

  void join_ended() noexcept {
    for (auto& each : take([](const member& m) { return m.ended.load(); }))
      join(*each);
  }

  static void join(member& m) noexcept {
    if (m.thread.get_id() == std::this_thread::get_id())
      m.thread.detach();
    else
      m.thread.join();  // blocks: a thread of the group, or the one that destroys the owner
  }

  template <typename Predicate>
  std::list<handle> take(Predicate wanted) noexcept {
    std::list<handle> taken;
    std::lock_guard lock(mutex_);  // short:
    for (auto i = members_.begin(); i != members_.end();) {
      auto next = std::next(i);
      if (wanted(**i)) taken.splice(taken.end(), members_, i);
      i = next;
    }
    return taken;
  }

  mutable std::mutex mutex_;
  std::list<handle> members_;
};

}  // namespace detail

ROSTER_END_NAMESPACE
