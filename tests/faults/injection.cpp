// All memory of this executable.

#include "tests/faults/injection.hpp"

// Not inlined, since g++ 12 takes what it sees of one half for a mismatch with the other.
[[gnu::noinline]] void* operator new(std::size_t size) {
  if (!test::memory::runs_out(size))
    if (void* memory = std::malloc(size ? size : 1)) {
      ++test::memory::live;
      return memory;
    }
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return operator new(size);
  } catch (...) {
    return nullptr;
  }
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  if (memory) --test::memory::live;
  std::free(memory);
}
void* operator new[](std::size_t size) {
  return operator new(size);
}
void* operator new[](std::size_t size, const std::nothrow_t& none) noexcept {
  return operator new(size, none);
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
