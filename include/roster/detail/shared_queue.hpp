#pragma once

#include <roster/version.hpp>

#include <cstddef>
#include <memory>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

template <typename T>
class shared_queue;

/// Base of the elements of a `shared_queue<T>`.
template <typename T>
class queue_node {
 public:
  /// Whether the element is in a queue that it can be erased from.
  bool queued() const noexcept { return queued_; }

 private:
  friend class shared_queue<T>;
  T* previous_ = nullptr;
  T* next_ = nullptr;
  std::shared_ptr<T> self_;
  bool queued_ = false;
};

/// An intrusive FIFO that shares ownership of its elements: no operation allocates, and any element can be erased.
template <typename T>
class shared_queue {
 public:
  shared_queue() = default;

  /// Takes all elements of `other`. None of them is `queued` any more, so that nobody erases one under the lock of the old
  /// queue while the new one is emptied outside that lock.
  shared_queue(shared_queue&& other) noexcept { take_all(other); }
  shared_queue& operator=(shared_queue&&) = delete;

  /// The same, for a queue that is empty.
  void take_all(shared_queue& other) noexcept {
    other.for_each([](T& element) { hook(element).queued_ = false; });
    first_ = std::exchange(other.first_, nullptr);
    last_ = std::exchange(other.last_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }

  ~shared_queue() {
    while (pop_front()) {
    }
  }

  bool empty() const noexcept { return first_ == nullptr; }
  std::size_t size() const noexcept { return size_; }
  T& front() const noexcept { return *first_; }
  std::shared_ptr<T> share(T& element) const noexcept { return hook(element).self_; }
  std::shared_ptr<T> share_front() const noexcept { return hook(*first_).self_; }

  template <typename Visitor>
  void for_each(Visitor visit) const noexcept {
    for (T* node = first_; node; node = hook(*node).next_)
      visit(*node);
  }

  void push_back(std::shared_ptr<T> element) noexcept {
    T* node = element.get();
    hook(*node).previous_ = last_;
    hook(*node).next_ = nullptr;
    (last_ ? hook(*last_).next_ : first_) = node;
    last_ = node;
    ++size_;
    hook(*node).queued_ = true;
    hook(*node).self_ = std::move(element);
  }

  std::shared_ptr<T> pop_front() noexcept { return first_ ? erase(*first_) : nullptr; }

  /// Takes a queued element out and returns it.
  std::shared_ptr<T> erase(T& element) noexcept {
    auto& node = hook(element);
    (node.previous_ ? hook(*node.previous_).next_ : first_) = node.next_;
    (node.next_ ? hook(*node.next_).previous_ : last_) = node.previous_;
    --size_;
    if (node.queued_) node.queued_ = false;  // not written twice: after take_all this runs outside the lock
    return std::move(node.self_);
  }

 private:
  static queue_node<T>& hook(T& element) noexcept { return element; }

  T* first_ = nullptr;
  T* last_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace detail

ROSTER_END_NAMESPACE
