#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/initiate.hpp>
#include <roster/detail/pending_handler.hpp>
#include <roster/detail/shared_queue.hpp>

#include <memory>
#include <tuple>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// A waiter in a queue of `Self`s, completed with `Told...`.
template <typename Self, typename... Told>
class waiter : public queue_node<Self> {
 public:
  using waiter_type = Self;
  using told_type = std::tuple<Told...>;

  waiter() = default;
  waiter(const waiter&) = delete;
  waiter& operator=(const waiter&) = delete;
  virtual ~waiter() = default;

  /// Completes a waiter, once. The reference moves along and is released before the handler runs: the waiter's memory may come
  /// from the handler's allocator.
  static void tell(std::shared_ptr<Self> self, Told... told) noexcept {
    auto& waiting = *self;
    waiting.complete(std::move(self), std::move(told)...);
  }

 private:
  virtual void complete(std::shared_ptr<Self> self, Told... told) noexcept = 0;
};

/// A `Waiter` with its handler, whose arguments are constructed from what the waiter is completed with.
template <typename Waiter, typename Handler, typename Signature, typename Told = typename Waiter::told_type>
class pending_waiter;

template <typename Waiter, typename Handler, typename... Results, typename... Told>
class pending_waiter<Waiter, Handler, void(Results...), std::tuple<Told...>> : public Waiter {
 public:
  template <typename... Args>
  pending_waiter(Handler&& handler, const asio::any_io_executor& fallback, Args&&... args)
      : Waiter(std::forward<Args>(args)...), pending_(std::move(handler), fallback) {}

  const Handler& handler() const noexcept { return pending_.handler(); }

  static std::tuple<Results...> results_of(std::tuple<Told...> told) {
    return std::apply([](Told&... each) { return std::tuple<Results...>(Results(std::move(each))...); }, told);
  }

 protected:
  void complete(std::shared_ptr<typename Waiter::waiter_type> self, Told... told) noexcept override {
    pending_.post(std::move(self), Results(std::move(told))...);
  }

  pending_handler<Handler, Results...> pending_;
};

/// Enqueues a node made from the handler and `args` with a state, and connects the handler's cancellation. If it has a static
/// `attempt(state, args...)`, that is tried first: it returns the waiter's results if there is no need to wait. If it has a
/// static `prepare(node, state)`, that is called before it is enqueued, unless it has completed the node and returns false.
template <typename Node, typename Handler, typename State, typename... Args>
void start_waiting(Handler&& handler, const asio::any_io_executor& fallback, std::shared_ptr<State> state, Args&&... args) {
  // fault b3: first `if constexpr (requires { Node::attempt(state, args...); }) (void)Node::attempt(state, args...);`:
  //   what was got without waiting is forgotten
  if constexpr (requires { Node::attempt(state, args...); })
    if (auto told = Node::attempt(state, args...))
      return complete_immediately(std::move(handler), fallback, Node::results_of(std::move(*told)));
  auto node = make_node<Node>(std::move(handler), fallback, std::forward<Args>(args)...);
  connect_cancellation<typename Node::waiter_type>(asio::get_associated_cancellation_slot(node->handler()), state, node);
  if constexpr (requires { Node::prepare(node, state); })
    if (!Node::prepare(node, state)) return;
  state->enqueue(std::move(node));
}

/// Starts an operation that waits for a state, for any completion token. `Node<Handler>` is its waiter, made of `args`.
template <typename Signature, template <typename> typename Node, typename State, typename Token, typename... Args>
auto async_wait(asio::any_io_executor executor, std::shared_ptr<State> state, Token&& token, Args... args) {
  return initiate<Signature>(
      std::move(executor), std::forward<Token>(token),
      []<typename Handler>(Handler handler, const asio::any_io_executor& fallback, std::shared_ptr<State> target,
                           Args... node_args) {
        start_waiting<Node<Handler>>(std::move(handler), fallback, std::move(target), std::move(node_args)...);
      },
      std::move(state), std::move(args)...);
}

}  // namespace detail

ROSTER_END_NAMESPACE
