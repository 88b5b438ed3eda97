#include <roster/exec/blocking_pool.hpp>

#include <string>

boost::asio::awaitable<void> f(roster::blocking_pool& pool, std::string text) {
#ifdef ROSTER_TEST_RIGHT
  auto length = [text] { return text.size(); };
  co_await pool.run(length);
#else
  co_await pool.run([text] { return text.size(); });
#endif
}
