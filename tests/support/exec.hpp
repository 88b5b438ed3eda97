#pragma once

// What tests of threads need: checkpoints, a pool that is kept busy, objects that log where they were destroyed.

#include <roster/exec/blocking_pool.hpp>

#include "tests/support/asio.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

namespace test {

/// Work waits here until it is let through. (libstdc++ 12's semaphores can sleep for ever.)
class checkpoint {
 public:
  /// Arrives, and waits until the checkpoint is open.
  void pass() {
    std::unique_lock lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }

  /// Arrives, and goes on.
  void arrive() {
    std::lock_guard lock(mutex_);
    ++arrived_;
    changed_.notify_all();
  }

  void open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

  /// Waits for arrivals.
  void await(int count = 1) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return arrived_ >= count; });
  }

  int arrived() {
    std::lock_guard lock(mutex_);
    return arrived_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int arrived_ = 0;
  bool open_ = false;
};

/// Occupies a thread of `pool` until `gate` is opened.
inline task<void> occupy(asio::io_context& loop, roster::blocking_pool& pool, checkpoint& gate) {
  auto blocker = spawn(loop, pool.run(&checkpoint::pass, &gate));
  drain(loop);
  gate.await();
  return blocker;
}

/// Runs handlers until `done()`, waiting for them as long as operations are under way.
template <typename Predicate>
void run_until(boost::asio::io_context& context, Predicate done) {
  while (!done()) {
    context.restart();
    if (context.run_one() == 0 && !done()) throw std::logic_error("the loop ran out of work");
  }
}

/// Move-only. Notes on which thread it is destroyed, unless it was moved from.
class destruction_logger {
 public:
  using log = std::vector<std::thread::id>;

  explicit destruction_logger(std::shared_ptr<log> destroyed) : log_(std::move(destroyed)) {}
  destruction_logger(destruction_logger&&) noexcept = default;
  destruction_logger& operator=(destruction_logger&&) = delete;
  ~destruction_logger() {
    if (log_) log_->push_back(std::this_thread::get_id());
  }

 private:
  std::shared_ptr<log> log_;
};

/// A loop on a thread of its own.
class loop_thread {
 public:
  loop_thread() : thread_([this] { context_.run(); }) {}
  loop_thread(const loop_thread&) = delete;
  loop_thread& operator=(const loop_thread&) = delete;
  ~loop_thread() { join(); }

  boost::asio::io_context& context() { return context_; }
  std::thread::id id() const { return thread_.get_id(); }

  /// Lets the loop end once it is out of work.
  void join() {
    work_.reset();
    if (thread_.joinable()) thread_.join();
  }

 private:
  boost::asio::io_context context_{1};
  std::optional<boost::asio::executor_work_guard<boost::asio::io_context::executor_type>> work_{context_.get_executor()};
  std::thread thread_;
};

}  // namespace test
