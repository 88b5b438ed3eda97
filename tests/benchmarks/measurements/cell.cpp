// A once-cell that has its value.

#include "measure.hpp"

#include <boost/asio/detached.hpp>

#include <atomic>

namespace bench {
namespace {

asio::awaitable<std::uint64_t> seventeen() {
  co_return 17;
}

double cell_ready(std::size_t times) {
  asio::io_context loop(1);
  roster::async_once_cell<std::uint64_t> cell(loop);
  asio::co_spawn(loop, cell.get_or_init(seventeen), asio::detached);
  loop.run();
  slices watch(times);
  while (watch.next())
    for (std::size_t i = 0; i < times; ++i) {
      keep(cell);
      const auto* value = cell.try_get();
      keep(*value);
    }
  return watch.result();
}

/// What everybody who waits for a value has to look at.
double pointer(std::size_t times) {
  const std::uint64_t seventeen = 17;
  const std::atomic<const std::uint64_t*> ready{&seventeen};
  slices watch(times);
  while (watch.next())
    for (std::size_t i = 0; i < times; ++i) {
      keep(ready);
      const auto* value = ready.load(std::memory_order_acquire);
      keep(*value);
    }
  return watch.result();
}

const measured measurements[] = {{"cell_ready", cell_ready, 2'000'000}, {"pointer", pointer, 2'000'000}};

}  // namespace
}  // namespace bench
