#pragma once

#include <roster/error.hpp>
#include <roster/version.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

class load_wait;

/// Something that can be loaded. Everything but the label belongs to the graph.
struct load_node {
  explicit load_node(std::string text) : label(std::move(text)) {}
  load_node(const load_node&) = delete;
  load_node& operator=(const load_node&) = delete;

  const std::string label;  ///< for messages: capability and key

  load_wait* waits = nullptr;  ///< what it waits for: the first in a list
  std::size_t awaited = 0;     ///< how many wait for it
  std::int64_t rank = 0;       ///< less than that of all it waits for

  // Of one search.
  std::size_t search = 0;         // the last one that reached it
  std::size_t arrivals = 0;       // how many waits reached it
  load_node* found_by = nullptr;  // the node that reached it first
  load_node* next = nullptr;      // the node found after it
};

/// `from`, while it loads, waits for `to`. Lives in the waiting coroutine's frame. A wait that would close a circle is refused.
class load_wait {
 public:
  load_wait(load_node& from, load_node& to);
  load_wait(const load_wait&) = delete;
  load_wait& operator=(const load_wait&) = delete;
  ~load_wait();

 private:
  friend class load_graph;
  load_node& from_;
  load_node& to_;
  load_wait* previous_ = nullptr;
  load_wait* next_ = nullptr;
};

/// Which load waits for which, in the whole process.
///
/// A waiting node ranks below what it waits for. A new wait that fits this order closes no circle, and takes constant time; so
/// does one to a node that waits for nothing, or from a node without any wait, since those can be ranked freely. For any other,
/// everything that its end waits for, directly or not, is searched and then raised: that happens when separate chains of loads
/// meet, and when a circle closes.
class load_graph {
 public:
  /// The one of this process.
  static load_graph& instance() noexcept {
    static load_graph graph;
    return graph;
  }

  /// Adds a wait, or says what circle it would close.
  std::optional<std::string> add(load_wait& wait) {
    auto& from = wait.from_;
    auto& to = wait.to_;
    std::lock_guard lock(mutex_);  // short: see above
    if (&from == &to) return circle(from, to);
    if (!from.waits && from.awaited == 0)
      from.rank = to.rank - 1;
    else if (!to.waits)
      to.rank = (std::max)(to.rank, from.rank + 1);
    else if (from.rank >= to.rank) {
      if (reaches(to, from)) return circle(from, to);  // fault b39: drop: a circle of loads is not seen
      raise(to, from.rank + 1);
    }
    wait.next_ = std::exchange(from.waits, &wait);
    if (wait.next_) wait.next_->previous_ = &wait;
    ++to.awaited;
    return std::nullopt;
  }

  void remove(load_wait& wait) noexcept {
    std::lock_guard lock(mutex_);  // short:
    (wait.previous_ ? wait.previous_->next_ : wait.from_.waits) = wait.next_;
    if (wait.next_) wait.next_->previous_ = wait.previous_;
    --wait.to_.awaited;
  }

  /// How many waits were followed so far.
  std::size_t followed() noexcept {
    std::lock_guard lock(mutex_);  // short:
    return followed_;
  }

 private:
  /// Whether `start` waits for `end`, directly or not. If not, what was found is all that `start` waits for.
  bool reaches(load_node& start, const load_node& end) noexcept {
    start.search = ++search_;
    start.next = nullptr;
    auto* last = &start;
    for (auto* node = &start; node; node = node->next)
      for (auto* wait = node->waits; wait; wait = wait->next_) {
        ++followed_;
        auto& found = wait->to_;
        if (std::exchange(found.search, search_) != search_) {
          found.arrivals = 0;
          found.found_by = node;
          last = append(last, found);
        }
        ++found.arrivals;
        if (&found == &end) return true;
      }
    return false;
  }

  /// Raises what the search found from `start`: each node after all that wait for it.
  void raise(load_node& start, std::int64_t rank) noexcept {
    start.rank = rank;
    start.next = nullptr;
    auto* last = &start;
    for (auto* node = &start; node; node = node->next)
      for (auto* wait = node->waits; wait; wait = wait->next_) {
        auto& raised = wait->to_;
        raised.rank = (std::max)(raised.rank, node->rank + 1);
        if (--raised.arrivals == 0) last = append(last, raised);
      }
  }

  static load_node* append(load_node* last, load_node& node) noexcept {
    node.next = nullptr;
    return last->next = &node;
  }

  /// The circle that the search found: of a long one, its ends.
  static std::string circle(const load_node& from, const load_node& to) {
    auto text = "loading " + from.label + " needs " + to.label + ", which waits for it";
    if (&from == &to || from.found_by == &to) return text;
    std::size_t count = 0;
    for (auto* node = from.found_by; node != &to; node = node->found_by)
      ++count;
    constexpr std::size_t shown = 3;
    std::string through;
    auto* node = from.found_by;
    for (auto left = count; left > 0; --left, node = node->found_by) {
      if (left <= shown || left > count - (std::min)(count, shown))
        through.insert(0, ", " + node->label);
      else if (left == shown + 1)
        through.insert(0, fmt::format(", ... {} more ...", count - 2 * shown));
    }
    return text + " through" + through.substr(1);
  }

  std::mutex mutex_;
  std::size_t search_ = 0;
  std::size_t followed_ = 0;
};

inline load_wait::load_wait(load_node& from, load_node& to) : from_(from), to_(to) {
  if (const auto circle = load_graph::instance().add(*this)) throw error(errc::load_cycle, *circle);
}

inline load_wait::~load_wait() {
  load_graph::instance().remove(*this);
}

}  // namespace detail

ROSTER_END_NAMESPACE
