// How late a loop's heartbeat comes while models are loaded, used and replaced: milliseconds, the 99.9th percentile.

#include "measure.hpp"

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <atomic>
#include <csignal>
#include <memory>
#include <shared_mutex>
#include <span>
#include <unordered_map>

namespace bench {
namespace {

using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;

constexpr auto period = 1ms;
constexpr auto inference = 2ms;
constexpr auto loading = 200ms;
constexpr std::size_t pool_threads = 2;

void compute(clock::duration how_long) {
  const auto end = clock::now() + how_long;
  while (clock::now() < end) {
  }
}

/// Beats `beats` times and returns how late the beats were.
asio::awaitable<double> beat(std::size_t beats) {
  asio::steady_timer timer(co_await asio::this_coro::executor);
  std::vector<double> late;
  auto due = clock::now();
  for (std::size_t i = 0; i < beats; ++i) {
    due += period;
    timer.expires_at(due);
    co_await timer.async_wait(asio::use_awaitable);
    const auto now = clock::now();
    late.push_back(std::chrono::duration<double, std::milli>(now - due).count());
    if (now - due > period) due = now;
  }
  std::ranges::sort(late);
  co_return late[late.size() - 1 - late.size() / 1000];
}

asio::awaitable<void> pause(clock::duration how_long) {
  asio::steady_timer timer(co_await asio::this_coro::executor, how_long);
  co_await timer.async_wait(asio::use_awaitable);
}

double beat_on(asio::io_context& loop, std::size_t beats, std::atomic<bool>& done) {
  double result = 0;
  asio::co_spawn(loop, beat(beats), [&](const std::exception_ptr& failure, double value) {
    rethrow(failure);
    result = value;
    done = true;
  });
  loop.run();
  return result;
}

/// An engine that takes its time to be made and to run.
struct busy_engine {
  busy_engine() { compute(loading); }
  void run(std::span<const std::string> texts, const roster::text_embed_options&, roster::embeddings& out,
           roster::run_context&) {
    compute(inference);
    out.resize(texts.size(), 1);
  }
};

using registry = roster::registry<roster::text_embedding>;

asio::awaitable<void> embed(registry& models, const std::atomic<bool>& done) {
  while (!done) {
    const auto model = co_await models.get("model");
    const auto vector = co_await model->embed(std::string("text"));
    keep(vector);
  }
}

/// Loads a model, drops it, and again.
asio::awaitable<void> load(registry& models, roster::blocking_pool& pool, const std::atomic<bool>& done) {
  const auto factory = [] { return busy_engine(); };
  while (!done) {
    co_await models.add("slow", roster::pooled(pool, factory));
    co_await models.preload("slow");
    co_await models.remove("slow");
  }
}

asio::awaitable<void> write(registry& models, const std::string key, const std::atomic<bool>& done) {
  const auto factory = [] { return busy_engine(); };
  while (!done) {
    co_await models.add(key, roster::pinned(factory));
    co_await models.remove(key);
    co_await pause(500us);
  }
}

double heartbeat(std::size_t beats) {
  asio::io_context loop(1);
  roster::blocking_pool pool(pool_threads);
  registry models(loop);
  const auto factory = [] { return busy_engine(); };
  std::atomic<bool> done = false;
  const auto application = [&]() -> asio::awaitable<void> {
    co_await models.add("model", roster::pooled(pool, factory));
    co_await models.preload("model");
    for (std::size_t i = 0; i < 2 * pool_threads; ++i)
      asio::co_spawn(loop, embed(models, done), rethrow);
    asio::co_spawn(loop, load(models, pool, done), rethrow);
    for (const auto* key : {"first", "second"})
      asio::co_spawn(loop, write(models, key, done), rethrow);
  };
  asio::co_spawn(loop, application, rethrow);
  return beat_on(loop, beats, done);
}

/// As many busy threads as the pool has, in another process, until it is destroyed.
class other_process {
 public:
  other_process() : child_(fork()) {
    if (child_ != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    std::thread([] { compute(10min); }).detach();
    compute(10min);
    _exit(0);
  }
  other_process(const other_process&) = delete;
  other_process& operator=(const other_process&) = delete;
  ~other_process() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }

 private:
  pid_t child_;
};

double heartbeat_bare(std::size_t beats) {
  const other_process load;
  asio::io_context loop(1);
  std::atomic<bool> done = false;
  return beat_on(loop, beats, done);
}

/// The same work as it is often written: a mutex around the map, loading and inference where the request came in.
asio::awaitable<void> serve_blocking(std::shared_mutex& mutex, std::unordered_map<std::string, busy_engine>& models,
                                     const std::atomic<bool>& done) {
  for (int turn = 0; !done; ++turn) {
    if (turn % 100 == 0) {
      std::unique_lock lock(mutex);
      models.insert_or_assign("slow", busy_engine());
    } else {
      std::shared_lock lock(mutex);
      const std::string text = "text";
      roster::embeddings out;
      roster::run_context context;
      models.at("model").run(std::span(&text, 1), roster::text_embed_options(), out, context);
    }
    co_await pause(0ms);
  }
}

double heartbeat_blocking(std::size_t beats) {
  asio::io_context loop(1);
  std::shared_mutex mutex;
  std::unordered_map<std::string, busy_engine> models;
  models.try_emplace("model");
  std::atomic<bool> done = false;
  for (std::size_t i = 0; i < 2 * pool_threads; ++i)
    asio::co_spawn(loop, serve_blocking(mutex, models, done), rethrow);
  return beat_on(loop, beats, done);
}

const measured measurements[] = {
    {"heartbeat", heartbeat, 3'000},
    {"heartbeat_bare", heartbeat_bare, 3'000},
    {"heartbeat_blocking", heartbeat_blocking, 200},
};

}  // namespace
}  // namespace bench
