#include "plugin.hpp"

#include <fmt/format.h>

#include <dlfcn.h>

namespace {

int failures = 0;

void check(bool right, const char* claim) {
  failures += !right;
  fmt::print("{}: {}\n", right ? "right" : "wrong", claim);
}

template <typename Function>
Function& function_in(void* library, const char* name) {
  return *reinterpret_cast<Function*>(dlsym(library, name));
}

}  // namespace

int main(int, char** arguments) {
  // Never closed: the context holds services that are the plugin's.
  auto* library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    fmt::print("{}\n", dlerror());
    return 2;
  }

  boost::system::error_code code;
  function_in<plugin::fail_type>(library, "plugin_fail")(code);
  check(&code.category() != &roster::error_category(), "the plugin has a category of its own");
  check(code == roster::errc::queue_full, "its error equals ours");
  check(code != roster::errc::stopped && code != make_error_code(asio::error::operation_aborted), "and no other");

  try {
    function_in<plugin::throw_type>(library, "plugin_throw")();
    check(false, "it throws");
  } catch (const roster::load_error& failure) {
    check(failure.code() == roster::errc::load_failed && failure.key() == "key", "its exception is one of ours");
    try {
      std::rethrow_exception(failure.cause());
    } catch (const roster::error& cause) {
      check(cause.code() == roster::errc::bad_model, "and so is the cause");
    }
  }

  const auto alive = std::make_shared<int>();
  {
    asio::io_context context;
    leave_waiting(context, alive);
    function_in<plugin::wait_type>(library, "plugin_wait")(context, alive);
    context.poll();
    check(alive.use_count() == 3, "both wait on one context");
  }
  check(alive.use_count() == 1, "and that context's end ends both");
  return failures;
}
