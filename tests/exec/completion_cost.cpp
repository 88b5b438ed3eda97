// What completing an operation must not do: allocate memory on the thread that completes it.

#include <roster/exec/blocking_pool.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"

#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_executor.hpp>

#include <cstddef>
#include <exception>
#include <memory>

namespace asio = boost::asio;

TEST_CASE("Completing a call on an io_context does not allocate") {
  asio::io_context loop;
  roster::blocking_pool pool(1);
  auto counts = std::make_shared<test::allocation_counts>();
  for (std::size_t i = 1; i <= 200; ++i) {
    std::size_t when_run = 0, when_called = 0;
    auto work = [&] { when_run = counts->total; };
    auto handler = [&](std::exception_ptr) { when_called = counts->total; };
    pool.async_run(work, asio::bind_allocator(test::counting_allocator<void>(counts),
                                              asio::bind_executor(loop.get_executor(), std::move(handler))));
    loop.run();
    loop.restart();
    REQUIRE(when_run == i);  // the operation itself
    REQUIRE(when_called == i);
  }
}
