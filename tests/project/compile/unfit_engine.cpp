#include <roster/capability/text_embedding.hpp>
#include <roster/serving/pinned.hpp>

struct engine {
#ifdef ROSTER_TEST_RIGHT
  void run(std::span<const std::string>, const roster::text_embed_options&, roster::embeddings&, roster::run_context&) {}
#else
  void run(std::span<const std::string>, roster::embeddings&) {}
#endif
};

roster::model_loader<roster::text_embedding> f() {
  return roster::pinned([] { return engine(); }).loader<roster::text_embedding>();
}
