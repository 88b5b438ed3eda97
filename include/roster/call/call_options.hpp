#pragma once

#include <roster/call/clock.hpp>
#include <roster/version.hpp>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

ROSTER_BEGIN_NAMESPACE

/// Where a model lives: an opaque name that only the engine interprets, such as `cpu` or `cuda:0`.
class device {
 public:
  /// The engine's own choice.
  device() noexcept {}

  /// The device that the engine knows as `name`.
  device(std::string name) : name_(std::move(name)) {}

  /// The device that the engine knows as `name`.
  device(const char* name) : name_(name) {}

  /// The name; empty for the engine's own choice.
  const std::string& name() const noexcept { return name_; }

  /// Devices are the same when their names are.
  friend bool operator==(const device&, const device&) = default;

 private:
  std::string name_;
};

/// Options of every call, whatever the model.
class call_options {
 public:
  /// A deadline, by the time of whatever runs the call: the steady clock, unless a pool, worker or registry was given another.
  using time_point = clock::time_point;

  /// No deadline, any device.
  call_options() noexcept {}

  /// The call fails with `deadline_exceeded` at `when`, whatever it waits for, and is never started after that. A call that
  /// runs is asked to stop then; what it ran on stays taken until it has returned. (Calls that may refer to their caller's
  /// data, of `blocking_pool::run` and `worker_thread::run`, are waited for.)
  call_options& deadline(time_point when) {
    deadline_ = when;
    return *this;
  }

  /// The same, `after` from when the call is made. The earlier of both counts.
  call_options& timeout(clock::duration after) {
    timeout_ = after;
    return *this;
  }

  /// The call must run on `target`; a worker that lives elsewhere fails it with `device_mismatch`.
  call_options& on(device target) {
    device_ = std::move(target);
    return *this;
  }

  /// The deadline, if there is one.
  const std::optional<time_point>& deadline() const noexcept { return deadline_; }

  /// The timeout, if there is one.
  const std::optional<clock::duration>& timeout() const noexcept { return timeout_; }

  /// Turns the timeout into a deadline, from now on by `time`. For whoever runs a call, when it is made.
  void start_timeout(const clock& time) noexcept {
    if (!timeout_) return;
    const auto end = time.from_now(*std::exchange(timeout_, std::nullopt));
    // fault d1: `std::min` -> `std::max`: the later of deadline and timeout counts
    deadline_ = deadline_ ? (std::min)(*deadline_, end) : end;
  }

  /// The device asked for, if one is.
  const std::optional<roster::device>& on() const noexcept { return device_; }

 private:
  std::optional<time_point> deadline_;
  std::optional<clock::duration> timeout_;
  std::optional<roster::device> device_;
};

/// Base of options that add to `call_options`: its setters return the derived type, so that they chain.
template <typename Derived>
class call_options_for : public call_options {
 public:
  using call_options::deadline;
  using call_options::on;
  using call_options::timeout;

  /// As `call_options::deadline`.
  Derived& deadline(time_point when) {
    call_options::deadline(when);
    return static_cast<Derived&>(*this);
  }

  /// As `call_options::timeout`.
  Derived& timeout(clock::duration after) {
    call_options::timeout(after);
    return static_cast<Derived&>(*this);
  }

  /// As `call_options::on`.
  Derived& on(device target) {
    call_options::on(std::move(target));
    return static_cast<Derived&>(*this);
  }
};

ROSTER_END_NAMESPACE
