#pragma once

#include <roster/engines/opencv/detail/onnx_operator.hpp>
#include <roster/version.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// Operators that compute each element of their result from one element of each input.
class onnx_elementwise : private onnx_operator {
 public:
  using onnx_operator::answer;

  explicit onnx_elementwise(const onnx_operator& of) : onnx_operator(of) {}

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
      return map([low = bound(1, "min", -all), high = bound(2, "max", all)](double v) {
        return (std::min)((std::max)(v, low), high);
      });
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

 private:
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
};

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
