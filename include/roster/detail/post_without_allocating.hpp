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

/// Storage for one posted operation, so that posting to an `io_context` does not allocate: Asio's operation for a function of
/// four pointers and an allocator fits, which is checked at run time.
struct completion_storage {
  alignas(std::max_align_t) std::byte bytes[12 * sizeof(void*)];
};

/// Allocates from that storage, or from the heap if too much is asked for. The operation owns the node that contains the
/// storage, and moves that ownership out before it deallocates, so the storage outlives the operation.
template <typename T>
class storage_allocator {
 public:
  using value_type = T;

  explicit storage_allocator(completion_storage& storage) noexcept : storage_(&storage) {}
  template <typename U>
  storage_allocator(const storage_allocator<U>& other) noexcept : storage_(other.storage_) {}

  T* allocate(std::size_t count) {
    if (fits(count)) return reinterpret_cast<T*>(storage_->bytes);
    return std::allocator<T>().allocate(count);
  }

  void deallocate(T* memory, std::size_t count) noexcept {
    if (!fits(count)) std::allocator<T>().deallocate(memory, count);
  }

  template <typename U>
  bool operator==(const storage_allocator<U>& other) const noexcept {
    return storage_ == other.storage_;
  }

 private:
  template <typename>
  friend class storage_allocator;

  static bool fits(std::size_t count) noexcept {
    return count * sizeof(T) <= sizeof(completion_storage) && alignof(T) <= alignof(completion_storage);
  }

  completion_storage* storage_;
};

/// The `io_context` whose own executor this is, else null. Needed because `any_io_executor` drops the allocator property.
inline asio::io_context* as_io_context(const asio::any_io_executor& executor) noexcept {
  const auto* bare = executor.target<asio::io_context::executor_type>();
  return bare ? &asio::query(*bare, asio::execution::context) : nullptr;
}
inline asio::io_context* as_io_context(const asio::io_context::executor_type& executor) noexcept {
  return &asio::query(executor, asio::execution::context);
}
template <typename Executor>
asio::io_context* as_io_context(const Executor&) noexcept {
  return nullptr;
}

/// Posts a function to an `io_context`, in the given storage.
template <typename LoopExecutor, typename Function>
void post_in(completion_storage& storage, const LoopExecutor& executor, Function function) {
  const auto never_inline = asio::require(executor, asio::execution::blocking.never);
  // fault b3: `never_inline` -> `asio::require(never_inline, asio::execution::blocking.possibly)`:
  //   a waiter is resumed inside the release
  asio::require(never_inline, asio::execution::allocator(storage_allocator<std::byte>(storage))).execute(std::move(function));
}

}  // namespace detail

ROSTER_END_NAMESPACE
