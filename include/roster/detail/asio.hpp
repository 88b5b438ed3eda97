#pragma once

// What differs between Boost versions, and what every other header takes from Asio.

#include <roster/error.hpp>
#include <roster/version.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_allocator.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/version.hpp>
#if BOOST_ASIO_VERSION >= 102700
#include <boost/asio/associated_immediate_executor.hpp>
#endif

#include <concepts>
#include <exception>
#include <type_traits>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace asio = boost::asio;

namespace detail {

template <typename T>
concept execution_context_like = std::derived_from<T, asio::execution_context>;

/// The context an executor belongs to.
inline asio::execution_context& context_of(const asio::any_io_executor& executor) {
  return asio::query(executor, asio::execution::context);
}

/// An `error` for an `errc`.
inline std::exception_ptr make_exception(error_code code) {
  if (code.category() == error_category()) return std::make_exception_ptr(error(static_cast<errc>(code.value())));
  return std::make_exception_ptr(boost::system::system_error(code));
}

/// g++ before 13 destroys a temporary closure inside a `co_await` expression twice (GCC bug 99576 and relatives).
template <typename F>
inline constexpr bool safe_in_co_await =
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
    std::is_lvalue_reference_v<F> || std::is_trivially_destructible_v<F>;
#else
    true;
#endif

}  // namespace detail

ROSTER_END_NAMESPACE

/// Refuses, where the compiler would miscompile it, a temporary callable that owns something (template argument `F`).
#define ROSTER_CHECK_CALLABLE(F)                                                                \
  static_assert(::roster::detail::safe_in_co_await<F>,                                          \
                "g++ 12 miscompiles temporary closures with captures in co_await expressions: " \
                "name the callable first and pass it as an lvalue, or pass a captureless callable plus arguments")
