// A once-cell that has its value.

#include "measure.hpp"

namespace bench {
namespace {

asio::awaitable<std::uint64_t> seventeen() {
  co_return 17;
}

asio::awaitable<double> ready(std::size_t times) {
  roster::async_once_cell<std::uint64_t> cell{co_await asio::this_coro::executor};
  co_await cell.get_or_init(seventeen);
  slices watch(times);
  while (watch.next())
    for (std::size_t i = 0; i < times; ++i) {
      keep(cell);
      const auto* value = cell.try_get();
      keep(*value);
    }
  co_return watch.result();
}

double cell_ready(std::size_t times) {
  return on_loop(ready(times));
}

const measured measurements[] = {{"cell_ready", cell_ready, 2'000'000}};

}  // namespace
}  // namespace bench
