#pragma once

#include <roster/detail/asio.hpp>

#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/strand.hpp>

#include <memory>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// Cancels a coroutine spawned on a strand with a slot of this signal. Called on the strand. A failed allocation terminates: a
/// coroutine that is not told to stop might never end.
///
/// Keeps the signal for one more turn of the strand: on an executor that never blocks, co_spawn posts its part of the emission,
/// which has a plain pointer into the signal. The strand is null once the context has closed.
inline void cancel_spawned(const std::optional<asio::strand<asio::any_io_executor>>& strand,
                           std::shared_ptr<asio::cancellation_signal> signal) noexcept {
  signal->emit(asio::cancellation_type::terminal);
  if (strand) asio::post(*strand, [signal = std::move(signal)] {});
}

}  // namespace detail

ROSTER_END_NAMESPACE
