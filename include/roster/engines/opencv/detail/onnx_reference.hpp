#pragma once

#include <roster/engines/opencv/detail/onnx_elementwise.hpp>
#include <roster/engines/opencv/detail/onnx_operator.hpp>
#include <roster/engines/opencv/detail/onnx_products.hpp>
#include <roster/engines/opencv/detail/onnx_sampling.hpp>
#include <roster/engines/opencv/detail/onnx_statistics.hpp>
#include <roster/version.hpp>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// The operators whose attributes and shapes OpenCV has been seen to take otherwise than ONNX means them, computed as ONNX
/// defines them, to compare with. `compute` returns nothing for other operators and inputs.
///
/// What OpenCV 4.6 gets wrong without an error, found by comparing files with PyTorch: a constant that is not one number and
/// not one number for each channel is multiplied to channels all the same, if that many numbers fit; a constant divided by a
/// tensor; `MaxPool` with `dilations` or `SAME_LOWER`; `AveragePool` with padding; `Cast` to integers; `Softmax` of files
/// before version 13 on an axis that is not the last; `Resize` by `round_prefer_floor`; `alpha`, `beta` and `transA` of `Gemm`;
/// `training_mode` of `BatchNormalization`.
class onnx_reference : private onnx_operator {
 public:
  using onnx_operator::answer, onnx_operator::onnx_operator;

  answer compute() const {
    const auto is = [&](auto... names) { return ((node_.operation == names) || ...); };
    if (inputs_.empty() || inputs_[0] == nullptr || (!node_.domain.empty() && node_.domain != "ai.onnx")) return {};
    if (is("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min")) return onnx_elementwise(*this).both();
    if (is("MaxPool", "AveragePool")) return onnx_sampling(*this).pool();
    if (is("Softmax", "LogSoftmax")) return onnx_statistics(*this).softmax();
    if (is("Gemm")) return onnx_products(*this).gemm();
    if (is("MatMul")) return onnx_products(*this).matmul();
    if (is("BatchNormalization")) return onnx_statistics(*this).batch_normalization();
    if (is("InstanceNormalization")) return onnx_statistics(*this).instance_normalization();
    if (is("LayerNormalization")) return onnx_statistics(*this).layer_normalization();
    if (is("Resize", "Upsample")) return onnx_sampling(*this).resize();
    if (is("Slice")) return onnx_sampling(*this).slice();
    if (node_.operation.starts_with("Reduce")) return onnx_statistics(*this).reduce();
    return onnx_elementwise(*this).each();
  }
};

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
