#pragma once

#include "tests/model/stepped.hpp"

#include <boost/asio/execution.hpp>
#include <boost/asio/execution_context.hpp>

#include <deque>
#include <memory>
#include <type_traits>
#include <utility>

namespace test::model {

namespace asio = boost::asio;

/// An execution context that is run by an actor, one handler after the other.
class loop : public asio::execution_context {
  struct job {
    job() = default;
    job(const job&) = delete;
    job& operator=(const job&) = delete;
    virtual ~job() = default;
    virtual void run() = 0;
  };

  template <typename F>
  struct job_of final : job {
    explicit job_of(F&& f) : function(std::move(f)) {}
    void run() override { std::move(function)(); }
    F function;
  };

 public:
  struct executor_type {
    loop* context;
    asio::execution::blocking_t blocking = asio::execution::blocking.possibly;  // lets a strand dispatch inside itself

    template <typename F>
    void execute(F&& function) const {
      std::decay_t<F> copy(std::forward<F>(function));
      context->jobs_.push_back(std::make_unique<job_of<std::decay_t<F>>>(std::move(copy)));
    }
    asio::execution_context& query(asio::execution::context_t) const noexcept { return *context; }
    asio::execution::blocking_t query(asio::execution::blocking_t) const noexcept { return blocking; }
    executor_type require(asio::execution::blocking_t::never_t wanted) const noexcept { return {context, wanted}; }
    executor_type require(asio::execution::blocking_t::possibly_t wanted) const noexcept { return {context, wanted}; }
    friend bool operator==(const executor_type&, const executor_type&) noexcept = default;
  };

  loop() = default;
  ~loop() {
    shutdown();
    jobs_.clear();
    destroy();
  }

  executor_type get_executor() noexcept { return executor_type{this}; }

  /// The script of a daemon.
  void run(explorer& schedules) {
    for (;;) {
      schedules.point([&] { return stopped_ || !jobs_.empty() || schedules.finishing(); });
      if (stopped_ || jobs_.empty()) return;
      const auto next = std::move(jobs_.front());
      jobs_.pop_front();
      running_ = true;
      next->run();
      running_ = false;
    }
  }

  /// No handler starts any more.
  void stop() { stopped_ = true; }

  bool idle() const { return jobs_.empty() && !running_; }

 private:
  std::deque<std::unique_ptr<job>> jobs_;
  bool stopped_ = false;
  bool running_ = false;
};

}  // namespace test::model
