#pragma once

#include <roster/engines/opencv/detail/onnx_operator.hpp>
#include <roster/version.hpp>

#include <cstddef>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// Products of matrices. Nothing where they would take too long.
class onnx_products : private onnx_operator {
 public:
  using onnx_operator::answer;

  explicit onnx_products(const onnx_operator& of) : onnx_operator(of) {}

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

 private:
  static constexpr double most_work = 1e7;  // multiplications

  static bool too_much(std::size_t rows, std::size_t along, std::size_t columns) {
    return static_cast<double>(rows) * static_cast<double>(along) * static_cast<double>(columns) > most_work;
  }
};

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
