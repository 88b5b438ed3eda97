#pragma once

#include <roster/engines/opencv/detail/wire_format.hpp>
#include <roster/version.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// The numbers of a constant, and its sizes.
struct onnx_constant {
  std::vector<std::size_t> sizes;
  std::vector<double> values;
};

/// A number of a constant as an index, or the nearest that there is: ends of slices are often the largest of all.
inline std::int64_t onnx_index(double value) {
  constexpr double most = 1LL << 53U;
  return static_cast<std::int64_t>(std::clamp(value, -most, most));
}

/// Nothing if it holds neither floats nor signed integers of 4 or 8 bytes, or is not whole.
inline std::optional<onnx_constant> read_onnx_constant(std::string_view tensor) {
  onnx_constant constant;
  std::uint64_t type = 0;
  std::string_view raw;
  std::vector<double> listed;
  const auto list_integer = [&](std::uint64_t value) {
    listed.push_back(static_cast<double>(static_cast<std::int64_t>(value)));
  };
  const auto list_floats = [&](std::string_view bytes) {
    for (std::size_t i = 0; i < bytes.size() / sizeof(float); ++i)
      listed.push_back(static_cast<double>(read_float(bytes.substr(i * sizeof(float), sizeof(float)))));
  };
  const auto read = [&](const auto& field) {
    switch (field.number) {
      case 1:
        return for_each_integer(field, [&](std::uint64_t size) { constant.sizes.push_back(static_cast<std::size_t>(size)); });
      case 2:
        type = field.value;
        return true;
      case 4:
        list_floats(field.payload);
        return true;
      case 5:
      case 7:
        return for_each_integer(field, list_integer);
      case 9:
        raw = field.payload;
        return true;
      default:
        return true;
    }
  };
  constexpr std::uint64_t floats = 1, integers = 6, long_integers = 7;
  if (!for_each_field(tensor, read) || (type != floats && type != integers && type != long_integers)) return std::nullopt;
  if (listed.empty() && type == floats) list_floats(raw);
  if (listed.empty() && type == integers)
    for (std::size_t i = 0; i < raw.size() / 4; ++i)
      listed.push_back(static_cast<std::int32_t>(read_fixed(raw.substr(i * 4, 4))));
  if (listed.empty() && type == long_integers)
    for (std::size_t i = 0; i < raw.size() / 8; ++i)
      listed.push_back(static_cast<double>(static_cast<std::int64_t>(read_fixed(raw.substr(i * 8, 8)))));
  std::size_t room = listed.size(), count = 1;
  for (const auto size : constant.sizes) {
    if (size != 0 && count > room / size) return std::nullopt;
    count *= size;
  }
  if (count != listed.size()) return std::nullopt;
  constant.values = std::move(listed);
  return constant;
}

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
