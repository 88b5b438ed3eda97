#include "tests/tokens/every_token.hpp"

#include <roster/sync/shared_mutex.hpp>

#include "tests/support/catch.hpp"

#include <boost/asio/io_context.hpp>

#include <chrono>
#include <utility>

namespace asio = boost::asio;
using test::check_every_token;

TEST_CASE("the lock takes every completion token", "[lock][tokens]") {
  asio::io_context loop;
  roster::async_shared_mutex mutex{loop};
  check_every_token(loop, [&]<typename Token>(Token&& token) { return mutex.async_lock(std::forward<Token>(token)); });
  check_every_token(loop, [&]<typename Token>(Token&& token) { return mutex.async_lock_shared(std::forward<Token>(token)); });
  const auto seven = [] { return 7; };
  check_every_token(loop, [&]<typename Token>(Token&& token) { return mutex.async_run(seven, std::forward<Token>(token)); });
  check_every_token(loop,
                    [&]<typename Token>(Token&& token) { return mutex.async_run_shared([] {}, std::forward<Token>(token)); });
  CHECK(mutex.try_lock());
}

#if BOOST_ASIO_VERSION >= 103100
TEST_CASE("cancel_after ends the wait for a lock, and leaves nothing in its queue", "[lock][tokens]") {
  asio::io_context loop;
  roster::async_shared_mutex mutex{loop};
  auto holder = mutex.try_lock();
  boost::system::error_code outcome;
  mutex.async_lock(
      asio::cancel_after(std::chrono::milliseconds(1), [&](boost::system::error_code code, auto) { outcome = code; }));
  loop.run();
  CHECK(outcome == asio::error::operation_aborted);
  holder.reset();
  CHECK(mutex.try_lock());
}
#endif
