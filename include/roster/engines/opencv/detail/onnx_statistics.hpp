#pragma once

#include <roster/engines/opencv/detail/onnx_constant.hpp>
#include <roster/engines/opencv/detail/onnx_operator.hpp>
#include <roster/version.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// Normalisations, `Softmax` and reductions: they combine all elements along some axes.
class onnx_statistics : private onnx_operator {
 public:
  using onnx_operator::answer;

  explicit onnx_statistics(const onnx_operator& of) : onnx_operator(of) {}

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

  answer batch_normalization() const {
    if (rank() < 2 || inputs_.size() < 5 || std::ranges::find(inputs_, nullptr) != inputs_.end()) return {};
    if (node_.integer("training_mode", 0) != 0)  // with the batch's own statistics; of one item, they are the instance's
      return x().sizes[0] == 1 ? instance_normalization() : answer();
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

  answer instance_normalization() const { return normalise(2, input(1), input(2), 1); }

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

 private:
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
};

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
