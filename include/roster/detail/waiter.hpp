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

/// Somebody who waits, in a queue of `Self`s, to be told `Told...`.
template <typename Self, typename... Told>
class waiter : public queue_node<Self> {
 public:
  using waiter_type = Self;
  using told_type = std::tuple<Told...>;

  waiter() = default;
  waiter(const waiter&) = delete;
  waiter& operator=(const waiter&) = delete;
  virtual ~waiter() = default;

  /// Posts the handler of a waiter, once. Gives up the reference before: the waiter may be made of memory that its handler's
  /// owner takes back.
  static void tell(std::shared_ptr<Self> self, Told... told) noexcept {
    auto& waiting = *self;
    waiting.complete(std::move(self), std::move(told)...);
  }

 private:
  virtual void complete(std::shared_ptr<Self> self, Told... told) noexcept = 0;
};

/// A `Waiter` with the handler that it is told through. What the handler takes is made of what the waiter is told.
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

/// Waits for a state with a node made of a handler and `args`; the handler's cancellation takes it out. Where there is an
/// `attempt(state, args...)`, which returns what the waiter would be told if it need not wait, that comes first.
template <typename Node, typename Handler, typename State, typename... Args>
void start_waiting(Handler&& handler, const asio::any_io_executor& fallback, std::shared_ptr<State> state, Args&&... args) {
  if constexpr (requires { Node::attempt(state, args...); })
    if (auto told = Node::attempt(state, args...))
      return complete_immediately(std::move(handler), fallback, Node::results_of(std::move(*told)));
  auto node = make_node<Node>(std::move(handler), fallback, std::forward<Args>(args)...);
  connect_cancellation<typename Node::waiter_type>(asio::get_associated_cancellation_slot(node->handler()), state, node);
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
