#pragma once

#include <roster/error.hpp>
#include <roster/version.hpp>

#include <cstddef>
#include <mutex>
#include <string>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// Identity of something that can be loaded.
struct load_node {
  std::string label;  ///< for messages: capability and key
};

/// Which load waits for which, in the whole process. A wait that would close a circle is refused instead.
class load_graph {
 public:
  /// `from`, while it loads, waits for `to`. Lives in the waiting coroutine's frame.
  class wait {
   public:
    wait(const load_node& from, const load_node& to) : from_(&from), to_(&to) {
      if (!graph().add(*this))
        throw error(errc::load_cycle, "loading " + from.label + " needs " + to.label + ", which waits for it");
    }
    wait(const wait&) = delete;
    wait& operator=(const wait&) = delete;
    ~wait() { graph().remove(*this); }

   private:
    friend class load_graph;
    const load_node* from_;
    const load_node* to_;
    wait* next_ = nullptr;
    std::size_t seen_ = 0;  // the search that came here last
  };

 private:
  static load_graph& graph() noexcept {
    static load_graph instance;
    return instance;
  }

  bool add(wait& edge) noexcept {
    std::lock_guard lock(mutex_);  // short:
    ++search_;
    if (reaches(edge.to_, edge.from_)) return false;  // fault b39: drop: a circle of loads is not seen
    edge.next_ = std::exchange(first_, &edge);
    return true;
  }

  void remove(wait& edge) noexcept {
    std::lock_guard lock(mutex_);  // short:
    wait** link = &first_;
    while (*link && *link != &edge)
      link = &(*link)->next_;
    if (*link) *link = edge.next_;
  }

  // There are as many edges as loads that wait for loads: a handful. Each is followed once.
  bool reaches(const load_node* from, const load_node* to) noexcept {
    if (from == to) return true;
    for (wait* edge = first_; edge; edge = edge->next_)
      if (edge->from_ == from && std::exchange(edge->seen_, search_) != search_ && reaches(edge->to_, to)) return true;
    return false;
  }

  std::mutex mutex_;
  wait* first_ = nullptr;
  std::size_t search_ = 0;
};

}  // namespace detail

ROSTER_END_NAMESPACE
