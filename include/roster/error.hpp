#pragma once

#include <roster/version.hpp>

#include <boost/config.hpp>
#include <boost/system/error_code.hpp>
#include <boost/system/system_error.hpp>

#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

ROSTER_BEGIN_NAMESPACE

using boost::system::error_code;

/// What can go wrong in roster itself. Cancellation is `boost::asio::error::operation_aborted`, as in Asio.
enum class errc {
  not_found = 1,      ///< no model is registered under the key
  already_exists,     ///< the key is taken
  would_block,        ///< a `try_` operation would have had to wait
  not_loaded,         ///< the model is known, and not loaded yet
  load_failed,        ///< the loader failed; `load_error` holds the cause
  load_cycle,         ///< a loader waits, through others, for itself
  stopped,            ///< the pool or worker takes no more work
  queue_full,         ///< the bound on waiting calls is reached
  device_mismatch,    ///< the worker lives on another device than the one asked for
  deadline_exceeded,  ///< the deadline passed before the call ended
  would_deadlock,     ///< the caller would wait for itself
  invalid_argument,   ///< an argument is out of its documented range
  invalid_input,      ///< a model cannot take this input
  bad_model,          ///< a model file is missing, damaged, or not of the expected form
  bad_output,         ///< a model produced something that is no result: a wrong shape, NaN
  foreign_exception   ///< from `code_of`: an exception without a code, from an engine or a loader
};

namespace detail {

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"  // Boost's base class has none, by design
#endif
class error_category_impl final : public boost::system::error_category {
 public:
  // The number is its identity: a plugin has an object of its own.
  constexpr error_category_impl() noexcept : error_category(0x1925dc10e8d56316) {}

  const char* name() const noexcept override { return "roster"; }

  std::string message(int value) const override {
    switch (static_cast<errc>(value)) {
      case errc::not_found:
        return "no such model";
      case errc::already_exists:
        return "key already registered";
      case errc::would_block:
        return "operation would block";
      case errc::not_loaded:
        return "model not loaded";
      case errc::load_failed:
        return "model failed to load";
      case errc::load_cycle:
        return "cycle among model loads";
      case errc::stopped:
        return "stopped";
      case errc::queue_full:
        return "queue full";
      case errc::device_mismatch:
        return "wrong device";
      case errc::deadline_exceeded:
        return "deadline exceeded";
      case errc::would_deadlock:
        return "operation would wait for itself";
      case errc::invalid_argument:
        return "invalid argument";
      case errc::invalid_input:
        return "invalid input";
      case errc::bad_model:
        return "bad model";
      case errc::bad_output:
        return "bad model output";
      case errc::foreign_exception:
        return "an exception without a code";
    }
    return "unknown error";
  }
};
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

}  // namespace detail

/// The category of every `errc`. A plugin may have one of its own; they compare equal.
inline const boost::system::error_category& error_category() noexcept {
  static const detail::error_category_impl category;
  return category;
}

/// Makes `errc` convertible to `error_code`.
inline error_code make_error_code(errc value) noexcept {
  return {static_cast<int>(value), error_category()};
}

/// An `errc` with a message. roster itself throws this or another `boost::system::system_error`, except for Asio's
/// `bad_executor`, if a handler would be called on a context that is gone. Exceptions of others pass through unchanged: those
/// of engines and callables, `std::bad_alloc`, and the `std::system_error` of `std::thread`.
///
/// One that a plugin (`dlopen`) throws can be caught in its host, also where the standard library tells types apart by address
/// (libc++) if the host exports its symbols.
class BOOST_SYMBOL_VISIBLE error : public boost::system::system_error {
 public:
  /// An error without further explanation.
  explicit error(errc value) : system_error(make_error_code(value)) {}

  /// An error with a message that says which object, and which limit.
  error(errc value, const std::string& message) : system_error(make_error_code(value), message) {}
};

/// A model failed to load. Holds what the loader threw.
class BOOST_SYMBOL_VISIBLE load_error final : public error {
 public:
  /// Describes the failure of `key`'s loader, which threw `cause`, whose message is `reason`.
  load_error(std::string_view key, std::exception_ptr cause, std::string_view reason)
      : error(errc::load_failed, '\'' + std::string(key) + "': " + std::string(reason)),
        key_(key),
        reason_(reason),
        cause_(std::move(cause)) {}

  /// The key whose loader failed.
  const std::string& key() const noexcept { return key_; }

  /// What the loader's exception said.
  const std::string& reason() const noexcept { return reason_; }

  /// The exception that left the loader; never null.
  const std::exception_ptr& cause() const noexcept { return cause_; }

 private:
  std::string key_;
  std::string reason_;
  std::exception_ptr cause_;
};

/// The code of the exception that a handler was given: none for null, that of a `system_error`, the cause's for a `load_error`,
/// `not_enough_memory` for `std::bad_alloc`, `foreign_exception` for all else.
inline error_code code_of(std::exception_ptr failure) noexcept {
  while (failure) {
    try {
      std::rethrow_exception(failure);
    } catch (const load_error& e) {
      if (!e.cause()) return e.code();
      failure = e.cause();
    } catch (const boost::system::system_error& e) {
      return e.code();
    } catch (const std::system_error& e) {
      return e.code();
    } catch (const std::bad_alloc&) {
      return make_error_code(boost::system::errc::not_enough_memory);
    } catch (...) {
      return make_error_code(errc::foreign_exception);
    }
  }
  return {};
}

/// The message of the exception that a handler was given; empty for null.
inline std::string message_of(const std::exception_ptr& failure) {
  if (!failure) return {};
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "an exception that is no std::exception";
  }
}

ROSTER_END_NAMESPACE

namespace boost::system {

/// Lets an `errc` be compared with, and assigned to, an `error_code`.
template <>
struct is_error_code_enum<roster::errc> : std::true_type {};

}  // namespace boost::system
