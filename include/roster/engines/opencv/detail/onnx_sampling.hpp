#pragma once

#include <roster/engines/opencv/detail/onnx_constant.hpp>
#include <roster/engines/opencv/detail/onnx_operator.hpp>
#include <roster/version.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// Pools, slices and changes of size: they take elements of their input by position.
class onnx_sampling : private onnx_operator {
 public:
  using onnx_operator::answer;

  explicit onnx_sampling(const onnx_operator& of) : onnx_operator(of) {}

  answer pool() const {
    if (rank() != 4 || node_.outputs.size() != 1) return {};
    const auto rows = windows_along(0), columns = windows_along(1);
    if (!rows || !columns) return {};
    const bool takes_most = node_.operation == "MaxPool", counts_all = node_.integer("count_include_pad", 0) != 0;
    tensor result{{x().sizes[0], x().sizes[1], static_cast<std::size_t>(rows->count), static_cast<std::size_t>(columns->count)},
                  {}};
    const auto planes = product(0, 2), area = product(2, 4);
    for (std::size_t plane = 0; plane < planes; ++plane)
      for (std::int64_t v = 0; v < rows->count; ++v)
        for (std::int64_t u = 0; u < columns->count; ++u) {
          double most = lowest, sum = 0;
          std::int64_t inside = 0, padded = 0;
          for (std::int64_t i = 0; i < rows->kernel; ++i)
            for (std::int64_t j = 0; j < columns->kernel; ++j) {
              const auto row = v * rows->stride - rows->before + i * rows->dilation;
              const auto column = u * columns->stride - columns->before + j * columns->dilation;
              padded += row < rows->size + rows->after && column < columns->size + columns->after;
              if (row < 0 || column < 0 || row >= rows->size || column >= columns->size) continue;
              const auto value = x().values[plane * area + static_cast<std::size_t>(row * columns->size + column)];
              most = (std::max)(most, value);
              sum += value;
              ++inside;
            }
          result.values.push_back(takes_most ? most : sum / static_cast<double>(counts_all ? padded : inside));
        }
    return result;
  }

  answer slice() const {
    std::vector<std::int64_t> lists[4] = {node_.integers("starts"), node_.integers("ends"), node_.integers("axes"), {}};
    for (std::size_t i = 1; i < inputs_.size(); ++i) {
      if (i > 4 || inputs_[i] == nullptr) return {};
      for (const auto value : inputs_[i]->values)
        lists[i - 1].push_back(onnx_index(value));
    }
    auto& [starts, ends, axes, steps] = lists;
    tensor result = x();
    if (axes.empty())
      for (std::size_t i = 0; i < starts.size(); ++i)
        axes.push_back(static_cast<std::int64_t>(i));
    if (ends.size() != starts.size() || axes.size() != starts.size() || (!steps.empty() && steps.size() != starts.size()))
      return {};
    for (std::size_t i = 0; i < starts.size(); ++i) {
      const auto along = axis(axes[i]);
      if (along >= rank() || (!steps.empty() && steps[i] <= 0)) return {};
      const auto size = static_cast<std::int64_t>(result.sizes[along]);
      const auto place = [&](std::int64_t index) {
        return std::clamp<std::int64_t>(index < 0 ? index + size : index, 0, size);
      };
      std::vector<double> kept;
      const auto outer = product(std::span(result.sizes).first(along)),
                 inner = product(std::span(result.sizes).subspan(along + 1));
      std::size_t count = 0;
      for (std::size_t o = 0; o < outer; ++o) {
        count = 0;
        for (auto at = place(starts[i]); at < place(ends[i]); at += steps.empty() ? 1 : steps[i], ++count) {
          const auto from = result.values.begin() +
                            static_cast<std::ptrdiff_t>((o * result.sizes[along] + static_cast<std::size_t>(at)) * inner);
          kept.insert(kept.end(), from, from + static_cast<std::ptrdiff_t>(inner));
        }
      }
      result.sizes[along] = count;
      result.values = std::move(kept);
    }
    return result;
  }

  answer resize() const {
    if (rank() != 4) return {};
    const auto* scales = node_.inputs.size() == 2 ? input(1) : input(2);
    const auto* targets = input(3);
    const bool by_scale = scales != nullptr && scales->values.size() == 4;
    if (!by_scale && (targets == nullptr || targets->values.size() != 4)) return {};
    std::vector<source> from[2];
    tensor result{{x().sizes[0], x().sizes[1]}, {}};
    for (std::size_t i = 0; i < 2; ++i) {
      const auto size = x().sizes[2 + i];
      const auto target =
          by_scale ? std::floor(static_cast<double>(size) * scales->values[2 + i] + 1e-6) : targets->values[2 + i];
      if (size == 0 || !(target >= 1 && target < 1e6)) return {};
      auto found = sources(size, static_cast<std::size_t>(target),
                           by_scale ? scales->values[2 + i] : target / static_cast<double>(size));
      if (!found) return {};
      from[i] = std::move(*found);
      result.sizes.push_back(from[i].size());
    }
    for (std::size_t plane = 0; plane < product(0, 2); ++plane)
      for (const auto& row : from[0])
        for (const auto& column : from[1]) {
          const auto at = [&](std::size_t v, std::size_t u) {
            return x().values[(plane * x().sizes[2] + v) * x().sizes[3] + u];
          };
          const auto mix = [&](std::size_t v) { return std::lerp(at(v, column.low), at(v, column.high), column.share); };
          result.values.push_back(std::lerp(mix(row.low), mix(row.high), row.share));
        }
    return result;
  }

 private:
  /// Where windows lie along an axis.
  struct windows {
    std::int64_t size, kernel, stride, dilation, before, after, count;
  };

  std::optional<windows> windows_along(std::size_t index) const {
    const auto kernels = node_.integers("kernel_shape"), strides = node_.integers("strides"), pads = node_.integers("pads"),
               dilations = node_.integers("dilations");
    if (kernels.size() != 2 || (!strides.empty() && strides.size() != 2) || (!pads.empty() && pads.size() != 4) ||
        (!dilations.empty() && dilations.size() != 2))
      return {};
    windows along{static_cast<std::int64_t>(x().sizes[2 + index]),  //
                  kernels[index],
                  strides.empty() ? 1 : strides[index],
                  dilations.empty() ? 1 : dilations[index],
                  pads.empty() ? 0 : pads[index],
                  pads.empty() ? 0 : pads[index + 2],
                  0};
    if (along.kernel <= 0 || along.stride <= 0 || along.dilation <= 0) return {};
    const auto reach = along.dilation * (along.kernel - 1) + 1;
    const auto same = node_.text("auto_pad", "NOTSET");
    if (same.starts_with("SAME")) {
      along.count = (along.size + along.stride - 1) / along.stride;
      const auto all = (std::max<std::int64_t>)(0, (along.count - 1) * along.stride + reach - along.size);
      along.before = same == "SAME_UPPER" ? all / 2 : all - all / 2;
      along.after = all - along.before;
      return along;
    }
    const auto left = along.size + along.before + along.after - reach;
    if (left < 0) return {};
    const bool up = node_.integer("ceil_mode", 0) != 0;
    along.count = (up ? (left + along.stride - 1) / along.stride : left / along.stride) + 1;
    // PyTorch and newer versions of ONNX leave out a window that begins behind the end.
    if (up && (along.count - 1) * along.stride >= along.size + along.before) --along.count;
    return along;
  }

  /// Where the values of an axis that is resized come from: between which two, and how far from the first.
  struct source {
    std::size_t low, high;
    double share;
  };

  std::optional<std::vector<source>> sources(std::size_t size, std::size_t target, double scale) const {
    const bool is_new = node_.operation == "Resize" && version_ >= 11;
    const auto transformation = is_new ? node_.text("coordinate_transformation_mode", "half_pixel") : "asymmetric";
    const auto rounding = is_new ? node_.text("nearest_mode", "round_prefer_floor") : "floor";
    const auto mode = node_.text("mode", "nearest");
    const auto last = static_cast<double>(size - 1);
    std::vector<source> found;
    for (std::size_t i = 0; i < target; ++i) {
      const auto at = static_cast<double>(i);
      double from = 0;
      if (transformation == "half_pixel" || transformation == "pytorch_half_pixel")
        from = transformation != "half_pixel" && target == 1 ? 0 : (at + 0.5) / scale - 0.5;
      else if (transformation == "align_corners")
        from = target == 1 ? 0 : at * last / static_cast<double>(target - 1);
      else if (transformation == "asymmetric")
        from = at / scale;
      else
        return {};
      if (mode == "nearest") {
        // Rounding errors may fall on either side of a half or of a whole number.
        constexpr double slack = 1e-6;
        from = rounding == "floor"                ? std::floor(from + slack)
               : rounding == "ceil"               ? std::ceil(from - slack)
               : rounding == "round_prefer_floor" ? std::ceil(from - 0.5 - slack)
                                                  : std::floor(from + 0.5 + slack);
      } else if (mode != "linear" || !is_new) {  // which older versions leave open
        return {};
      }
      from = std::clamp(from, 0.0, last);
      const auto low = static_cast<std::size_t>(from);
      found.push_back({low, (std::min)(low + 1, size - 1), from - std::floor(from)});
    }
    return found;
  }
};

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
