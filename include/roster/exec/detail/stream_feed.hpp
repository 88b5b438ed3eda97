#pragma once

#include <roster/detail/cancel_spawned.hpp>
#include <roster/detail/context_bound.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/strand.hpp>

#include <atomic>
#include <exception>
#include <memory>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// The call that feeds a stream, which a dropped stream cancels. It may still be waiting for its turn.
template <typename Chunk>
class stream_feed final : public context_bound {
 public:
  explicit stream_feed(const asio::any_io_executor& executor) : context_bound(executor), strand_(executor) {}

  void start(asio::awaitable<void> call) {
    // The handler keeps the signal until the coroutine's outermost frame has ended; no longer, because what co_spawn puts
    // into its slot holds the strand.
    auto signal = std::make_shared<asio::cancellation_signal>();
    signal_ = signal;
    const auto slot = signal->slot();
    auto keep_alive = [signal = std::move(signal)](const std::exception_ptr&) noexcept {};
    asio::co_spawn(*strand_, std::move(call), asio::bind_cancellation_slot(slot, std::move(keep_alive)));
  }

  void cancel() noexcept {
    if (closed_.load(std::memory_order_acquire)) return;
    asio::post(*strand_, [self = context_bound::shared(this), weak_signal = signal_] {
      if (auto signal = weak_signal.lock()) cancel_spawned(self->strand_, std::move(signal));
    });
  }

  void close() noexcept override {
    closed_.store(true, std::memory_order_release);
    strand_.reset();
  }

 private:
  std::optional<asio::strand<asio::any_io_executor>> strand_;  // must not outlive the context
  std::atomic<bool> closed_{false};
  std::weak_ptr<asio::cancellation_signal> signal_;
};

}  // namespace detail

ROSTER_END_NAMESPACE
