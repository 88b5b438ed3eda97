#include "plugin.hpp"

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT plugin::fail_type plugin_fail;
EXPORT plugin::throw_type plugin_throw;
EXPORT plugin::wait_type plugin_wait;

void plugin_fail(boost::system::error_code& code) {
  code = roster::errc::queue_full;
}

void plugin_throw() {
  throw roster::load_error("key", std::make_exception_ptr(roster::error(roster::errc::bad_model)), "bad model");
}

void plugin_wait(asio::io_context& context, std::shared_ptr<int> alive) {
  leave_waiting(context, std::move(alive));
}
