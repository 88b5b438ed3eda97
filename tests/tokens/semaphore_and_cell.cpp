#include "tests/tokens/every_token.hpp"

#include <roster/sync/once_cell.hpp>
#include <roster/sync/semaphore.hpp>

#include "tests/support/catch.hpp"

#include <boost/asio/io_context.hpp>

#include <utility>

namespace asio = boost::asio;
using test::check_every_token;

TEST_CASE("the semaphore takes every completion token", "[semaphore][tokens]") {
  asio::io_context loop;
  roster::async_semaphore permits{loop, 2};
  check_every_token(loop, [&]<typename Token>(Token&& token) { return permits.async_acquire(std::forward<Token>(token)); });
  CHECK(permits.available() == 2);
}

TEST_CASE("the once-cell takes every completion token", "[cell][tokens]") {
  asio::io_context loop;
  roster::async_once_cell<int> cell{loop};
  const auto make_seven = []() -> asio::awaitable<int> { co_return 7; };
  check_every_token(
      loop, [&]<typename Token>(Token&& token) { return cell.async_get_or_init(make_seven, std::forward<Token>(token)); });
}
