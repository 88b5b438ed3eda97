#include <roster/capability/text_embedding.hpp>
#include <roster/registry/registry.hpp>

boost::asio::awaitable<void> f(roster::registry<roster::text_embedding>& models) {
#ifdef ROSTER_TEST_RIGHT
  auto model = co_await models.get("key");
#else
  models.get("key");
  co_return;
#endif
}
