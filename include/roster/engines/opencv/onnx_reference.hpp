#pragma once

#include <roster/engines/opencv/onnx_rewrite.hpp>
#include <roster/engines/opencv/onnx_signature.hpp>
#include <roster/version.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// The operators whose attributes and shapes OpenCV has been seen to take otherwise than ONNX means them, computed as plainly
/// as possible, to compare with. Where `compute` has nothing to say of an operator, or of such inputs, it says nothing.
///
/// What OpenCV 4.6 gets wrong without a word, found by comparing files with PyTorch: a constant that is not one number and not
/// one number for each channel is multiplied to channels all the same, if that many numbers fit; a constant divided by a
/// tensor; `MaxPool` with `dilations` or `SAME_LOWER`; `AveragePool` with padding; `Cast` to integers; `Softmax` of files
/// before version 13 on an axis that is not the last; `Resize` by `round_prefer_floor`; `alpha`, `beta` and `transA` of `Gemm`;
/// `training_mode` of `BatchNormalization`.
class onnx_reference {
 public:
  using tensor = onnx_constant;
  using answer = std::optional<tensor>;

  /// `inputs` are null where they are left out or unknown. `version` is that of the set of operators.
  onnx_reference(const onnx_node& node, std::vector<const tensor*> inputs, std::uint64_t version)
      : node_(node), inputs_(std::move(inputs)), version_(version) {}

  answer compute() const {
    const auto is = [&](auto... names) { return ((node_.operation == names) || ...); };
    if (inputs_.empty() || inputs_[0] == nullptr || (!node_.domain.empty() && node_.domain != "ai.onnx")) return {};
    if (is("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min")) return both();
    if (is("MaxPool", "AveragePool")) return pool();
    if (is("Softmax", "LogSoftmax")) return softmax();
    if (is("Gemm")) return gemm();
    if (is("MatMul")) return matmul();
    if (is("BatchNormalization")) return batch_normalization();
    if (is("InstanceNormalization")) return normalise(2, input(1), input(2), 1);
    if (is("LayerNormalization")) return layer_normalization();
    if (is("Resize", "Upsample")) return resize();
    if (is("Slice")) return slice();
    if (node_.operation.starts_with("Reduce")) return reduce();
    return each();
  }

 private:
  static constexpr double most_work = 1e7;  // multiplications
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

  /// Of an axis that may count from the end; the rank if there is none such.
  std::size_t axis(std::int64_t given) const {
    const auto count = static_cast<std::int64_t>(rank());
    const auto from_start = given < 0 ? given + count : given;
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
    std::vector<std::size_t> sizes(std::max(one.size(), other.size()));
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      const auto a = i < one.size() ? one[one.size() - 1 - i] : 1, b = i < other.size() ? other[other.size() - 1 - i] : 1;
      if (a != b && a != 1 && b != 1) return {};
      sizes[sizes.size() - 1 - i] = a == 1 ? b : a;
    }
    return sizes;
  }

  double combine(double a, double b) const {
    switch (node_.operation[0]) {
      case 'A':
        return a + b;
      case 'S':
        return a - b;
      case 'D':
        return a / b;
      case 'P':
        return std::pow(a, b);
      default:
        return node_.operation == "Mul" ? a * b : node_.operation == "Max" ? (std::max)(a, b) : (std::min)(a, b);
    }
  }

  answer both() const {
    if (inputs_.size() != 2 || inputs_[1] == nullptr) return {};
    const auto sizes = common(x().sizes, inputs_[1]->sizes);
    if (!sizes) return {};
    tensor result{*sizes, {}};
    for_each_pair(*sizes, x(), *inputs_[1], [&](std::size_t a, std::size_t b) {
      result.values.push_back(combine(x().values[a], inputs_[1]->values[b]));
    });
    return result;
  }

  answer each() const {
    const auto number = [&](std::string_view name, double otherwise) {
      return static_cast<double>(node_.number(name, static_cast<float>(otherwise)));
    };
    const auto map = [&](auto function) {
      tensor result = x();
      std::ranges::transform(result.values, result.values.begin(), function);
      return result;
    };
    const auto& operation = node_.operation;
    if (operation == "LeakyRelu") return map([a = number("alpha", 0.01)](double v) { return v < 0 ? a * v : v; });
    if (operation == "Elu") return map([a = number("alpha", 1)](double v) { return v < 0 ? a * std::expm1(v) : v; });
    if (operation == "Celu") return map([a = number("alpha", 1)](double v) { return v < 0 ? a * std::expm1(v / a) : v; });
    if (operation == "Selu")
      return map([a = number("alpha", 1.67326319217681884765625), g = number("gamma", 1.05070102214813232421875)](double v) {
        return g * (v < 0 ? a * std::expm1(v) : v);
      });
    if (operation == "HardSigmoid")
      return map([a = number("alpha", 0.2), b = number("beta", 0.5)](double v) { return std::clamp(a * v + b, 0.0, 1.0); });
    if (operation == "ThresholdedRelu") return map([a = number("alpha", 1)](double v) { return v > a ? v : 0; });
    if (operation == "Clip") {
      constexpr double all = (std::numeric_limits<float>::max)();
      const auto bound = [&](std::size_t index, std::string_view name, double otherwise) {
        return input(index) != nullptr && !input(index)->values.empty() ? input(index)->values[0] : number(name, otherwise);
      };
      return map(
          [low = bound(1, "min", -all), high = bound(2, "max", all)](double v) { return (std::min)(std::max(v, low), high); });
    }
    if (operation == "Relu") return map([](double v) { return v < 0 ? 0 : v; });
    if (operation == "Sqrt") return map([](double v) { return std::sqrt(v); });
    if (operation == "Tanh") return map([](double v) { return std::tanh(v); });
    if (operation == "Softplus") return map([](double v) { return std::log1p(std::exp(v)); });
    if (operation == "Gelu" && node_.text("approximate", "none") == "none")
      return map([](double v) { return v / 2 * (1 + std::erf(v / std::sqrt(2.0))); });
    constexpr std::int64_t first_integer = 2, last_integer = 7;
    const auto to = node_.integer("to", 1);
    if (operation == "Cast" && (to == 1 || (to >= first_integer && to <= last_integer)))
      return map([=](double v) { return to == 1 ? v : std::trunc(v); });
    return {};
  }

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
    // No window begins behind the end: PyTorch leaves it out, and so does ONNX since it was asked.
    if (up && (along.count - 1) * along.stride >= along.size + along.before) --along.count;
    return along;
  }

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

  answer softmax() const {
    const auto first = axis(node_.integer("axis", version_ < 13 ? 1 : -1));
    if (first >= rank()) return {};
    // Before version 13, all axes from this one on were one.
    const auto last = version_ < 13 ? rank() : first + 1;
    const auto before = product(0, first), along = product(first, last), behind = product(last, rank());
    tensor result = x();
    for (std::size_t i = 0; i < before; ++i)
      for (std::size_t j = 0; j < behind; ++j) {
        const auto at = [&](std::size_t k) -> double& { return result.values[(i * along + k) * behind + j]; };
        double most = at(0), sum = 0;
        for (std::size_t k = 0; k < along; ++k)
          most = (std::max)(most, at(k));
        for (std::size_t k = 0; k < along; ++k)
          sum += std::exp(at(k) - most);
        for (std::size_t k = 0; k < along; ++k)
          at(k) = node_.operation == "Softmax" ? std::exp(at(k) - most) / sum : at(k) - most - std::log(sum);
      }
    return result;
  }

  answer gemm() const {
    const auto* b = input(1);
    if (rank() != 2 || b == nullptr || b->sizes.size() != 2) return {};
    const bool turns_a = node_.integer("transA", 0) != 0, turns_b = node_.integer("transB", 0) != 0;
    const auto rows = x().sizes[turns_a ? 1 : 0], along = x().sizes[turns_a ? 0 : 1], columns = b->sizes[turns_b ? 0 : 1];
    if (along != b->sizes[turns_b ? 1 : 0] || too_much(rows, along, columns)) return {};
    const auto alpha = static_cast<double>(node_.number("alpha", 1)), beta = static_cast<double>(node_.number("beta", 1));
    tensor result{{rows, columns}, {}};
    for (std::size_t i = 0; i < rows; ++i)
      for (std::size_t j = 0; j < columns; ++j) {
        double sum = 0;
        for (std::size_t k = 0; k < along; ++k)
          sum += x().values[turns_a ? k * rows + i : i * along + k] * b->values[turns_b ? j * along + k : k * columns + j];
        result.values.push_back(alpha * sum);
      }
    if (node_.inputs.size() < 3 || node_.inputs[2].empty()) return result;
    const auto* c = input(2);
    if (c == nullptr || common(c->sizes, result.sizes) != result.sizes) return {};
    const auto products = result;
    for_each_pair(result.sizes, products, *c,
                  [&](std::size_t to, std::size_t from) { result.values[to] += beta * c->values[from]; });
    return result;
  }

  answer matmul() const {
    const auto* b = input(1);
    if (rank() < 2 || b == nullptr || b->sizes.size() < 2) return {};
    const auto outer = [](const tensor& of) { return tensor{{of.sizes.begin(), of.sizes.end() - 2}, {}}; };
    const auto rows = x().sizes[rank() - 2], along = x().sizes[rank() - 1], columns = b->sizes[b->sizes.size() - 1];
    auto sizes = common(outer(x()).sizes, outer(*b).sizes);
    if (!sizes || along != b->sizes[b->sizes.size() - 2] || too_much(product(*sizes) * rows, along, columns)) return {};
    tensor result;
    for_each_pair(*sizes, outer(x()), outer(*b), [&](std::size_t one, std::size_t other) {
      for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = 0; j < columns; ++j) {
          double sum = 0;
          for (std::size_t k = 0; k < along; ++k)
            sum += x().values[(one * rows + i) * along + k] * b->values[(other * along + k) * columns + j];
          result.values.push_back(sum);
        }
    });
    sizes->insert(sizes->end(), {rows, columns});
    result.sizes = *sizes;
    return result;
  }

  static bool too_much(std::size_t rows, std::size_t along, std::size_t columns) {
    return static_cast<double>(rows) * static_cast<double>(along) * static_cast<double>(columns) > most_work;
  }

  answer batch_normalization() const {
    if (rank() < 2 || inputs_.size() < 5 || std::ranges::find(inputs_, nullptr) != inputs_.end()) return {};
    if (node_.integer("training_mode", 0) !=
        0)  // with a batch's own statistics: of a batch of one, as in normalisation by instance
      return x().sizes[0] == 1 ? normalise(2, input(1), input(2), 1) : answer();
    const auto channels = x().sizes[1], area = product(2, rank());
    for (std::size_t i = 1; i < 5; ++i)
      if (inputs_[i]->values.size() != channels) return {};
    const auto small = static_cast<double>(node_.number("epsilon", 1e-5F));
    tensor result = x();
    for (std::size_t i = 0; i < result.values.size(); ++i) {
      const auto c = i / area % channels;
      result.values[i] =
          (result.values[i] - inputs_[3]->values[c]) / std::sqrt(inputs_[4]->values[c] + small) * inputs_[1]->values[c] +
          inputs_[2]->values[c];
    }
    return result;
  }

  answer layer_normalization() const {
    const auto first = axis(node_.integer("axis", -1));
    return first < rank() && node_.outputs.size() == 1 ? normalise(first, input(1), input(2), first) : answer();
  }

  /// Each part along the axes from `first` on is brought to mean 0 and variance 1, and then scaled and shifted along the axes
  /// from `scaled` on.
  answer normalise(std::size_t first, const tensor* scale, const tensor* shift, std::size_t scaled) const {
    if (rank() <= first || scale == nullptr) return {};
    const auto part = product(first, rank());
    const auto behind = scaled < first ? part : std::size_t{1};
    const auto small = static_cast<double>(node_.number("epsilon", 1e-5F));
    tensor result = x();
    for (std::size_t begin = 0; begin + part <= result.values.size(); begin += part) {
      const auto values = std::span(result.values).subspan(begin, part);
      const auto count = static_cast<double>(part);
      const auto mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
      double variance = 0;
      for (const auto value : values)
        variance += (value - mean) * (value - mean) / count;
      for (std::size_t i = 0; i < part; ++i) {
        const auto index = (begin + i) / behind % scale->values.size();
        values[i] = (values[i] - mean) / std::sqrt(variance + small) * scale->values[index] +
                    (shift != nullptr && index < shift->values.size() ? shift->values[index] : 0);
      }
    }
    return result;
  }

  answer reduce() const {
    auto axes = node_.integers("axes");
    if (node_.inputs.size() == 2 && !node_.inputs[1].empty()) {
      if (input(1) == nullptr) return {};
      for (const auto value : input(1)->values)
        axes.push_back(onnx_index(value));
    }
    if (axes.empty() && node_.integer("noop_with_empty_axes", 0) != 0) return x();
    std::vector<bool> goes(rank(), axes.empty());
    for (const auto each : axes)
      if (axis(each) < rank()) goes[axis(each)] = true;
    tensor result;
    for (std::size_t i = 0; i < rank(); ++i)
      result.sizes.push_back(goes[i] ? 1 : x().sizes[i]);
    const auto kind = node_.operation.substr(6);
    const bool is_max = kind == "Max", is_min = kind == "Min", is_square = kind == "L2" || kind == "SumSquare",
               is_l1 = kind == "L1";
    if (!is_max && !is_min && !is_square && !is_l1 && kind != "Mean" && kind != "Sum") return {};
    result.values.resize(product(result.sizes), is_max ? lowest : is_min ? -lowest : 0);
    for_each_pair(x().sizes, x(), tensor(result), [&](std::size_t from, std::size_t to) {
      const auto value = x().values[from];
      auto& sum = result.values[to];
      sum = is_max   ? (std::max)(sum, value)
            : is_min ? (std::min)(sum, value)
                     : sum + (is_square ? value * value
                              : is_l1   ? std::abs(value)
                                        : value);
    });
    for (auto& value : result.values) {
      if (kind == "L2") value = std::sqrt(value);
      if (kind == "Mean") value *= static_cast<double>(result.values.size()) / static_cast<double>(x().values.size());
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
      const auto place = [&](std::int64_t given) {
        return std::clamp<std::int64_t>(given < 0 ? given + size : given, 0, size);
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

  /// Where the values of an axis that is resized come from: between which two, and how far from the first.
  struct source {
    std::size_t low, high;
    double share;
  };

  std::optional<std::vector<source>> sources(std::size_t size, std::size_t target, double scale) const {
    const bool is_new = node_.operation == "Resize" && version_ >= 11;
    const auto where = is_new ? node_.text("coordinate_transformation_mode", "half_pixel") : "asymmetric";
    const auto how = is_new ? node_.text("nearest_mode", "round_prefer_floor") : "floor";
    const auto mode = node_.text("mode", "nearest");
    const auto last = static_cast<double>(size - 1);
    std::vector<source> found;
    for (std::size_t i = 0; i < target; ++i) {
      const auto at = static_cast<double>(i);
      double from = 0;
      if (where == "half_pixel" || where == "pytorch_half_pixel")
        from = where != "half_pixel" && target == 1 ? 0 : (at + 0.5) / scale - 0.5;
      else if (where == "align_corners")
        from = target == 1 ? 0 : at * last / static_cast<double>(target - 1);
      else if (where == "asymmetric")
        from = at / scale;
      else
        return {};
      if (mode == "nearest") {
        // Whichever side of a half or of a whole number rounding errors fall on is nobody's fault.
        constexpr double slack = 1e-6;
        from = how == "floor"                ? std::floor(from + slack)
               : how == "ceil"               ? std::ceil(from - slack)
               : how == "round_prefer_floor" ? std::ceil(from - 0.5 - slack)
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

  const onnx_node& node_;
  std::vector<const tensor*> inputs_;
  std::uint64_t version_;
};

}  // namespace detail

ROSTER_END_NAMESPACE
