// Sequences of operations on the lock. Those that let the loop come to rest after each are compared with a queue that is
// plain; the others, which stop in between, keep what has to hold at any time.

#include "tests/fuzz/bytes.hpp"

#include "tests/sync/lock_request.hpp"

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

namespace asio = boost::asio;
using fuzz::require;

namespace {

/// Either kind of request.
struct request {
  request(roster::async_shared_mutex& mutex, bool exclusive) {
    if (exclusive)
      write.emplace(mutex);
    else
      read.emplace(mutex);
  }
  template <typename Visit>
  auto visit(Visit visitor) const {
    return write ? visitor(*write) : visitor(*read);
  }
  bool exclusive() const { return write.has_value(); }
  bool holds() const {
    return visit([](auto& r) { return r.holds(); });
  }
  bool aborted() const {
    return visit([](auto& r) { return r.aborted(); });
  }
  bool waits() const {
    return visit([](auto& r) { return r.waits(); });
  }
  bool sane() const {
    return visit([](auto& r) { return r.calls() <= 1; });
  }
  void release() {
    if (write) write->release();
    if (read) read->release();
  }
  void cancel() {
    if (write) write->cancel();
    if (read) read->cancel();
  }
  std::optional<test::write_request> write;
  std::optional<test::read_request> read;
  bool expected = false;  // to hold, by the plain queue
  bool cancelled = false;
  bool released = false;
};

struct plain_lock {
  bool free_for(const request& r) const {
    return std::none_of(all.begin(), all.end(), [&](const auto& other) {
      return other->expected && !other->released && (r.exclusive() || other->exclusive());
    });
  }
  void grant() {
    while (!queue.empty() && free_for(*queue.front())) {
      queue.front()->expected = true;
      queue.pop_front();
    }
  }
  std::vector<std::unique_ptr<request>> all;
  std::deque<request*> queue;
};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 200) return 0;
  fuzz::bytes input(data, size);
  const bool rests = input.below(2) == 0;
  asio::io_context loop;
  roster::async_shared_mutex mutex(loop);
  plain_lock plain;

  const auto pick = [&]() -> request* { return plain.all.empty() ? nullptr : plain.all[input.below(plain.all.size())].get(); };
  while (!input.empty()) {
    switch (input.below(6)) {
      case 0:
      case 1: {
        plain.all.push_back(std::make_unique<request>(mutex, input.below(2) == 0));
        plain.queue.push_back(plain.all.back().get());
        plain.grant();
        break;
      }
      case 2:
        if (auto* chosen = pick(); chosen && chosen->holds()) {
          chosen->release();
          chosen->released = true;
          plain.grant();
        }
        break;
      case 3:
        if (auto* chosen = pick(); chosen && chosen->waits()) {
          chosen->cancel();
          if (const auto place = std::find(plain.queue.begin(), plain.queue.end(), chosen); place != plain.queue.end()) {
            plain.queue.erase(place);
            chosen->cancelled = true;
          }
          plain.grant();
        }
        break;
      case 4:
        if (rests) {
          const bool any_held = std::any_of(plain.all.begin(), plain.all.end(), [](const auto& r) { return r->holds(); });
          const bool taken = mutex.try_lock().has_value();
          require(taken == (!any_held && plain.queue.empty()), "try_lock takes what is free, and passes nobody");
        }
        break;
      default:
        test::step(loop, input.below(4));
    }
    if (rests) test::drain(loop);

    int writers = 0, readers = 0;
    for (const auto& each : plain.all) {
      require(each->sane(), "a handler is called once");
      if (each->holds()) ++(each->exclusive() ? writers : readers);
      if (rests) {
        require(each->holds() == (each->expected && !each->released), "who holds the lock holds it in the plain queue");
        require(each->aborted() == each->cancelled, "who was cancelled in the queue is told, and nobody else");
      }
    }
    require(writers == 0 || (writers == 1 && readers == 0), "a writer is alone");
  }

  // All holds are released: then everybody who waits gets a turn.
  for (bool again = true; again;) {
    test::drain(loop);
    again = false;
    for (const auto& each : plain.all)
      if (each->holds()) {
        each->release();
        again = true;
      }
  }
  for (const auto& each : plain.all)
    require(!each->waits(), "nobody is forgotten");
  require(mutex.try_lock().has_value(), "the lock is free in the end");
  return 0;
}
