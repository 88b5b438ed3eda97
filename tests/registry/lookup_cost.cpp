// What a lookup of a loaded model must not do: suspend, or copy the key.

#include <roster/registry/registry.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"
#include "tests/support/sanitizers.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <string_view>

#if !ROSTER_TEST_TSAN && !ROSTER_TEST_ASAN  // which have operators of their own

namespace {

struct allocations {
  std::size_t count = 0;
  std::size_t largest = 0;
};

thread_local allocations* counted = nullptr;

/// Counts what the current thread allocates.
class counting {
 public:
  counting() { counted = &made; }
  counting(const counting&) = delete;
  counting& operator=(const counting&) = delete;
  ~counting() { counted = nullptr; }
  allocations made;
};

}  // namespace

// All forms that the tests use. Not inlined, since g++ 12 takes what it sees of one
// half for a mismatch with the other.
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  if (counted) {
    ++counted->count;
    counted->largest = std::max(counted->largest, size);
  }
  return std::malloc(size ? size : 1);
}
void* operator new(std::size_t size) {
  if (void* memory = operator new(size, std::nothrow)) return memory;
  throw std::bad_alloc();
}
void* operator new[](std::size_t size) {
  return operator new(size);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return operator new(size, std::nothrow);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  operator delete(memory);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept {
  operator delete(memory);
}
void operator delete[](void* memory) noexcept {
  operator delete(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
  operator delete(memory);
}
void operator delete[](void* memory, const std::nothrow_t&) noexcept {
  operator delete(memory);
}

#endif

namespace asio = boost::asio;
using roster::errc;
using roster::image_embedding;
using test::finish;
using test::make_model;
using test::spawn;
using registry = roster::registry<image_embedding>;

namespace {

asio::awaitable<void> get_often(registry& models, std::string_view key, int times, int& found) {
  for (int i = 0; i < times; ++i) {
    auto model = co_await models.get(key);
    found += model ? 1 : 0;
  }
}

}  // namespace

TEST_CASE("A lookup of a ready model does not suspend, however often it is repeated") {
  asio::io_context loop;
  registry models(loop);
  const auto lazy = [](roster::load_context&) -> asio::awaitable<registry::model_ptr> { co_return make_model(1); };
  finish(loop, models.add("ready", make_model(1)));
  finish(loop, models.add("lazy", roster::model_info(), lazy));
  finish(loop, models.preload("lazy"));

  for (const auto* key : {"ready", "lazy"}) {
    int found = 0;
    auto call = spawn(loop, get_often(models, key, 100'000, found));
    while (found == 0)
      test::step(loop);
    CHECK(found == 100'000);  // all in the handler of the first
    test::drain(loop);
    CHECK(call.succeeded());
  }
}

#if !ROSTER_TEST_TSAN && !ROSTER_TEST_ASAN

TEST_CASE("A lookup of a ready model does not copy the key") {
  constexpr std::size_t size = 1 << 20;
  asio::io_context loop;
  registry models(loop);
  const std::string key(size, 'k');
  const std::string_view part = std::string_view(key).substr(1);
  finish(loop, models.add(key, make_model(1)));
  finish(loop, models.add(part, make_model(2)));

  for (const auto name : {std::string_view(key), part}) {
    int found = 0;
    auto first = spawn(loop, get_often(models, name, 1, found));
    test::drain(loop);
    auto call = spawn(loop, get_often(models, name, 1000, found));
    counting here;
    while (found == 1)
      test::step(loop);
    CHECK(found == 1001);
    CHECK(here.made.largest < 4096);
    CHECK(here.made.count < 100);  // coroutine frames are recycled
    counted = nullptr;
    test::drain(loop);
  }
}

TEST_CASE("try_get allocates nothing, whether it finds a model or not") {
  asio::io_context loop;
  registry models(loop);
  const std::string key(1 << 20, 'k');
  finish(loop, models.add(key, make_model(1)));
  const std::string missing = key + 'x';

  counting here;
  bool found = true, none = true;
  for (int i = 0; i < 100; ++i) {
    found = found && models.try_get(key).has_value();
    none = none && models.try_get(missing).error() == errc::not_found;
  }
  counted = nullptr;
  CHECK(found);
  CHECK(none);
  CHECK(here.made.count == 0);
}

#endif
