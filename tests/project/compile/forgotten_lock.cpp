#include <roster/sync/shared_mutex.hpp>

boost::asio::awaitable<void> f(roster::async_shared_mutex& mutex) {
#ifdef ROSTER_TEST_RIGHT
  auto guard = co_await mutex.lock();
#else
  mutex.lock();
  co_return;
#endif
}
