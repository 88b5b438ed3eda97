#include "tests/tokens/every_token.hpp"

#include <roster/sync/shared_mutex.hpp>

#include "tests/support/catch.hpp"

#include <boost/asio/io_context.hpp>

#include <utility>

namespace asio = boost::asio;
using test::check_every_token;

TEST_CASE("the lock takes every completion token", "[lock][tokens]") {
  asio::io_context loop;
  roster::async_shared_mutex mutex{loop};
  check_every_token(loop, [&]<typename Token>(Token&& token) { return mutex.async_lock(std::forward<Token>(token)); });
  check_every_token(loop, [&]<typename Token>(Token&& token) { return mutex.async_lock_shared(std::forward<Token>(token)); });
  CHECK(mutex.try_lock());
}
