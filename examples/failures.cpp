// What happens when a queue is full, a client leaves, a load fails, time is up, a model is removed, a pool is stopped.

#include <roster/roster.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>

#include <fmt/format.h>

#include <chrono>
#include <stdexcept>
#include <thread>

namespace asio = boost::asio;

// Never finishes by itself, but does what a long call should: looks whether it is still wanted.
class endless_encoder {
 public:
  void run(std::span<const std::string>, const roster::text_embed_options&, roster::embeddings&, roster::run_context& context) {
    for (;;) {
      context.throw_if_stop_requested();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
};

endless_encoder load_from_nowhere() {
  throw std::runtime_error("no such file");
}

// Awaits an operation that has to fail with this error.
template <typename T>
asio::awaitable<void> fails(asio::awaitable<T> operation, roster::errc expected) {
  try {
    (void)co_await std::move(operation);
  } catch (const boost::system::system_error& failure) {
    if (failure.code() != expected) throw;
    fmt::print("{}\n", failure.what());
    co_return;
  }
  throw std::logic_error("that should have failed");
}

asio::awaitable<void> client(roster::lease<roster::text_embedding> encoder) {
  (void)co_await encoder->embed("a long text");
}

asio::awaitable<void> application(roster::blocking_pool& pool) {
  const auto executor = co_await asio::this_coro::executor;
  roster::registry<roster::text_embedding> encoders{executor};
  co_await encoders.add("broken", roster::pooled(pool, load_from_nowhere));
  co_await encoders.add("endless", roster::pooled(pool, [] { return endless_encoder(); }).queue_limit(0));

  auto encoder = co_await encoders.get("endless");
  asio::cancellation_signal hang_up;
  const auto left = [](const std::exception_ptr& failure) { fmt::print("client: {}\n", roster::message_of(failure)); };
  asio::co_spawn(executor, client(encoder), asio::bind_cancellation_slot(hang_up.slot(), left));
  while (pool.running() == 0)
    co_await asio::post(asio::use_awaitable);

  // [failures]
  // A full queue refuses at once: one call runs, and `queue_limit(0)` lets none wait.
  co_await fails(encoder->embed("one more"), roster::errc::queue_full);

  // A client leaves: it resumes now, with operation_aborted, and the engine is asked to stop.
  hang_up.emit(asio::cancellation_type::terminal);

  // A load fails: whoever waits for it gets a load_error with the cause, and the next `get` tries again.
  co_await fails(encoders.get("broken"), roster::errc::load_failed);
  co_await fails(encoders.get("resnet"), roster::errc::not_found);  // while this one was never added

  // Time is up: a call fails at that instant, whatever it waits for, and an engine that runs it is asked to stop.
  const auto soon = roster::text_embed_options().timeout(std::chrono::milliseconds(100));
  co_await fails(encoder->embed("a long text", soon), roster::errc::deadline_exceeded);

  // A model is removed: no lookup finds it any more, but leases still work.
  co_await encoders.remove("endless");

  // A pool is stopped: what is queued fails, what runs may end. That is awaited; nothing blocks.
  co_await pool.stop();
  co_await fails(encoder->embed("too late"), roster::errc::stopped);
  // [/failures]
}

int main() {
  asio::io_context loop;
  roster::blocking_pool pool{1};
  asio::co_spawn(loop, application(pool), [](std::exception_ptr failure) {
    if (failure) std::rethrow_exception(failure);
  });
  loop.run();
}
