#pragma once

#include <roster/version.hpp>

#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

template <typename T, typename Before>
class pairing_heap;

/// Base of the elements of a `pairing_heap` of `T`s.
template <typename T>
class heap_node {
 private:
  template <typename, typename>
  friend class pairing_heap;

  T* first_child_ = nullptr;
  T* next_ = nullptr;
  T* previous_ = nullptr;  // the sibling before, or the parent of a first child
};

/// An intrusive heap, after Fredman, Sedgewick, Sleator and Tarjan, "The pairing heap" (1986): nothing allocates, `insert`
/// takes constant time, `erase`, of any element, logarithmic time amortised. Owns nothing.
template <typename T, typename Before>
class pairing_heap {
 public:
  bool empty() const noexcept { return !root_; }

  /// None is `Before` it.
  T& first() const noexcept { return *root_; }

  void insert(T& element) noexcept { root_ = root_ ? &meld(*root_, element) : &element; }

  /// Takes out an element that is in the heap.
  void erase(T& element) noexcept {
    if (&element == root_) {
      root_ = take_children(element);
      return;
    }
    auto& node = hook(element);
    if (hook(*node.previous_).first_child_ == &element)
      hook(*node.previous_).first_child_ = node.next_;
    else
      hook(*node.previous_).next_ = node.next_;
    if (node.next_) hook(*node.next_).previous_ = node.previous_;
    node.next_ = node.previous_ = nullptr;
    if (auto* children = take_children(element)) root_ = &meld(*root_, *children);
  }

 private:
  static heap_node<T>& hook(T& element) noexcept { return element; }

  /// One heap of two.
  static T& meld(T& left, T& right) noexcept {
    const bool swapped = Before()(right, left);
    auto& top = swapped ? right : left;
    auto& below = swapped ? left : right;
    auto& node = hook(below);
    node.next_ = std::exchange(hook(top).first_child_, &below);
    node.previous_ = &top;
    if (node.next_) hook(*node.next_).previous_ = &below;
    return top;
  }

  /// One heap of an element's children, in two passes: pairs from the left, then all pairs from the right.
  static T* take_children(T& element) noexcept {
    T* pairs = nullptr;  // linked by `next_`, the last pair first
    for (T* left = std::exchange(hook(element).first_child_, nullptr); left;) {
      T* right = detach(*left);
      T* rest = right ? detach(*right) : nullptr;
      T& pair = right ? meld(*left, *right) : *left;
      hook(pair).next_ = std::exchange(pairs, &pair);
      left = rest;
    }
    T* all = nullptr;
    while (pairs) {
      T* rest = detach(*pairs);
      all = all ? &meld(*all, *pairs) : pairs;
      pairs = rest;
    }
    return all;
  }

  /// Takes an element from its siblings and returns the next.
  static T* detach(T& element) noexcept {
    hook(element).previous_ = nullptr;
    return std::exchange(hook(element).next_, nullptr);
  }

  T* root_ = nullptr;
};

}  // namespace detail

ROSTER_END_NAMESPACE
