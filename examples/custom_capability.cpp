// A capability of one's own: ranking documents by how well they answer a query. It is a tag, its value types and a model class;
// registries and placements take it as it is.

#include <roster/roster.hpp>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/this_coro.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <sstream>

namespace asio = boost::asio;

// [capability]
class rerank_options : public roster::call_options_for<rerank_options> {
 public:
  explicit rerank_options(std::string query) : query_(std::move(query)) {}
  const std::string& query() const { return query_; }

 private:
  std::string query_;
};

struct reranking {
  static constexpr std::string_view name = "reranking";
  using input = std::string;            // a document
  using options = rerank_options;       // the query
  using outputs = std::vector<double>;  // a score for each document
  class model;
};

class reranking::model : public roster::unary_model<reranking> {
 public:
  using unary_model::unary_model;

  /// The documents' indices, best first.
  [[nodiscard]] asio::awaitable<std::vector<std::size_t>> rank(std::string query, std::vector<std::string> documents) {
    return sort(call(std::move(documents), rerank_options(std::move(query))));
  }

 private:
  static asio::awaitable<std::vector<std::size_t>> sort(asio::awaitable<std::vector<double>> scoring) {
    const auto scores = co_await std::move(scoring);
    std::vector<std::size_t> order(scores.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::sort(order, {}, [&](std::size_t i) { return std::pair(-scores[i], i); });
    co_return order;
  }
};
// [/capability]

// An engine for it: BM25 (Robertson and Zaragoza, 2009) over the documents of the call, with k1 = 1.2 and b = 0.75.
class bm25 {
 public:
  void run(std::span<const std::string> documents, const rerank_options& options, std::vector<double>& scores,
           roster::run_context& context) {
    std::vector<std::map<std::string, double>> counts;
    double words = 0;
    for (const auto& document : documents) {
      context.throw_if_stop_requested();
      auto& count = counts.emplace_back();
      std::istringstream text(document);
      for (std::string word; text >> word; ++words)
        ++count[word];
    }
    const auto size = static_cast<double>(documents.size());
    scores.assign(documents.size(), 0.0);
    std::istringstream query(options.query());
    for (std::string word; query >> word;) {
      const auto holders = static_cast<double>(std::ranges::count_if(counts, [&](auto& c) { return c.contains(word); }));
      const auto weight = std::log(1 + (size - holders + 0.5) / (holders + 0.5));
      for (std::size_t i = 0; i < counts.size(); ++i) {
        const auto here = counts[i].contains(word) ? counts[i][word] : 0.0;
        double length = 0;
        for (const auto& entry : counts[i])
          length += entry.second;
        scores[i] += weight * here * 2.2 / (here + 1.2 * (0.25 + 0.75 * length * size / words));
      }
    }
  }
};
static_assert(roster::engine_for<bm25, reranking>);

asio::awaitable<void> application(roster::blocking_pool& pool) {
  roster::catalog<reranking, roster::text_embedding> models{co_await asio::this_coro::executor};
  co_await models.add<reranking>("bm25", roster::pooled(pool, [] { return bm25(); }));

  auto ranker = co_await models.get<reranking>("bm25");
  std::vector<std::string> documents;
  documents.push_back("a strand runs its handlers one after the other");
  documents.push_back("a mutex blocks the thread that waits for it");
  documents.push_back("the loop must never wait for a mutex");
  for (auto index : co_await ranker->rank("who waits for a mutex", documents))
    fmt::print("{}\n", documents[index]);
}

int main() {
  asio::io_context loop;
  roster::blocking_pool pool{1};
  asio::co_spawn(loop, application(pool), [](std::exception_ptr failure) {
    if (failure) std::rethrow_exception(failure);
  });
  loop.run();
}
