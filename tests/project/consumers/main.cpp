#include <roster/roster.hpp>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>

namespace asio = boost::asio;

asio::awaitable<int> locked_increment(roster::async_shared_mutex& mutex, int& value) {
  auto guard = co_await mutex.lock();
  co_return ++value;
}

int main() {
  asio::io_context context;
  roster::async_shared_mutex mutex{context};
  int value = 0;
  auto result = asio::co_spawn(context, locked_increment(mutex, value), asio::use_future);
  context.run();
  return result.get() == 1 ? 0 : 1;
}
