#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <functional>
#include <utility>
#include <vector>

/// Runs jobs 0 .. count-1 on the calling coroutine's executor, which must not have several threads, `at_once` of them at a
/// time.
inline boost::asio::awaitable<void> run_all(std::size_t count, std::size_t at_once,
                                            std::function<boost::asio::awaitable<void>(std::size_t)> job) {
  namespace asio = boost::asio;
  if (count == 0) co_return;
  std::size_t next = 0;
  const auto worker = [&]() -> asio::awaitable<void> {
    while (next < count)
      co_await job(next++);
  };
  const auto executor = co_await asio::this_coro::executor;
  std::vector<decltype(asio::co_spawn(executor, worker, asio::deferred))> running;
  for (std::size_t i = 0; i < std::min(count, at_once); ++i)
    running.push_back(asio::co_spawn(executor, worker, asio::deferred));
  auto group = asio::experimental::make_parallel_group(std::move(running));
  const auto [order, failures] = co_await group.async_wait(asio::experimental::wait_for_all(), asio::use_awaitable);
  for (const auto& failure : failures)
    if (failure) std::rethrow_exception(failure);
}
