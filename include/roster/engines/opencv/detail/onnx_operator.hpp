#pragma once

#include <roster/engines/opencv/detail/onnx_constant.hpp>
#include <roster/engines/opencv/detail/onnx_signature.hpp>
#include <roster/version.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// An operator with what is known of its inputs, and what the computations of several operators need.
class onnx_operator {
 public:
  using tensor = onnx_constant;
  using answer = std::optional<tensor>;

  /// `inputs` are null where they are left out or unknown. `version` is that of the set of operators.
  onnx_operator(const onnx_node& node, std::vector<const tensor*> inputs, std::uint64_t version)
      : node_(node), inputs_(std::move(inputs)), version_(version) {}

 protected:
  static constexpr double lowest = std::numeric_limits<double>::lowest();

  const tensor& x() const { return *inputs_[0]; }
  const tensor* input(std::size_t index) const { return index < inputs_.size() ? inputs_[index] : nullptr; }
  std::size_t rank() const { return x().sizes.size(); }

  static std::size_t product(std::span<const std::size_t> sizes) {
    return std::accumulate(sizes.begin(), sizes.end(), std::size_t{1}, std::multiplies<>());
  }
  std::size_t product(std::size_t first, std::size_t last) const {
    return product(std::span(x().sizes).subspan(first, last - first));
  }

  /// The place of an axis that may count from the end; the rank if there is no such axis.
  std::size_t axis(std::int64_t index) const {
    const auto count = static_cast<std::int64_t>(rank());
    const auto from_start = index < 0 ? index + count : index;
    return from_start < 0 || from_start > count ? rank() : static_cast<std::size_t>(from_start);
  }

  /// Calls `visit(offset of the one, offset of the other)` for each element of `sizes`, to which both are stretched.
  template <typename Visit>
  static void for_each_pair(const std::vector<std::size_t>& sizes, const tensor& one, const tensor& other, Visit visit) {
    const auto strides = [&](const tensor& of) {
      std::vector<std::size_t> found(sizes.size(), 0);
      const auto missing = sizes.size() - of.sizes.size();
      std::size_t stride = 1;
      for (auto i = of.sizes.size(); i-- > 0; stride *= of.sizes[i])
        if (of.sizes[i] != 1) found[i + missing] = stride;
      return found;
    };
    const auto a = strides(one), b = strides(other);
    std::vector<std::size_t> place(sizes.size(), 0);
    std::size_t at_a = 0, at_b = 0;
    for (auto left = product(sizes); left > 0; --left) {
      visit(at_a, at_b);
      for (auto i = sizes.size(); i-- > 0;) {
        at_a += a[i];
        at_b += b[i];
        if (++place[i] < sizes[i]) break;
        at_a -= a[i] * sizes[i];
        at_b -= b[i] * sizes[i];
        place[i] = 0;
      }
    }
  }

  /// The sizes to which both can be stretched.
  static std::optional<std::vector<std::size_t>> common(const std::vector<std::size_t>& one,
                                                        const std::vector<std::size_t>& other) {
    std::vector<std::size_t> sizes((std::max)(one.size(), other.size()));
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      const auto a = i < one.size() ? one[one.size() - 1 - i] : 1, b = i < other.size() ? other[other.size() - 1 - i] : 1;
      if (a != b && a != 1 && b != 1) return {};
      sizes[sizes.size() - 1 - i] = a == 1 ? b : a;
    }
    return sizes;
  }

  const onnx_node& node_;
  std::vector<const tensor*> inputs_;
  std::uint64_t version_;
};

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
