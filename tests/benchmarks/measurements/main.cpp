// Runs one measurement and prints what it found: measurements <name> [size]. Without arguments: what there is.

#include "measure.hpp"

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>

namespace {

/// A thread that only waits. In a program with one thread, libstdc++ counts shared_ptr without atomic operations: no server
/// that looks models up is such a program.
class second_thread {
 public:
  second_thread() = default;
  second_thread(const second_thread&) = delete;
  second_thread& operator=(const second_thread&) = delete;
  ~second_thread() {
    {
      std::lock_guard lock(mutex_);
      done_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
  std::thread thread_{[this] {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return done_; });
  }};
};

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) {
    for (const auto& each : bench::all())
      fmt::print("{}\n", each.name);
    return 0;
  }
  for (const auto& each : bench::all())
    if (each.name == arguments[1]) {
      const auto size = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : each.usual_size;
      const bool forks = each.name.starts_with("heartbeat");
      if (forks) return fmt::print("{:.3f}\n", each.run(size)), 0;
      second_thread other;
      fmt::print("{:.3f}\n", each.run(size));
      return 0;
    }
  fmt::print(stderr, "no such measurement: {}\n", arguments[1]);
  return 2;
}
