// Finds, for each held-out scan of a handwritten digit, the nearest training scan, by embeddings that a neural network computes
// on a pool for many coroutines of one event loop. Then does the same work with the network called on the loop itself, to
// compare how long the loop is held up.
//
//     image_search [--rounds COUNT] [--output FILE.png] [--models FOLDER]

#include "support/arguments.hpp"
#include "support/contact_sheet.hpp"
#include "support/digits.hpp"
#include "support/heartbeat.hpp"
#include "support/nearest.hpp"
#include "support/run_all.hpp"

#include <roster/engines/opencv.hpp>
#include <roster/roster.hpp>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <fmt/format.h>
#include <opencv2/core/utility.hpp>

#include <chrono>
#include <string>
#include <thread>

namespace asio = boost::asio;
using asio::awaitable;

/// How scans become vectors: on the pool, or on the loop.
using embedder = std::function<awaitable<roster::embeddings>(std::vector<roster::image>)>;

struct measurement {
  roster::embeddings vectors;
  double per_second = 0;
  double worst_beat_ms = 0;
};

/// Embeds the training scans in batches, then every held-out scan by itself, `rounds` times, from 64 coroutines at once.
awaitable<measurement> embed_all(const digits& all, std::size_t rounds, const embedder& embed) {
  constexpr std::size_t at_once = 64, training = digits::training_count, batch = 61;
  const auto queries = all.scans.size() - training;
  const auto started = std::chrono::steady_clock::now();
  heartbeat beat(co_await asio::this_coro::executor);
  measurement result;
  result.vectors.resize(all.scans.size(), 64);

  const auto embed_range = [&](std::size_t first, std::size_t size) -> awaitable<void> {
    const auto begin = all.scans.begin() + static_cast<std::ptrdiff_t>(first);
    std::vector<roster::image> scans(begin, begin + static_cast<std::ptrdiff_t>(size));
    const auto rows = co_await embed(std::move(scans));
    std::ranges::copy(rows.values(), result.vectors[first].begin());
  };
  const std::function index = [&](std::size_t job) {
    return embed_range(job * batch, std::min(batch, training - job * batch));
  };
  co_await run_all((training + batch - 1) / batch, at_once, index);
  fmt::print("  {} training scans embedded\n", training);
  for (std::size_t quarter = 0; quarter < 4; ++quarter) {
    const std::size_t begin = queries * rounds * quarter / 4, end = queries * rounds * (quarter + 1) / 4;
    const std::function query = [&](std::size_t job) { return embed_range(training + (begin + job) % queries, 1); };
    co_await run_all(end - begin, at_once, query);
    fmt::print("  {} of {} queries\n", end, queries * rounds);
  }

  beat.stop();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
  result.per_second = static_cast<double>(training + queries * rounds) / seconds.count();
  result.worst_beat_ms = beat.worst_ms();
  co_return result;
}

/// Writes queries beside the scans found for them.
void write_pairs(const digits& all, const std::vector<std::size_t>& found, const std::string& file) {
  contact_sheet sheet(5);
  for (std::size_t row = 0; row < 8; ++row) {
    std::vector<contact_sheet::cell> cells;
    for (std::size_t i = row * 8; i < row * 8 + 8; ++i) {
      const auto query = digits::training_count + i;
      const bool right = all.labels[query] == all.labels[found[i]];
      cells.push_back({&all.scans[query], {80, 80, 80}});
      cells.push_back({&all.scans[found[i]], right ? contact_sheet::right : contact_sheet::wrong});
    }
    sheet.add_row(std::move(cells));
  }
  sheet.write(file);
  fmt::print("queries (grey) and the scans found for them: {}\n", file);
}

awaitable<void> application(roster::blocking_pool& pool, std::size_t threads, const arguments& given) {
  const auto folder = given.text("--models", ROSTER_EXAMPLE_MODELS);
  const auto rounds = given.count("--rounds", 20);
  const auto all = load_digits(folder);
  roster::registry<roster::image_embedding> encoders{co_await asio::this_coro::executor};
  // [named]
  const auto make_encoder = [folder] { return roster::opencv::image_encoder(folder + "/digit_encoder.onnx"); };
  const auto placement = roster::pooled(pool, make_encoder).instances(threads);
  co_await encoders.add("digits", placement);
  // [/named]

  fmt::print("on the pool: registry -> lease -> pooled model -> OpenCV, {} threads\n", threads);
  const embedder on_pool = [&](std::vector<roster::image> scans) -> awaitable<roster::embeddings> {
    const auto encoder = co_await encoders.get("digits");
    co_return co_await encoder->embed(std::move(scans));
  };
  const auto pooled = co_await embed_all(all, rounds, on_pool);

  fmt::print("on the loop: the same calls, blocking it\n");
  auto encoder = make_encoder();
  const embedder on_loop = [&](std::vector<roster::image> scans) -> awaitable<roster::embeddings> {
    co_await asio::post(asio::use_awaitable);  // as a request would arrive
    roster::embeddings vectors;
    roster::run_context context;
    encoder.run(scans, roster::embed_options(), vectors, context);
    co_return vectors;
  };
  const auto blocking = co_await embed_all(all, rounds, on_loop);

  fmt::print("\n{:24}{:>14}{:>26}\n", "", "embeddings/s", "worst heartbeat delay");
  fmt::print("{:24}{:>14.0f}{:>23.1f} ms\n", "roster", pooled.per_second, pooled.worst_beat_ms);
  fmt::print("{:24}{:>14.0f}{:>23.1f} ms\n\n", "blocking the loop", blocking.per_second, blocking.worst_beat_ms);

  const auto found = nearest_training_scans(all, [&](std::size_t i) { return pooled.vectors[i]; });
  const auto by_pixels = nearest_training_scans(all, [&](std::size_t i) { return all.scans[i].pixels(); });
  const auto raw = print_accuracy("raw pixels:", all, by_pixels);
  const auto embedded = print_accuracy("embedding:", all, found);

  write_pairs(all, found, given.text("--output", "image_search.png"));
  if (embedded < 98.5 || embedded < raw) throw std::runtime_error("the embeddings find fewer digits than they should");
}

int main(int argc, char** argv) try {
  cv::setNumThreads(1);  // the pool's threads are enough
  const arguments given(argc, argv, {"--rounds", "--output", "--models"});
  const auto threads = std::max(2U, std::thread::hardware_concurrency());
  asio::io_context loop;
  roster::blocking_pool pool{threads};
  asio::co_spawn(loop, application(pool, threads, given), [](std::exception_ptr failure) {
    if (failure) std::rethrow_exception(failure);
  });
  loop.run();
} catch (const std::exception& failure) {
  fmt::print(stderr, "image_search: {}\n", failure.what());
  return 1;
}
