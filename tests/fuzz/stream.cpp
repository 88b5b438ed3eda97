// Both ends of a stream's channel on one thread, against a queue.

#include "tests/fuzz/bytes.hpp"

#include <roster/exec/detail/channel.hpp>

#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

using fuzz::require;

namespace {

using channel = roster::detail::channel<std::string>;
using base_reader = roster::detail::channel_reader<std::string>;

struct outcome {
  int calls = 0;
  bool failed = false;
  std::optional<std::string> chunk;
};

class reader final : public base_reader {
 public:
  explicit reader(std::shared_ptr<outcome> to) : to_(std::move(to)) {}
  void complete(std::shared_ptr<base_reader>, std::exception_ptr failure, std::optional<std::string> chunk) noexcept override {
    ++to_->calls;
    to_->failed = failure != nullptr;
    to_->chunk = std::move(chunk);
  }

 private:
  std::shared_ptr<outcome> to_;
};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::bytes input(data, size);
  const auto capacity = input.below(5) + 1;
  channel chunks(capacity, std::nullopt, roster::steady_time());
  std::deque<std::string> plain;
  bool finished = false, error_due = false, abandoned = false, shut_down = false, abort_due = false;
  std::shared_ptr<outcome> parked;
  std::shared_ptr<base_reader> parked_reader;
  int made = 0;

  // What the parked reader, or one that asks now, must be told.
  const auto told = [&](bool failed, const std::optional<std::string>& chunk) {
    if (abandoned) {
      require(!chunk && failed == std::exchange(abort_due, false), "a reader that left is told once");
    } else if (!plain.empty()) {
      require(!failed && chunk == plain.front(), "chunks come in order");
      plain.pop_front();
    } else {
      require(finished && !chunk && failed == std::exchange(error_due, false), "the end comes last, its error once");
    }
  };
  const auto look = [&] {
    if (!parked) return;
    const bool due = !plain.empty() || finished || abandoned;
    require(parked->calls == (due ? 1 : 0), "a parked reader is called once, and when there is something");
    if (due) told(parked->failed, parked->chunk);
    if (due) parked = nullptr;
  };

  while (!input.empty()) {
    switch (input.below(8)) {
      case 0:
      case 1:
        if (finished) break;                                      // the producer's promise
        if (plain.size() < capacity || abandoned || shut_down) {  // it would wait
          auto chunk = std::string(40, 'x') + std::to_string(made++);
          const bool wanted = chunks.push(std::string(chunk));
          require(wanted == !(abandoned || shut_down), "a chunk is taken unless nobody wants it");
          if (wanted) plain.push_back(std::move(chunk));
        }
        break;
      case 2:
      case 3: {
        if (parked) break;  // one reader at a time
        std::exception_ptr failure;
        std::optional<std::string> chunk;
        const bool something = chunks.try_next(failure, chunk);
        require(something == (!plain.empty() || finished || abandoned), "something is there when it is");
        if (something) told(failure != nullptr, chunk);
        break;
      }
      case 4:
        if (parked) break;
        parked = std::make_shared<outcome>();
        parked_reader = std::make_shared<reader>(parked);
        chunks.enqueue(parked_reader);
        break;
      case 5:
        if (!parked) break;
        chunks.cancel(parked_reader);
        require(parked->calls == 1 && parked->failed && !parked->chunk, "a cancelled wait ends, and takes nothing along");
        parked = nullptr;
        break;
      case 6: {
        const bool fails = input.below(2) == 0;
        chunks.finish(fails ? std::make_exception_ptr(std::runtime_error("cause")) : nullptr);
        if (!finished) error_due = fails || shut_down;
        finished = true;
        break;
      }
      default:
        if (input.below(8) == 0) {
          chunks.on_stop();
          shut_down = true;
        } else if (input.below(8) == 0) {
          if (!abandoned) abort_due = true;
          abandoned = true;
          chunks.abandon();
        }
        require(chunks.context.stop_requested() == (abandoned || shut_down), "the producer is told to stop when it is");
    }
    look();
    require(chunks.has_finished() == finished, "the end is seen when it is there");
  }
  return 0;
}
