#pragma once

// Runs a few actors under every schedule.
//
// Each actor has a thread, and exactly one of them moves at a time: at every point (an atomic operation, taking a mutex,
// waiting) the explorer decides who goes on. It starts over until it has taken every sequence of decisions. What is explored:
//
// - interleavings of the atomic operations and locked sections of the code under test, which is the real code compiled against
//   the types of stepped.hpp. They are sequentially consistent: a memory order that is too weak is for ThreadSanitizer to find.
// - A step reaches from one point to the next. Asio's strands and the allocator are not stepped: what they do belongs to the
// step.
// - Only so many preemptions per execution (switches away from an actor that could go on) as the scenario says; switches away
//   from one that waits or has ended are free.

#include "tests/support/catch.hpp"

#include <condition_variable>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace test::model {

constexpr auto unbounded = static_cast<std::size_t>(-1);

using condition = std::function<bool()>;

/// A sequence of decisions, and the one after it in lexical order.
class choices {
 public:
  std::size_t pick(std::size_t options) {
    if (options == 1) return 0;
    if (depth_ == path_.size()) path_.push_back({0, options});
    return path_[depth_++].taken;
  }

  /// Goes back to the start, for the next sequence. False when there is none.
  bool next() {
    depth_ = 0;
    while (!path_.empty() && path_.back().taken + 1 == path_.back().options)
      path_.pop_back();
    if (path_.empty()) return false;
    ++path_.back().taken;
    return true;
  }

 private:
  struct decision {
    std::size_t taken, options;
  };
  std::vector<decision> path_;
  std::size_t depth_ = 0;
};

class explorer {
 public:
  explicit explorer(std::size_t preemptions) : most_preemptions_(preemptions) {}
  explorer(const explorer&) = delete;
  explorer& operator=(const explorer&) = delete;

  ~explorer() {
    for (auto& each : threads_) {
      hand_to(each.get());
      each->thread.join();
    }
  }

  /// The explorer of the calling actor; null on other threads.
  static explorer* current() noexcept { return self_ ? self_->owner : nullptr; }

  /// Adds an actor to the next execution. It has to end.
  void actor(std::string name, std::function<void()> script) { cast(std::move(name), std::move(script), false); }

  /// Adds an actor that serves others, until `finishing()`.
  void daemon(std::string name, std::function<void()> script) { cast(std::move(name), std::move(script), true); }

  /// All actors have ended, and no daemon has anything to do.
  bool finishing() const noexcept { return finishing_; }

  /// Runs the actors to their end. Returns what went wrong, or nothing; the explorer must then not be destroyed.
  std::string perform() {
    finishing_ = ended_ = false;
    preemptions_ = steps_ = 0;
    trace_.clear();
    hand_to(choose(nullptr));
    std::unique_lock lock(mutex_);
    main_turn_.wait(lock, [this] { return ended_; });
    return failure_;
  }

  /// Forgets the actors. False when everything was explored.
  bool next() {
    for (auto& each : threads_)
      each->script = nullptr;
    size_ = 0;
    return choices_.next();
  }

  /// A place where others may go on, and where the caller goes on no sooner than `ready` holds.
  void point(const condition& ready = nullptr) {
    auto& self = *self_;
    self.ready = ready ? &ready : nullptr;
    pass_on(self);
    self.ready = nullptr;
  }

  /// One of several things that the environment may do.
  std::size_t pick(std::size_t options) { return choices_.pick(options); }

  /// Ends the exploration; the actors stay where they are.
  [[noreturn]] void fail(std::string message) {
    std::unique_lock lock(mutex_);
    failure_ = std::move(message);
    ended_ = true;
    main_turn_.notify_one();
    for (;;)
      self_->turn.wait(lock);
  }

  /// Who went on at each point.
  std::string trace() const {
    std::string text;
    for (std::size_t i = 0; i < trace_.size();) {
      std::size_t same = i;
      while (same < trace_.size() && trace_[same] == trace_[i])
        ++same;
      text += (text.empty() ? "" : ", ") + trace_[i]->name + " " + std::to_string(same - i);
      i = same;
    }
    return text;
  }

 private:
  struct role {
    explorer* owner;
    std::string name;
    std::function<void()> script;  // null: not in this execution
    bool serves = false;
    bool done = false;
    const condition* ready = nullptr;
    std::condition_variable turn;
    std::thread thread;
  };

  static constexpr std::size_t most_steps = 10'000;

  void cast(std::string name, std::function<void()> script, bool serves) {
    if (size_ == threads_.size()) {
      threads_.push_back(std::make_unique<role>());
      auto& fresh = *threads_.back();
      fresh.owner = this;
      fresh.thread = std::thread([this, &fresh] { live(fresh); });
    }
    auto& chosen = *threads_[size_++];
    chosen.name = std::move(name);
    chosen.script = std::move(script);
    chosen.serves = serves;
    chosen.done = false;
  }

  void live(role& self) {
    self_ = &self;
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        self.turn.wait(lock, [&] { return running_ == &self; });
      }
      if (!self.script) return;
      self.script();
      self.done = true;
      pass_on(self);
    }
  }

  void hand_to(role* next) {
    std::lock_guard lock(mutex_);
    running_ = next;
    next->turn.notify_one();
  }

  void pass_on(role& self) {
    auto* next = choose(&self);
    if (next == &self) return;
    std::unique_lock lock(mutex_);
    running_ = next;
    if (next) {
      next->turn.notify_one();
    } else {
      ended_ = true;
      main_turn_.notify_one();
    }
    if (!self.done) self.turn.wait(lock, [&] { return running_ == &self; });
  }

  bool can_go_on(const role& one) const { return !one.done && (!one.ready || (*one.ready)()); }

  /// Who goes on after `self` (null: at the beginning). Null when everybody has ended.
  role* choose(role* self) {
    if (++steps_ > most_steps) fail("it does not come to an end");
    const bool preempted = self && can_go_on(*self);
    if (preempted && preemptions_ == most_preemptions_) return trace_.emplace_back(self);
    able_.clear();
    if (preempted) able_.push_back(self);  // first: the first execution of all has no preemptions
    for (std::size_t i = 0; i < size_; ++i)
      if (threads_[i].get() != self && can_go_on(*threads_[i])) able_.push_back(threads_[i].get());
    if (able_.empty()) return nobody(self);
    auto* chosen = able_[choices_.pick(able_.size())];
    if (preempted && chosen != self) ++preemptions_;
    return trace_.emplace_back(chosen);
  }

  role* nobody(role* self) {
    std::string waiting;
    bool all_done = true;
    for (std::size_t i = 0; i < size_; ++i) {
      all_done = all_done && threads_[i]->done;
      if (!threads_[i]->done && (finishing_ || !threads_[i]->serves)) waiting += " " + threads_[i]->name;
    }
    if (all_done) return nullptr;
    if (!waiting.empty()) fail("waits for ever:" + waiting);
    finishing_ = true;
    return choose(self);
  }

  static inline thread_local role* self_ = nullptr;

  const std::size_t most_preemptions_;
  choices choices_;
  std::vector<std::unique_ptr<role>> threads_;
  std::size_t size_ = 0;  // how many of them are in this execution
  std::size_t preemptions_ = 0;
  std::size_t steps_ = 0;
  std::vector<role*> trace_;
  std::vector<role*> able_;
  bool finishing_ = false;

  std::mutex mutex_;  // hands over everything above, too
  std::condition_variable main_turn_;
  role* running_ = nullptr;
  bool ended_ = false;
  std::string failure_;
};

/// Lets others go on, if the caller is an actor.
inline void point() {
  if (auto* explorer = explorer::current()) explorer->point();
}

/// Waits, as an actor.
inline void await(const condition& ready) {
  explorer::current()->point(ready);
}

/// States what has to hold. For actors, and for what is checked after them.
inline void ensure(bool holds, const char* message) {
  if (holds) return;
  if (auto* explorer = explorer::current()) explorer->fail(message);
  throw std::logic_error(message);
}

/// Runs a scenario under every schedule. `set_up(explorer&)` adds the actors, and returns what checks the end. The
/// environment's ROSTER_MORE_PREEMPTIONS is added to `preemptions`.
template <typename SetUp>
void explore(const std::string& name, std::size_t preemptions, SetUp set_up) {
  if (const char* more = std::getenv("ROSTER_MORE_PREEMPTIONS"); more && preemptions != unbounded)
    preemptions += std::strtoull(more, nullptr, 10);
  auto* schedules = new explorer(preemptions);  // never destroyed after a failure: its actors do not end
  std::size_t executions = 0;
  do {
    const std::function<void()> check = set_up(*schedules);
    auto failure = schedules->perform();
    ++executions;
    if (failure.empty()) {
      try {
        check();
      } catch (const std::exception& e) {
        failure = e.what();
      }
    }
    if (!failure.empty()) FAIL(name << ": " << failure << ", in execution " << executions << ": " << schedules->trace());
  } while (schedules->next());
  delete schedules;
  std::cout << name << ": " << executions << " executions, ";
  preemptions == unbounded ? std::cout << "all there are\n" : std::cout << "at most " << preemptions << " preemptions each\n";
  REQUIRE(executions > 1);
}

}  // namespace test::model
