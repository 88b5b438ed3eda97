#include "tests/tokens/every_token.hpp"

#include <roster/exec/stream.hpp>
#include <roster/exec/worker_thread.hpp>

#include "tests/support/catch.hpp"

#include <boost/asio/io_context.hpp>

#include <utility>

namespace asio = boost::asio;
using test::check_every_token;

TEST_CASE("The worker takes every completion token") {
  asio::io_context loop;
  roster::worker_thread<int> worker(loop.get_executor(), [] { return 7; });
  const auto state = [](int& value) { return value; };
  check_every_token(loop, [&]<typename Token>(Token&& token) { return worker.async_run(state, std::forward<Token>(token)); });
}

TEST_CASE("The stream takes every completion token") {
  asio::io_context loop;
  roster::worker_thread<int> worker(loop.get_executor(), [] { return 7; });
  auto chunks = worker.start_stream<int>(roster::call_options(), [](int& value, auto& out, auto&) {
    while (out.push(value)) {
    }
  });
  check_every_token(loop, [&]<typename Token>(Token&& token) { return chunks.async_next(std::forward<Token>(token)); });
}
