#pragma once

/// \file
/// All that need not be in headers, for separate compilation: define `ROSTER_SEPARATE_COMPILATION` in the whole program, and
/// include this in exactly one of its files, before anything else of roster.

#if !defined(ROSTER_SEPARATE_COMPILATION)
#error "define ROSTER_SEPARATE_COMPILATION, in all files of the program, to include roster/src.hpp in one of them"
#endif
#define ROSTER_SOURCE

#include <roster/roster.hpp>

ROSTER_BEGIN_NAMESPACE

template class basic_async_semaphore<asio::any_io_executor>;

namespace detail {
template class registry_entry<void>;
template class registry_core<void>;
}  // namespace detail

ROSTER_END_NAMESPACE
