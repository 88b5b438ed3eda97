#pragma once

#include <roster/detail/asio.hpp>

#include <boost/asio/execution/allocator.hpp>
#include <boost/asio/execution/blocking.hpp>
#include <boost/asio/execution/context.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/query.hpp>
#include <boost/asio/require.hpp>

#include <cstddef>
#include <memory>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// Room for the operation that takes a handler home to an `io_context`, or a function to it, one at a time: what Asio makes of
/// four pointers and an allocator.
struct homecoming_memory {
  alignas(std::max_align_t) std::byte bytes[12 * sizeof(void*)];
};

/// Gives out that room, and memory from the heap should it be too small. The operation owns what the room is a part of, and has
/// moved that ownership out before it gives the room back.
template <typename T>
class homecoming_allocator {
 public:
  using value_type = T;

  explicit homecoming_allocator(homecoming_memory& memory) noexcept : memory_(&memory) {}
  template <typename U>
  homecoming_allocator(const homecoming_allocator<U>& other) noexcept : memory_(other.memory_) {}

  T* allocate(std::size_t count) {
    if (fits(count)) return reinterpret_cast<T*>(memory_->bytes);
    return std::allocator<T>().allocate(count);
  }

  void deallocate(T* memory, std::size_t count) noexcept {
    if (!fits(count)) std::allocator<T>().deallocate(memory, count);
  }

  template <typename U>
  bool operator==(const homecoming_allocator<U>& other) const noexcept {
    return memory_ == other.memory_;
  }

 private:
  template <typename>
  friend class homecoming_allocator;

  static bool fits(std::size_t count) noexcept {
    return count * sizeof(T) <= sizeof(homecoming_memory) && alignof(T) <= alignof(homecoming_memory);
  }

  homecoming_memory* memory_;
};

/// The loop behind an executor, if that is an `io_context`'s own: unlike what hides it, that one takes an allocator.
inline asio::io_context* loop_behind(const asio::any_io_executor& executor) noexcept {
  const auto* bare = executor.target<asio::io_context::executor_type>();
  return bare ? &asio::query(*bare, asio::execution::context) : nullptr;
}
inline asio::io_context* loop_behind(const asio::io_context::executor_type& executor) noexcept {
  return &asio::query(executor, asio::execution::context);
}
template <typename Executor>
asio::io_context* loop_behind(const Executor&) noexcept {
  return nullptr;
}

/// Posts a function to a loop in the memory that is there for it.
template <typename LoopExecutor, typename Function>
void post_in(homecoming_memory& memory, const LoopExecutor& executor, Function function) {
  const auto never_inline = asio::require(executor, asio::execution::blocking.never);
  // fault b3: `never_inline` -> `asio::require(never_inline, asio::execution::blocking.possibly)`:
  //   a waiter is resumed inside the release
  asio::require(never_inline, asio::execution::allocator(homecoming_allocator<std::byte>(memory))).execute(std::move(function));
}

}  // namespace detail

ROSTER_END_NAMESPACE
