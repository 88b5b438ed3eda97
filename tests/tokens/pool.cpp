#include "tests/tokens/every_token.hpp"

#include <roster/exec/blocking_pool.hpp>

#include "tests/support/catch.hpp"

#include <boost/asio/io_context.hpp>

#include <utility>

namespace asio = boost::asio;
using test::check_every_token;

TEST_CASE("The pool takes every completion token") {
  asio::io_context loop;
  roster::blocking_pool pool(1);
  const auto seven = [] { return 7; };
  const auto nothing = [] {};
  check_every_token(loop, [&]<typename Token>(Token&& token) { return pool.async_run(seven, std::forward<Token>(token)); });
  check_every_token(loop, [&]<typename Token>(Token&& token) { return pool.async_run(nothing, std::forward<Token>(token)); });
  check_every_token(loop, [&]<typename Token>(Token&& token) { return pool.async_stop(std::forward<Token>(token)); });
}
