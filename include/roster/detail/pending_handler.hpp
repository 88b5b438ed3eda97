#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/post_without_allocating.hpp>

#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/execution/bad_executor.hpp>
#include <boost/asio/execution/outstanding_work.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/prefer.hpp>
#include <boost/asio/recycling_allocator.hpp>
#include <boost/asio/require.hpp>
#include <boost/asio/system_executor.hpp>

#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// A completion handler bound to its arguments. Destroyed uncalled, it releases what the arguments own.
template <typename Handler, typename... Args>
class bound_completion {
 public:
  using allocator_type = asio::associated_allocator_t<Handler>;

  bound_completion(Handler&& handler, std::tuple<Args...> args) : handler_(std::move(handler)), args_(std::move(args)) {}

  allocator_type get_allocator() const noexcept { return asio::get_associated_allocator(handler_); }

  void operator()() {
    if (auto slot = asio::get_associated_cancellation_slot(handler_); slot.is_connected()) slot.clear();
    std::apply([this](Args&... args) { std::move(handler_)(std::move(args)...); }, args_);
  }

 private:
  Handler handler_;
  std::tuple<Args...> args_;
};

/// The executor a handler is called on. Throws `bad_executor` if its context is gone.
template <typename Handler>
auto completion_executor(const Handler& handler, const asio::any_io_executor& fallback) {
  auto executor = asio::get_associated_executor(handler, fallback);
  if constexpr (std::is_same_v<decltype(executor), asio::any_io_executor>)
    if (!executor) throw asio::execution::bad_executor();
  return executor;
}

/// The handler of a suspended operation, a member of the operation's node. It keeps work on its executor through that executor
/// itself: `executor_work_guard` has a second copy, which is destroyed after the work has ended, when the context may be gone.
///
/// The node is posted together with its handler and freed where that runs, most likely the thread whose memory it recycles. The
/// thread that completes an operation of an `io_context` allocates nothing.
template <typename Handler, typename... Args>
class pending_handler {
 public:
  using executor_type = asio::associated_executor_t<Handler, asio::any_io_executor>;

  pending_handler(Handler&& handler, const asio::any_io_executor& fallback)
      : pending_handler(std::move(handler), completion_executor(handler, fallback), 0) {}

  const Handler& handler() const noexcept { return handler_; }

  /// The executor that it is called on, while it waits, without work on it; for executors that no `any_io_executor` can hold,
  /// the system's.
  asio::any_io_executor executor() const {
    if (target_.loop) return target_.loop->context().get_executor();
    if constexpr (std::is_convertible_v<executor_type, asio::any_io_executor>)
      return asio::prefer(*target_.other, asio::execution::outstanding_work.untracked);
    else
      return asio::system_executor();
  }

  /// Posts the handler, with the node that contains it, to its executor: once, never inside this call. The reference to
  /// the node is released before the handler is called, which may own the node's memory. A failed allocation terminates: nobody
  /// is left to report it to.
  template <typename Node>
  void post(std::shared_ptr<Node> node, Args... args) noexcept {
    args_.emplace(std::move(args)...);
    const auto target = std::move(target_);
    posted_completion completion(std::shared_ptr<pending_handler>(std::move(node), this));
    if (target.loop)
      post_in(storage_, *target.loop, std::move(completion));
    else
      asio::post(*target.other, std::move(completion));
  }

  /// Posts `function`, which owns the node, to the handler's executor; one post at a time. A failed allocation terminates.
  template <typename Function>
  void post_function(Function function) noexcept {
    if (target_.loop)
      post_in(storage_, *target_.loop, std::move(function));
    else
      // fault b3: `asio::post` -> `asio::dispatch`: a waiter that does not live on a loop is resumed inside the release
      asio::post(*target_.other, asio::bind_allocator(asio::get_associated_allocator(handler_), std::move(function)));
  }

  /// Like `post`, but calls the handler at once: from a function posted by `post_function`.
  template <typename Node>
  void complete_here(std::shared_ptr<Node> node, Args... args) {
    args_.emplace(std::move(args)...);
    { [[maybe_unused]] const auto target = std::move(target_); }
    posted_completion(std::shared_ptr<pending_handler>(std::move(node), this))();
  }

  /// Destroys the handler after the node that contains it: the handler may own the node's memory.
  template <typename Node>
  void destroy(std::shared_ptr<Node> node) noexcept {
    // fault b5: first `node = nullptr; return;`:
    //   a handler is destroyed before the node that it may own, in a function that was posted
    [[maybe_unused]] const auto handler = std::move(handler_);
    node = nullptr;
  }

 private:
  using tracked_loop = decltype(asio::require(std::declval<const asio::io_context::executor_type&>(),
                                              asio::execution::outstanding_work.tracked));
  using tracked_executor =
      std::decay_t<decltype(asio::prefer(std::declval<const executor_type&>(), asio::execution::outstanding_work.tracked))>;
  struct tracked_target {
    std::optional<tracked_loop> loop;
    std::optional<tracked_executor> other;
  };

  pending_handler(Handler&& handler, const executor_type& executor, int) : handler_(std::move(handler)) {
    if (auto* loop = as_io_context(executor))
      target_.loop.emplace(asio::require(loop->get_executor(), asio::execution::outstanding_work.tracked));
    else
      target_.other.emplace(asio::prefer(executor, asio::execution::outstanding_work.tracked));
  }

  /// The posted handler with its arguments. Destroyed uncalled, it releases what the arguments own.
  class posted_completion {
   public:
    using allocator_type = asio::associated_allocator_t<Handler>;

    explicit posted_completion(std::shared_ptr<pending_handler> pending) noexcept : pending_(std::move(pending)) {}
    posted_completion(posted_completion&&) noexcept = default;
    posted_completion& operator=(posted_completion&&) = delete;
    ~posted_completion() {
      if (!pending_) return;
      // The node may live on, if its work does. If not it is destroyed first: the handler may own its memory.
      // fault b5: first `(void)take(std::move(pending_)); return;`:
      //   a posted handler is destroyed before the node that it may own
      [[maybe_unused]] const auto taken = take(std::move(pending_));
    }

    allocator_type get_allocator() const noexcept { return asio::get_associated_allocator(pending_->handler_); }

    void operator()() {
      if (auto slot = asio::get_associated_cancellation_slot(pending_->handler_); slot.is_connected()) slot.clear();
      auto [handler, args] = take(std::move(pending_));
      std::apply([&called = handler](Args&... arg) { std::move(called)(std::move(arg)...); }, args);
    }

   private:
    static std::pair<Handler, std::tuple<Args...>> take(std::shared_ptr<pending_handler> pending) {
      return {std::move(pending->handler_), std::move(*pending->args_)};
    }

    std::shared_ptr<pending_handler> pending_;
  };

  Handler handler_;
  tracked_target target_;
  std::optional<std::tuple<Args...>> args_;
  completion_storage storage_;
};

/// Completes an operation that did not have to wait: by posting, or through the immediate executor the handler asks for.
template <typename Handler, typename... Args>
void complete_immediately(Handler&& handler, const asio::any_io_executor& fallback, std::tuple<Args...> args) {
  auto executor = completion_executor(handler, fallback);
#if BOOST_ASIO_VERSION >= 102700
  auto immediate = asio::get_associated_immediate_executor(handler, executor);
  asio::dispatch(immediate, bound_completion<std::decay_t<Handler>, Args...>(std::move(handler), std::move(args)));
#else
  asio::post(executor, bound_completion<std::decay_t<Handler>, Args...>(std::move(handler), std::move(args)));
#endif
}

/// Destroys a node and gives its memory back to the allocator of its handler.
template <typename Node, typename Allocator>
struct node_deleter {
  using traits = std::allocator_traits<typename std::allocator_traits<Allocator>::template rebind_alloc<Node>>;

  void operator()(Node* node) noexcept {
    const auto memory = std::pointer_traits<typename traits::pointer>::pointer_to(*node);
    traits::destroy(allocator, node);
    traits::deallocate(allocator, memory, 1);
  }

  typename traits::allocator_type allocator;
};

/// Makes the node of a suspended operation with the handler's allocator, or with recycled memory.
///
/// The node's control block has memory of its own: a weak reference in the handler's cancellation slot keeps it beyond the node
/// and the handler, which may own what its allocator takes memory from.
template <typename Node, typename Handler, typename... Args>
std::shared_ptr<Node> make_node(Handler&& handler, Args&&... args) {
  auto allocator = asio::get_associated_allocator(handler, asio::recycling_allocator<void>());
  using allocator_type = decltype(allocator);
  if constexpr (std::is_same_v<allocator_type, asio::recycling_allocator<void>>) {
    return std::allocate_shared<Node>(allocator, std::move(handler), std::forward<Args>(args)...);
  } else {
    using deleter = node_deleter<Node, allocator_type>;
    typename deleter::traits::allocator_type of_nodes(allocator);
    const auto memory = deleter::traits::allocate(of_nodes, 1);
    try {
      deleter::traits::construct(of_nodes, std::to_address(memory), std::move(handler), std::forward<Args>(args)...);
    } catch (...) {
      deleter::traits::deallocate(of_nodes, memory, 1);
      throw;
    }
    return std::shared_ptr<Node>(std::to_address(memory), deleter{of_nodes}, asio::recycling_allocator<void>());
  }
}

/// Calls `state->cancel(node)` when the handler's cancellation slot is emitted, as long as both still exist.
/// `Waiter` is what the state knows the node as.
template <typename Waiter, typename State, typename Node>
void connect_cancellation(asio::cancellation_slot slot, const std::shared_ptr<State>& state,
                          const std::shared_ptr<Node>& node) {
  // fault b1: always: a waiter does not hear of its cancellation
  if (!slot.is_connected()) return;
  slot.assign(
      [weak_state = std::weak_ptr<State>(state), weak_node = std::weak_ptr<Waiter>(node)](asio::cancellation_type type) {
        // fault b6: never: a cancellation of no type cancels
        if (type == asio::cancellation_type::none) return;
        auto live_state = weak_state.lock();
        auto live_node = weak_node.lock();
        if (live_state && live_node) live_state->cancel(std::move(live_node));
      });
}

}  // namespace detail

ROSTER_END_NAMESPACE
