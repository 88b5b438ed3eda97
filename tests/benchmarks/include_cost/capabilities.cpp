// The bare program, and roster's registries of the first CAPABILITIES capabilities, each with a placed engine that is called.

#include "bare.cpp"

#if CAPABILITIES > 0
#include <roster/roster.hpp>

template <typename C>
struct zeros {
  std::size_t dimension() const { return 8; }
  void run(std::span<const typename C::input> inputs, const typename C::options&, roster::embeddings& out,
           roster::run_context&) {
    out.resize(inputs.size(), dimension());
  }
};

asio::awaitable<void> embed_image(roster::blocking_pool& pool) {
  roster::registry<roster::image_embedding> models{co_await asio::this_coro::executor};
  co_await models.add("zeros", roster::pooled(pool, [] { return zeros<roster::image_embedding>(); }));
  auto model = co_await models.get("zeros");
  (void)co_await model->embed(roster::image(64, 64));
}
#endif

#if CAPABILITIES > 1
asio::awaitable<void> embed_text(roster::blocking_pool& pool) {
  roster::registry<roster::text_embedding> models{co_await asio::this_coro::executor};
  co_await models.add("zeros", roster::pooled(pool, [] { return zeros<roster::text_embedding>(); }));
  auto model = co_await models.get("zeros");
  (void)co_await model->embed("zero");
}
#endif
