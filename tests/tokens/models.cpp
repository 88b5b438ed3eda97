#include "tests/tokens/every_token.hpp"

#include <roster/registry/registry.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <boost/asio/io_context.hpp>

#include <utility>
#include <vector>

namespace asio = boost::asio;
using test::check_every_token;

TEST_CASE("A lookup takes every completion token") {
  asio::io_context loop;
  roster::registry<roster::image_embedding> models(loop);
  test::finish(loop, models.add("key", test::make_model(7)));
  check_every_token(loop, [&]<typename Token>(Token&& token) { return models.async_get("key", std::forward<Token>(token)); });
}

TEST_CASE("A model's call takes every completion token") {
  asio::io_context loop;
  const auto model = test::make_model(7);
  check_every_token(loop, [&]<typename Token>(Token&& token) {
    std::vector<roster::image> pictures(1, roster::image(1, 1));
    return model->async_call(std::move(pictures), roster::embed_options(), std::forward<Token>(token));
  });
}
