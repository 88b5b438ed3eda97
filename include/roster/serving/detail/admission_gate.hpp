#pragma once

#include <roster/error.hpp>
#include <roster/serving/policy/admission.hpp>

#include <fmt/format.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// Performs what an `admission` decides.
class admission_gate : public std::enable_shared_from_this<admission_gate> {
 public:
  explicit admission_gate(admission rules) : rules_(rules) {}

  /// The place of an accepted call. It is given back by the destructor, wherever the call ends.
  class ticket {
   public:
    ticket(ticket&&) noexcept = default;
    ticket& operator=(ticket&&) = delete;
    ~ticket() {
      if (gate_) gate_->leave();
    }

   private:
    friend class admission_gate;
    explicit ticket(std::shared_ptr<admission_gate> gate) : gate_(std::move(gate)) {}
    std::shared_ptr<admission_gate> gate_;
  };

  /// Throws `queue_full`.
  ticket enter() {
    if (arrive()) return ticket(shared_from_this());
    throw error(errc::queue_full, fmt::format("at most {} at a time", rules_.limit()));
  }

  std::size_t depth() const noexcept {
    std::lock_guard lock(mutex_);  // short:
    return rules_.depth();
  }

 private:
  bool arrive() noexcept {
    std::lock_guard lock(mutex_);  // short:
    return rules_.arrive();
  }

  void leave() noexcept {
    std::lock_guard lock(mutex_);  // short:
    rules_.leave();
  }

  mutable std::mutex mutex_;
  admission rules_;
};

}  // namespace detail

ROSTER_END_NAMESPACE
