// Heap allocations per operation in the steady state, on all threads together: one line each, "<name> <allocations>".

#include "measurements/measure.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <atomic>
#include <memory>

namespace {

std::atomic<std::size_t> allocated{0};

}  // namespace

// In place of the C library's own: Asio allocates with aligned_alloc, which operator new does not see.
extern "C" {

void* __libc_malloc(std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);

void* malloc(std::size_t size) {
  allocated.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(size);
}

void* aligned_alloc(std::size_t alignment, std::size_t size) {
  allocated.fetch_add(1, std::memory_order_relaxed);
  return __libc_memalign(alignment, size);
}
}

namespace {

using namespace bench;

constexpr std::size_t operations = 20'000;

struct nothing {
  static constexpr std::string_view name = "nothing";
  struct model {};
};

/// Prints how many allocations there were since `before`, per operation. To four places: a queue that grows is not steady yet.
void print(std::string_view name, std::size_t before) {
  const auto count = static_cast<double>(allocated.load() - before);
  fmt::print("{} {:.4f}\n", name, count / static_cast<double>(operations));
}

asio::awaitable<void> get_often(roster::registry<nothing>& models, std::size_t times) {
  for (std::size_t i = 0; i < times; ++i) {
    const auto lease = co_await models.get("model-00000000001");
    keep(lease);
  }
}

asio::awaitable<void> run_often(roster::blocking_pool& pool, std::size_t times) {
  for (std::size_t i = 0; i < times; ++i)
    keep(co_await pool.run([](std::size_t value) { return value + 1; }, i));
}

/// An engine that is as far ahead of its reader as it can be, or one that waits for the reader each time.
roster::stream<std::size_t> produce(roster::worker_thread<int>& from, std::shared_ptr<std::atomic<std::size_t>> wanted) {
  return from.start_stream<std::size_t>(roster::call_options(),
                                        [wanted](int&, roster::sink<std::size_t>& out, roster::run_context&) {
                                          for (std::size_t i = 0;; ++i) {
                                            if (wanted)
                                              while (wanted->load() <= i)
                                                std::this_thread::yield();
                                            if (!out.push(i)) return;
                                          }
                                        });
}

asio::awaitable<void> read_often(roster::stream<std::size_t>& source, std::size_t times) {
  for (std::size_t i = 0; i < times; ++i)
    keep(co_await source.next());
}

/// Each chunk is made after the reader has begun to wait for it.
asio::awaitable<void> wait_often(roster::stream<std::size_t>& source, std::atomic<std::size_t>& wanted, std::size_t times) {
  const auto home = co_await asio::this_coro::executor;
  for (std::size_t i = 0; i < times; ++i) {
    asio::post(home, [&] { ++wanted; });
    keep(co_await source.next());
  }
}

asio::awaitable<void> application() {
  const auto home = co_await asio::this_coro::executor;
  {
    roster::registry<nothing> models{home};
    co_await models.add("model-00000000001", std::make_shared<nothing::model>());
    co_await get_often(models, 100);
    const auto before = allocated.load();
    co_await get_often(models, operations);
    print("get", before);
  }
  {
    roster::blocking_pool pool(1);
    co_await run_often(pool, 100);
    const auto before = allocated.load();
    co_await run_often(pool, operations);
    print("pool_run", before);
  }
  roster::worker_thread<int> worker{home, [] { return 0; }};
  {
    auto source = produce(worker, nullptr);
    co_await read_often(source, 100);
    const auto before = allocated.load();
    co_await read_often(source, operations);
    print("stream_engine_ahead", before);
  }
  {
    auto wanted = std::make_shared<std::atomic<std::size_t>>(0);
    auto source = produce(worker, wanted);
    co_await wait_often(source, *wanted, 100);
    const auto before = allocated.load();
    co_await wait_often(source, *wanted, operations);
    print("stream_reader_waits", before);
    source.cancel();
    *wanted = std::size_t(-1);
  }
}

}  // namespace

int main() {
  asio::io_context loop(1);
  asio::co_spawn(loop, application(), rethrow);
  loop.run();
}
