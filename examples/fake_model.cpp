// A fake model, for tests of code that uses models: no engine, no thread, no file.

#include <roster/roster.hpp>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/this_coro.hpp>

#include <fmt/format.h>

#include <cstdlib>

namespace asio = boost::asio;

using encoders = roster::registry<roster::text_embedding>;

// What is to be tested: how far two texts are apart, -1 when the model is overloaded.
asio::awaitable<float> distance(encoders& models, std::string left, std::string right) {
  try {
    auto model = co_await models.get("sentences");
    const auto one = co_await model->embed(std::move(left));
    const auto other = co_await model->embed(std::move(right));
    co_return std::abs(one[0] - other[0]);
  } catch (const boost::system::system_error& failure) {
    if (failure.code() != roster::errc::queue_full) throw;
  }
  co_return -1;
}

// [fake]
// A text's vector is its length. Remembers what it was asked, and fails when it is told to.
class fake_encoder final : public roster::text_embedding::model {
 public:
  std::vector<std::string> asked;
  std::exception_ptr failure;

 private:
  asio::awaitable<roster::embeddings> run(std::vector<std::string> texts, roster::text_embed_options) override {
    asked.insert(asked.end(), texts.begin(), texts.end());
    if (failure) std::rethrow_exception(failure);
    roster::embeddings vectors(texts.size(), 1);
    for (std::size_t i = 0; i < texts.size(); ++i)
      vectors[i][0] = static_cast<float>(texts[i].size());
    co_return vectors;
  }
};
// [/fake]

void check(bool holds, std::string_view what) {
  fmt::print("{}: {}\n", holds ? "ok" : "FAILED", what);
  if (!holds) std::exit(1);
}

asio::awaitable<void> tests() {
  encoders models{co_await asio::this_coro::executor};
  const auto fake = std::make_shared<fake_encoder>();
  co_await models.add("sentences", fake);

  const auto apart = co_await distance(models, "a", "four");
  check(apart == 3, "the distance is that of the vectors");
  check(fake->asked.size() == 2 && fake->asked[1] == "four", "each text is embedded once");

  fake->failure = std::make_exception_ptr(roster::error(roster::errc::queue_full));
  const auto refused = co_await distance(models, "a", "four");
  check(refused == -1, "an overloaded model has no distance");
}

int main() {
  asio::io_context loop;
  asio::co_spawn(loop, tests(), [](std::exception_ptr failure) {
    if (failure) std::rethrow_exception(failure);
  });
  loop.run();
}
