#pragma once

#include <roster/version.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// How a field of a message is stored in the wire format of protocol buffers.
enum class wire_type : unsigned { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

/// The fields of a message in that format, one after the other.
class wire_reader {
 public:
  struct field {
    std::uint64_t number = 0;
    wire_type type = wire_type::varint;
    std::uint64_t value = 0;   // of a varint
    std::string_view payload;  // of anything else
    std::string_view bytes;    // all of it
  };

  explicit wire_reader(std::string_view message) : rest_(message) {}

  /// False at the end, and where the message is malformed.
  bool next(field& out) {
    if (rest_.empty() || malformed_) return false;
    const auto before = rest_;
    const auto key = varint();
    out = {key >> 3, static_cast<wire_type>(key & 7), 0, {}, {}};
    switch (out.type) {
      case wire_type::varint:
        out.value = varint();
        break;
      case wire_type::fixed64:
        out.payload = take(8);
        break;
      case wire_type::bytes:
        out.payload = take(varint());
        break;
      case wire_type::fixed32:
        out.payload = take(4);
        break;
      default:
        malformed_ = true;
    }
    malformed_ = malformed_ || out.number == 0;
    out.bytes = before.substr(0, before.size() - rest_.size());
    return !malformed_;
  }

  /// The next of the varints that a packed list consists of.
  bool next(std::uint64_t& element) {
    if (rest_.empty() || malformed_) return false;
    element = varint();
    return !malformed_;
  }

  bool malformed() const noexcept { return malformed_; }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= std::uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) return value;
    }
    malformed_ = true;
    return 0;
  }

  std::string_view take(std::uint64_t bytes) {
    if (bytes > rest_.size()) {
      malformed_ = true;
      return {};
    }
    const auto taken = rest_.substr(0, static_cast<std::size_t>(bytes));
    rest_.remove_prefix(taken.size());
    return taken;
  }

  std::string_view rest_;
  bool malformed_ = false;
};

/// Calls `visit(field)` for each field. False if the message is malformed, or if `visit` says so.
template <typename Visit>
bool for_each_field(std::string_view message, Visit visit) {
  wire_reader reader(message);
  wire_reader::field field;
  while (reader.next(field))
    if (!visit(field)) return false;
  return !reader.malformed();
}

/// Calls `visit(number)` for what a field adds to a list of integers: one of them, or a packed part of the list.
template <typename Visit>
bool for_each_integer(const wire_reader::field& field, Visit visit) {
  if (field.type == wire_type::varint) return visit(field.value), true;
  wire_reader reader(field.payload);
  std::uint64_t element = 0;
  while (reader.next(element))
    visit(element);
  return !reader.malformed();
}

/// How many numbers of `size` bytes a field adds to a list of them.
inline std::uint64_t count_fixed(const wire_reader::field& field, std::size_t size) {
  return field.type == wire_type::bytes ? field.payload.size() / size : 1;
}

/// An unsigned number of up to 8 bytes, the first of which is the lowest.
inline std::uint64_t read_fixed(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i)
    value |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  return value;
}

/// A float of 4 bytes, in the same order.
inline float read_float(std::string_view bytes) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(read_fixed(bytes.substr(0, sizeof(float)))));
}

/// Writes fields in the wire format of protocol buffers.
class wire_writer {
 public:
  /// A field as a `wire_reader` found it.
  void copy(const wire_reader::field& field) { message_ += field.bytes; }

  void write(std::uint64_t number, std::uint64_t value) {
    varint(number << 3U | static_cast<std::uint64_t>(wire_type::varint));
    varint(value);
  }
  void write(std::uint64_t number, std::string_view payload) {
    varint(number << 3U | static_cast<std::uint64_t>(wire_type::bytes));
    varint(payload.size());
    message_ += payload;
  }
  void write(std::uint64_t number, float value) {
    varint(number << 3U | static_cast<std::uint64_t>(wire_type::fixed32));
    append(value);
  }

  /// Without a number: for lists.
  void append(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    for (unsigned shift = 0; shift < 32; shift += 8)
      message_ += static_cast<char>(bits >> shift & 0xFFU);
  }

  const std::string& message() const noexcept { return message_; }

 private:
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7U)
      message_ += static_cast<char>(value | 0x80U);
    message_ += static_cast<char>(value);
  }

  std::string message_;
};

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
