#pragma once

// What the measurements share. Each is a function that runs once and returns what one operation took.

#include <roster/roster.hpp>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/this_coro.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace bench {

namespace asio = boost::asio;

/// `size` is what grows in a curve: entries, waiters, streams. Returns nanoseconds per operation unless its name says
/// otherwise.
using function = double (*)(std::size_t size);

struct measurement {
  std::string_view name;
  function run;
  std::size_t usual_size;
};

inline std::vector<measurement>& all() {
  static std::vector<measurement> known;
  return known;
}

/// Makes a measurement known to main().
struct measured {
  measured(std::string_view name, function run, std::size_t usual_size = 0) { all().push_back({name, run, usual_size}); }
};

inline double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

/// Times the same loop several times and takes the median, after one that is not counted: whoever else runs on this machine
/// takes the processor away for some milliseconds now and then.
///
///     slices watch(operations);
///     while (watch.next()) for (...) operation();
///     return watch.result();
class slices {
 public:
  explicit slices(std::size_t operations, std::size_t count = 9)
      : operations_(static_cast<double>(operations)), count_(count + 1) {}

  bool next() {
    const auto now = std::chrono::steady_clock::now();
    if (started_++ > 1) times_.push_back(std::chrono::duration<double, std::nano>(now - start_).count() / operations_);
    start_ = std::chrono::steady_clock::now();
    return started_ <= count_;
  }

  double result() const { return median(times_); }

 private:
  double operations_;
  std::size_t count_, started_ = 0;
  std::vector<double> times_;
  std::chrono::steady_clock::time_point start_;
};

/// Keeps the compiler from leaving out what makes `value`, and from knowing what memory holds.
template <typename T>
void keep(const T& value) {
  asm volatile("" : : "r"(&value) : "memory");
}

inline void rethrow(const std::exception_ptr& failure) {
  if (failure) std::rethrow_exception(failure);
}

/// Runs a coroutine on a loop of its own.
inline double on_loop(asio::awaitable<double> body) {
  asio::io_context loop(1);
  double result = 0;
  asio::co_spawn(loop, std::move(body), [&](const std::exception_ptr& failure, double value) {
    rethrow(failure);
    result = value;
  });
  loop.run();
  return result;
}

/// Runs `thread_count` threads on `loop` until it is out of work.
inline void run_on_threads(asio::io_context& loop, std::size_t thread_count) {
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < thread_count; ++i)
    threads.emplace_back([&] { loop.run(); });
  for (auto& each : threads)
    each.join();
}

/// Keys as long as the names of models: 17 characters.
inline std::vector<std::string> make_keys(std::size_t count) {
  std::vector<std::string> keys;
  for (std::size_t i = 0; i < count; ++i)
    keys.push_back(fmt::format("model-{:011}", i));
  return keys;
}

/// Which keys are looked up, in random order.
inline std::vector<std::string_view> make_order(const std::vector<std::string>& keys, std::size_t lookups = 100'000) {
  std::mt19937_64 random(1);
  std::vector<std::string_view> order;
  for (std::size_t i = 0; i < lookups; ++i)
    order.push_back(keys[random() % keys.size()]);
  return order;
}

}  // namespace bench
