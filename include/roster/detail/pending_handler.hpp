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

#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// A completion handler with its arguments, on its way home. Destroyed uncalled, it releases what the arguments own.
template <typename Handler, typename... Args>
class delivery {
 public:
  using allocator_type = asio::associated_allocator_t<Handler>;

  delivery(Handler&& handler, std::tuple<Args...> args) : handler_(std::move(handler)), args_(std::move(args)) {}

  allocator_type get_allocator() const noexcept { return asio::get_associated_allocator(handler_); }

  void operator()() {
    if (auto slot = asio::get_associated_cancellation_slot(handler_); slot.is_connected()) slot.clear();
    std::apply([this](Args&... args) { std::move(handler_)(std::move(args)...); }, args_);
  }

 private:
  Handler handler_;
  std::tuple<Args...> args_;
};

/// Where a handler is called. Throws `bad_executor` when that would be a context that is gone.
template <typename Handler>
auto home_of(const Handler& handler, const asio::any_io_executor& fallback) {
  auto executor = asio::get_associated_executor(handler, fallback);
  if constexpr (std::is_same_v<decltype(executor), asio::any_io_executor>)
    if (!executor) throw asio::execution::bad_executor();
  return executor;
}

/// The handler of a suspended operation, a member of the operation's node. It keeps work on the executor it will be called on,
/// through that executor itself: `executor_work_guard` has a second copy, which dies after the work has ended, when the context
/// may be gone.
///
/// The node travels home with its handler: it was most likely made there, of memory that is recycled there. The thread that
/// completes an operation whose home is an `io_context` allocates nothing.
template <typename Handler, typename... Args>
class pending_handler {
 public:
  using executor_type = asio::associated_executor_t<Handler, asio::any_io_executor>;

  pending_handler(Handler&& handler, const asio::any_io_executor& fallback)
      : pending_handler(std::move(handler), home_of(handler, fallback), 0) {}

  const Handler& handler() const noexcept { return handler_; }

  /// Calls the handler by posting it, with the node that it is a part of, to its executor: once, never inside this call. The
  /// node is let go of before the handler is called, whose memory it may be made of. A failed allocation terminates: there is
  /// nobody left to tell.
  template <typename Node>
  void post(std::shared_ptr<Node> node, Args... args) noexcept {
    args_.emplace(std::move(args)...);
    const auto home = std::move(home_);
    homecoming trip(std::shared_ptr<pending_handler>(std::move(node), this));
    if (home.loop)
      post_in(memory_, *home.loop, std::move(trip));
    else
      asio::post(*home.other, std::move(trip));
  }

  /// Posts `function`, which owns the node, to the handler's executor. Only one post may be under way. A failed allocation
  /// terminates.
  template <typename Function>
  void visit(Function function) noexcept {
    if (home_.loop)
      post_in(memory_, *home_.loop, std::move(function));
    else
      // fault b3: `asio::post` -> `asio::dispatch`: a waiter that does not live on a loop is resumed inside the release
      asio::post(*home_.other, asio::bind_allocator(asio::get_associated_allocator(handler_), std::move(function)));
  }

  /// As `post`, but calls the handler at once: from a visit.
  template <typename Node>
  void call(std::shared_ptr<Node> node, Args... args) {
    args_.emplace(std::move(args)...);
    { [[maybe_unused]] const auto home = std::move(home_); }
    homecoming(std::shared_ptr<pending_handler>(std::move(node), this))();
  }

  /// Destroys the handler, after the node that it is a part of: the handler may own its memory.
  template <typename Node>
  void drop(std::shared_ptr<Node> node) noexcept {
    // fault b5: first `node = nullptr; return;`: a handler is destroyed before the node that it may own, on its way to the lock
    [[maybe_unused]] const auto handler = std::move(handler_);
    node = nullptr;
  }

 private:
  using tracked_loop = decltype(asio::require(std::declval<const asio::io_context::executor_type&>(),
                                              asio::execution::outstanding_work.tracked));
  using tracked_executor =
      std::decay_t<decltype(asio::prefer(std::declval<const executor_type&>(), asio::execution::outstanding_work.tracked))>;
  struct tracked_home {
    std::optional<tracked_loop> loop;
    std::optional<tracked_executor> other;
  };

  pending_handler(Handler&& handler, const executor_type& home, int) : handler_(std::move(handler)) {
    if (auto* loop = loop_behind(home))
      home_.loop.emplace(asio::require(loop->get_executor(), asio::execution::outstanding_work.tracked));
    else
      home_.other.emplace(asio::prefer(home, asio::execution::outstanding_work.tracked));
  }

  /// A handler with its arguments, on its way home. Destroyed uncalled, it releases what the arguments own.
  class homecoming {
   public:
    using allocator_type = asio::associated_allocator_t<Handler>;

    explicit homecoming(std::shared_ptr<pending_handler> pending) noexcept : pending_(std::move(pending)) {}
    homecoming(homecoming&&) noexcept = default;
    homecoming& operator=(homecoming&&) = delete;
    ~homecoming() {
      if (!pending_) return;
      // The node may live on, if its work does. If not it goes first: the handler may own its memory.
      // fault b5: first `(void)take(std::move(pending_)); return;`:
      //   a handler is destroyed before the node that it may own, on its way home
      [[maybe_unused]] const auto taken = take(std::move(pending_));
    }

    allocator_type get_allocator() const noexcept { return asio::get_associated_allocator(pending_->handler_); }

    void operator()() {
      if (auto slot = asio::get_associated_cancellation_slot(pending_->handler_); slot.is_connected()) slot.clear();
      auto [handler, args] = take(std::move(pending_));
      std::apply([&called = handler](Args&... each) { std::move(called)(std::move(each)...); }, args);
    }

   private:
    static std::pair<Handler, std::tuple<Args...>> take(std::shared_ptr<pending_handler> pending) {
      return {std::move(pending->handler_), std::move(*pending->args_)};
    }

    std::shared_ptr<pending_handler> pending_;
  };

  Handler handler_;
  tracked_home home_;
  std::optional<std::tuple<Args...>> args_;
  homecoming_memory memory_;
};

/// Completes an operation that did not have to wait: by posting, or through the immediate executor the handler asks for.
template <typename Handler, typename... Args>
void complete_immediately(Handler&& handler, const asio::any_io_executor& fallback, std::tuple<Args...> args) {
  auto executor = home_of(handler, fallback);
#if BOOST_ASIO_VERSION >= 102700
  auto immediate = asio::get_associated_immediate_executor(handler, executor);
  asio::dispatch(immediate, delivery<std::decay_t<Handler>, Args...>(std::move(handler), std::move(args)));
#else
  asio::post(executor, delivery<std::decay_t<Handler>, Args...>(std::move(handler), std::move(args)));
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
/// What counts a node's references outlives it by the weak reference in the handler's cancellation slot, and with that whatever
/// a handler's allocator takes memory from, which the handler may own: it is in memory of its own.
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
  if (!slot.is_connected()) return;
  slot.assign(
      [weak_state = std::weak_ptr<State>(state), weak_node = std::weak_ptr<Waiter>(node)](asio::cancellation_type type) {
        if (type == asio::cancellation_type::none) return;
        auto live_state = weak_state.lock();
        auto live_node = weak_node.lock();
        if (live_state && live_node) live_state->cancel(std::move(live_node));
      });
}

}  // namespace detail

ROSTER_END_NAMESPACE
