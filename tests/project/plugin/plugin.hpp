#pragma once

#include <roster/roster.hpp>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>

#include <memory>

namespace asio = boost::asio;

/// What the plugin exports, by name.
struct plugin {
  using fail_type = void(boost::system::error_code& code);
  using throw_type = void();
  using wait_type = void(asio::io_context& context, std::shared_ptr<int> alive);
};

inline asio::awaitable<void> wait_for_ever(std::shared_ptr<roster::async_shared_mutex> mutex, std::shared_ptr<int>) {
  const auto held = co_await mutex->lock();
  const auto never = co_await mutex->lock();
}

/// Leaves a coroutine on the context that waits for a lock.
inline void leave_waiting(asio::io_context& context, std::shared_ptr<int> alive) {
  auto mutex = std::make_shared<roster::async_shared_mutex>(context);
  asio::co_spawn(context, wait_for_ever(std::move(mutex), std::move(alive)), asio::detached);
}
