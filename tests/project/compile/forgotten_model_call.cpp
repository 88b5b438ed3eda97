#include <roster/capability/image_embedding.hpp>

#include <utility>

boost::asio::awaitable<void> f(roster::image_embedding::model& model, roster::image image) {
#ifdef ROSTER_TEST_RIGHT
  auto vector = co_await model.embed(std::move(image));
#else
  model.embed(std::move(image));
  co_return;
#endif
}
