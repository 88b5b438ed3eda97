// There and back: work on another thread, and its result on the loop.

#include "measure.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/prefer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <condition_variable>
#include <mutex>
#include <span>

namespace bench {
namespace {

constexpr std::size_t pool_threads = 2;

int work(int value) {
  return value + 1;
}

asio::awaitable<void> call_pool(roster::blocking_pool& pool, std::size_t times) {
  int value = 0;
  for (std::size_t i = 0; i < times; ++i)
    value = co_await pool.run(work, value);
  keep(value);
}

/// Ours and the peer in the same way: so many callers on one loop, each with one call after another.
template <typename Pool>
double in_flight(std::size_t callers, asio::awaitable<void> (*call)(Pool&, std::size_t)) {
  const std::size_t times = 10'000 / callers;
  Pool pool(pool_threads);
  slices watch(times * callers);
  while (watch.next()) {
    asio::io_context loop(1);
    for (std::size_t i = 0; i < callers; ++i)
      asio::co_spawn(loop, call(pool, times), rethrow);
    loop.run();
  }
  return watch.result();
}

double pool_in_flight(std::size_t callers) {
  return in_flight(callers, call_pool);
}

asio::awaitable<int> there_and_back(asio::thread_pool& pool, int value) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void(int)>(
      []<typename Handler>(Handler handler, asio::thread_pool* target, int argument) {
        auto home = asio::prefer(asio::get_associated_executor(handler), asio::execution::outstanding_work.tracked);
        asio::post(*target, [handler = std::move(handler), home = std::move(home), argument]() mutable {
          const int result = work(argument);
          asio::post(home, [handler = std::move(handler), result]() mutable { std::move(handler)(result); });
        });
      },
      asio::use_awaitable, &pool, value);
}

asio::awaitable<void> call_asio(asio::thread_pool& pool, std::size_t times) {
  int value = 0;
  for (std::size_t i = 0; i < times; ++i)
    value = co_await there_and_back(pool, value);
  keep(value);
}

double asio_in_flight(std::size_t callers) {
  return in_flight(callers, call_asio);
}

asio::awaitable<double> pool_one_in_loop(std::size_t times) {
  roster::blocking_pool pool(1);
  slices watch(times);
  while (watch.next())
    co_await call_pool(pool, times);
  co_return watch.result();
}

double pool_one(std::size_t times) {
  return on_loop(pool_one_in_loop(times));
}

/// A pinned engine with nothing to do.
struct idle_engine {
  void run(std::span<const std::string> texts, const roster::text_embed_options&, roster::embeddings& out,
           roster::run_context&) {
    out.resize(texts.size(), 1);
  }
};

asio::awaitable<double> pinned_one_in_loop(std::size_t times) {
  const auto factory = [] { return idle_engine(); };
  roster::registry<roster::text_embedding> models{co_await asio::this_coro::executor};
  co_await models.add("idle", roster::pinned(factory));
  const auto model = co_await models.get("idle");
  slices watch(times);
  while (watch.next())
    for (std::size_t i = 0; i < times; ++i) {
      const auto vector = co_await model->embed(std::string("text"));
      keep(vector);
    }
  co_return watch.result();
}

double pinned_one(std::size_t times) {
  return on_loop(pinned_one_in_loop(times));
}

/// Two threads that wake each other: what going there and coming back costs without any library.
double ping_pong(std::size_t times) {
  std::mutex mutex;
  std::condition_variable ping, pong;
  bool there = false, done = false;
  std::thread other([&] {
    std::unique_lock lock(mutex);
    for (;;) {
      ping.wait(lock, [&] { return there || done; });
      if (done) return;
      there = false;
      lock.unlock();
      pong.notify_one();
      lock.lock();
    }
  });
  slices watch(times);
  while (watch.next())
    for (std::size_t i = 0; i < times; ++i) {
      std::unique_lock lock(mutex);
      there = true;
      lock.unlock();
      ping.notify_one();
      lock.lock();
      pong.wait(lock, [&] { return !there; });
    }
  {
    std::lock_guard lock(mutex);
    done = true;
  }
  ping.notify_one();
  other.join();
  return watch.result();
}

const measured measurements[] = {
    {"pool_in_flight", pool_in_flight, 64}, {"asio_in_flight", asio_in_flight, 64}, {"pool_one", pool_one, 500},
    {"pinned_one", pinned_one, 500},        {"ping_pong", ping_pong, 500},
};

}  // namespace
}  // namespace bench
