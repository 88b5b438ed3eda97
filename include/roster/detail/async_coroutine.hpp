#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/initiate.hpp>
#include <roster/detail/pending_handler.hpp>

#include <boost/asio/co_spawn.hpp>

#include <exception>
#include <type_traits>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

template <typename T>
struct coroutine_signature : std::type_identity<void(std::exception_ptr, T)> {};

template <>
struct coroutine_signature<void> : std::type_identity<void(std::exception_ptr)> {};

template <typename T>
asio::awaitable<T> start_by_post(asio::awaitable<T> body) {
  // Dependent on T, so that including this header instantiates nothing of Asio's coroutines.
  co_await asio::post(asio::use_awaitable_t<typename asio::awaitable<T>::executor_type>());
  co_return co_await std::move(body);
}

/// Starts a coroutine for any completion token, on the handler's associated executor, never inside the initiating call.
template <typename T, typename Token>
auto async_coroutine(asio::any_io_executor fallback, asio::awaitable<T> body, Token&& token) {
  return initiate<typename coroutine_signature<T>::type>(
      std::move(fallback), std::forward<Token>(token),
      []<typename Handler>(Handler handler, const asio::any_io_executor& default_executor, asio::awaitable<T> operation) {
        const asio::any_io_executor executor = completion_executor(handler, default_executor);
        asio::co_spawn(executor, start_by_post(std::move(operation)), std::move(handler));
      },
      std::move(body));
}

}  // namespace detail

ROSTER_END_NAMESPACE
