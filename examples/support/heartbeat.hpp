#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <chrono>
#include <memory>

/// Beats every millisecond on an event loop, and remembers by how much its worst beat was late: how long the loop was held up.
class heartbeat {
 public:
  explicit heartbeat(const boost::asio::any_io_executor& loop) : pulse_(std::make_shared<pulse>(loop)) { beat(pulse_); }
  heartbeat(const heartbeat&) = delete;
  heartbeat& operator=(const heartbeat&) = delete;
  ~heartbeat() { stop(); }

  void stop() {
    pulse_->stopped = true;  // a beat may be due already, which cancelling does not take back
    pulse_->timer.cancel();
  }

  double worst_ms() const { return std::chrono::duration<double, std::milli>(pulse_->worst).count(); }

 private:
  using clock = std::chrono::steady_clock;

  struct pulse {
    explicit pulse(const boost::asio::any_io_executor& loop) : timer(loop, clock::now()) {}
    boost::asio::steady_timer timer;
    clock::duration worst{0};
    bool stopped = false;
  };

  static void beat(const std::shared_ptr<pulse>& self) {
    self->timer.expires_at(std::max(self->timer.expiry() + std::chrono::milliseconds(1), clock::now()));
    self->timer.async_wait([self](boost::system::error_code) {
      if (self->stopped) return;
      self->worst = std::max(self->worst, clock::now() - self->timer.expiry());
      beat(self);
    });
  }

  std::shared_ptr<pulse> pulse_;
};
