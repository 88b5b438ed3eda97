// Sequences of requests, cancellations and ends of flights, against the rules of the cell written down plainly.

#include "tests/fuzz/bytes.hpp"

#include "tests/sync/cell_probe.hpp"

#include <memory>
#include <optional>
#include <vector>

namespace asio = boost::asio;
using fuzz::require;

namespace {

enum class expectation { waits, value, failure, aborted };

struct caller {
  std::unique_ptr<test::cell_request<>> request;
  expectation expected = expectation::waits;
};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 200) return 0;
  fuzz::bytes input(data, size);
  asio::io_context loop;
  std::optional<test::int_cell> cell(std::in_place, loop);
  test::probe probe(loop);
  probe.deaf = input.below(2) == 0;  // the initialiser cannot be cancelled: a flight that was left goes on
  std::vector<caller> callers;
  bool flying = false, left = false, ready = false;
  int flights = 0;

  const auto settle = [&](expectation result) {
    for (auto& each : callers)
      if (each.expected == expectation::waits) each.expected = result;
  };
  const auto waiting = [&] {
    std::size_t count = 0;
    for (const auto& each : callers)
      count += each.expected == expectation::waits;
    return count;
  };
  const auto take_off = [&] {
    flying = true;
    left = false;
    ++flights;
  };

  while (!input.empty()) {
    switch (input.below(4)) {
      case 0:
        callers.push_back({std::make_unique<test::cell_request<>>(*cell, probe.initialiser()), expectation::waits});
        if (ready) callers.back().expected = expectation::value;
        if (!ready && !flying) take_off();
        break;
      case 1:
        if (!callers.empty()) {
          auto& chosen = callers[input.below(callers.size())];
          if (chosen.expected != expectation::waits) break;
          chosen.request->cancel();
          chosen.expected = expectation::aborted;
          if (waiting() == 0 && flying) {
            left = true;
            if (!probe.deaf) flying = left = false;
          }
        }
        break;
      default: {
        if (!flying) break;
        probe.fails = input.below(2) == 0;
        probe.gate.open();
        test::drain(loop);
        if (!probe.fails) {
          ready = true;
          flying = false;
          settle(expectation::value);
        } else {
          // The gate is open: a flight that starts next fails at once.
          if (left && waiting() > 0) ++flights;
          flying = false;
          settle(expectation::failure);
        }
        require(probe.started == flights, "as many flights as the rules say");
        if (!ready) return 0;  // a gate opens once
      }
    }
    test::drain(loop);
    require(probe.most_running <= 1, "initialisers do not overlap");
    require(probe.started == flights, "as many flights as the rules say");
    require((cell->try_get() != nullptr) == ready, "the value is there when it was made");
    for (const auto& each : callers) {
      require(each.request->calls() <= 1, "a handler is called once");
      require(each.request->waits() == (each.expected == expectation::waits), "who waits by the rules waits");
      require(each.request->has_value() == (each.expected == expectation::value), "who gets the value by the rules gets it");
      require(each.request->aborted() == (each.expected == expectation::aborted), "who was cancelled is told");
    }
  }
  cell.reset();
  test::drain(loop);
  for (const auto& each : callers)
    require(!each.request->waits(), "a cell that dies forgets nobody");
  if (flying) {
    probe.gate.open();
    test::drain(loop);
  }
  return 0;
}
