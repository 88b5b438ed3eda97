// Chunks from an engine's thread to the loop.

#include "measure.hpp"

#include <memory>

namespace bench {
namespace {

struct engine {};
using worker = roster::worker_thread<engine>;
using chunk = std::uint64_t;

roster::stream<chunk> produce(worker& from, std::size_t chunks) {
  return from.start_stream<chunk>(roster::call_options(), [chunks](engine&, roster::sink<chunk>& out, roster::run_context&) {
    for (std::size_t i = 0; i < chunks; ++i)
      if (!out.push(i)) return;
  });
}

asio::awaitable<void> consume(worker& from, std::size_t chunks) {
  auto source = produce(from, chunks);
  chunk sum = 0;
  while (const auto next = co_await source.next())
    sum += *next;
  keep(sum);
}

asio::awaitable<double> one_stream(std::size_t chunks) {
  worker from{co_await asio::this_coro::executor, [] { return engine(); }};
  slices watch(chunks);
  while (watch.next())
    co_await consume(from, chunks);
  co_return watch.result();
}

double stream_chunk(std::size_t chunks) {
  return on_loop(one_stream(chunks));
}

/// Many streams that are open at once, 16 chunks each, from one engine.
double streams(std::size_t count) {
  constexpr std::size_t chunks = 16;
  const std::size_t rounds = std::max<std::size_t>(1, 2'000 / count);
  asio::io_context loop(1);
  worker from(
      loop.get_executor(), [] { return engine(); }, roster::device(), count);
  slices watch(rounds * count * chunks, 5);
  while (watch.next())
    for (std::size_t round = 0; round < rounds; ++round) {
      loop.restart();
      for (std::size_t i = 0; i < count; ++i)
        asio::co_spawn(loop, consume(from, chunks), rethrow);
      loop.run();
    }
  return watch.result();
}

const measured measurements[] = {{"stream_chunk", stream_chunk, 50'000}, {"streams", streams, 1}};

}  // namespace
}  // namespace bench
