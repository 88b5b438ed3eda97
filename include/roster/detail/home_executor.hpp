#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/closing_service.hpp>

#include <memory>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// An executor that is let go with its context: it may be a strand, which must not outlive that.
class home_executor final : public closable {
 public:
  explicit home_executor(const asio::any_io_executor& executor) : executor_(executor) {}

  /// Empty once the context is gone.
  const asio::any_io_executor& get() const noexcept { return executor_; }

  void context_closed() noexcept override { executor_ = nullptr; }

 private:
  asio::any_io_executor executor_;
};

inline std::shared_ptr<const home_executor> make_home(const asio::any_io_executor& executor) {
  return make_closable<home_executor>(executor);
}

}  // namespace detail

ROSTER_END_NAMESPACE
