#pragma once

#include <roster/call/embeddings.hpp>
#include <roster/call/run_context.hpp>
#include <roster/engines/opencv/detail/blob.hpp>
#include <roster/engines/opencv/detail/floats.hpp>
#include <roster/engines/opencv/detail/network.hpp>
#include <roster/engines/opencv/detail/network_input.hpp>
#include <roster/engines/opencv/detail/onnx_file.hpp>
#include <roster/engines/opencv/detail/onnx_signature.hpp>
#include <roster/error.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <opencv2/core.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// Whether OpenCV can be given several items at once without risk, though its importer was told of one.
///
/// OpenCV 4.6 writes the sizes that it was told into what it makes of `Reshape`, `ReduceMean`, `Squeeze`, `Transpose`, `Expand`
/// and others. With other sizes such a layer gives one dimension too many, and a convolution behind it divides by zero: the
/// process ends. The operators below leave the dimensions of their input alone, so at worst a result is wrong or refused.
inline bool may_be_batched(const onnx_signature& signature) {
  static const std::unordered_set<std::string_view> operations{"Abs",
                                                               "Add",
                                                               "AveragePool",
                                                               "BatchNormalization",
                                                               "Celu",
                                                               "Clip",
                                                               "Constant",
                                                               "Conv",
                                                               "Div",
                                                               "Dropout",
                                                               "Elu",
                                                               "Erf",
                                                               "Exp",
                                                               "Flatten",
                                                               "Gelu",
                                                               "Gemm",
                                                               "GlobalAveragePool",
                                                               "GlobalMaxPool",
                                                               "HardSwish",
                                                               "LRN",
                                                               "HardSigmoid",
                                                               "Identity",
                                                               "LeakyRelu",
                                                               "InstanceNormalization",
                                                               "Log",
                                                               "MaxPool",
                                                               "Mish",
                                                               "Mul",
                                                               "Neg",
                                                               "PRelu",
                                                               "Pad",
                                                               "Pow",
                                                               "Relu",
                                                               "Selu",
                                                               "Reciprocal",
                                                               "Sigmoid",
                                                               "Softmax",
                                                               "Softplus",
                                                               "Softsign",
                                                               "Sqrt",
                                                               "Sub",
                                                               "Tanh",
                                                               "Concat",
                                                               "ThresholdedRelu"};
  return std::ranges::all_of(signature.nodes, [&](const auto& node) {
    return operations.contains(node.operation) && (node.operation != "Flatten" || node.integer("axis", 1) == 1) &&
           (node.operation != "Conv" || (node.inputs.size() > 1 && signature.constants.contains(node.inputs[1])));
  });
}

/// A network that makes a vector of each item of a batch, whatever the items are.
///
/// The vector of an item never depends on the others: a file that leaves the batch open is told to OpenCV as one of a batch of
/// one. More than one at once are computed only where that is known to be safe, and where a trial gives each item what it gets
/// alone.
class embedding_network {
 public:
  /// `sizes` are those of the input: items of a batch, or 0 for any number of them, up to `max_batch`, and then those of an
  /// item. Throws `bad_model`, and `invalid_argument` if there is no output `output`.
  embedding_network(const onnx_file& file, std::string output, std::vector<std::size_t> sizes, std::size_t max_batch,
                    bool normalise)
      : output_(std::move(output)),
        sizes_(std::move(sizes)),
        fixed_batch_(sizes_[0] != 0),
        batch_(fixed_batch_ ? sizes_[0] : 1),
        normalise_(normalise),
        net_(file, {{std::string(file.signature().inputs.front().name), with_batch(batch_)}}, output_, [&](network& net) {
          if (!net.has_layer(output_))
            net.fail(errc::invalid_argument,
                     fmt::format("no output '{}', but {}", output_, fmt::join(file.signature().outputs, ", ")));
          learn_dimension(net);
          if (fixed_batch_)
            check_neighbours(net);
          else if (max_batch > 1 && may_be_batched(file.signature()))
            learn_batch(net, max_batch);
        }) {}

  std::size_t dimension() const noexcept { return dimension_; }

  /// How many items are computed at once.
  std::size_t batch() const noexcept { return batch_; }

  [[noreturn]] void fail(errc code, const std::string& reason) const { net_.fail(code, reason); }

  /// A vector for each of `count` items, of which `write(index, float*)` writes one into zeros. `item` says what they are.
  template <typename Write>
  void run(std::size_t count, const char* item, embeddings& vectors, run_context& context, Write write) {
    vectors.resize(count, dimension_);
    cv::Mat blob;
    for (std::size_t done = 0; done < count;) {
      context.throw_if_stop_requested();
      const auto size = (std::min)(batch_, count - done);
      net_.guard([&] {
        clear(blob, fixed_batch_ ? batch_ : size);
        for (std::size_t index = 0; index < size; ++index)
          write(done + index, blob.ptr<float>(static_cast<int>(index)));
        net_.set_input(blob);
        const auto result = net_.forward(output_);
        check(net_, result, blob, errc::bad_output);
        for (std::size_t index = 0; index < size; ++index)
          copy(result.ptr<float>(static_cast<int>(index)), vectors[done + index],
               [&] { return fmt::format("for {} {} of {}", item, done + index + 1, count); });
      });
      done += size;
      context.report_progress(static_cast<std::uint32_t>(done), static_cast<std::uint32_t>(count));
    }
  }

 private:
  static constexpr double tolerance = 1e-4;

  std::vector<std::size_t> with_batch(std::size_t items) const {
    auto sizes = sizes_;
    sizes[0] = items;
    return sizes;
  }

  void clear(cv::Mat& blob, std::size_t rows) const {
    if (blob.empty() || blob.size[0] != static_cast<int>(rows))
      blob = make_blob(with_batch(rows));
    else
      blob.setTo(0);
  }

  void learn_dimension(network& net) {
    cv::Mat blob;
    clear(blob, batch_);
    net.set_input(blob);
    const auto result = net.forward(output_);
    for (int axis = 1; axis < result.dims; ++axis)
      dimension_ = (std::max)(dimension_, static_cast<std::size_t>(result.size[axis]));
    check(net, result, blob, errc::bad_model);
  }

  /// A vector for each of the trial's items with these numbers, computed together.
  std::vector<std::vector<float>> compute_trial(network& net, const std::vector<std::uint32_t>& numbers) const {
    cv::Mat blob;
    clear(blob, numbers.size());
    for (std::size_t row = 0; row < numbers.size(); ++row)
      fill_for_trial({blob.ptr<float>(static_cast<int>(row)), blob.total() / numbers.size()}, numbers[row]);
    net.set_input(blob);
    const auto result = net.forward(output_);
    check(net, result, blob, errc::bad_model);
    std::vector<std::vector<float>> vectors;
    for (std::size_t row = 0; row < numbers.size(); ++row) {
      const auto* values = result.ptr<float>(static_cast<int>(row));
      vectors.emplace_back(values, values + dimension_);
    }
    return vectors;
  }

  static bool are_alike(const std::vector<float>& one, const std::vector<float>& other) {
    return agree(std::span<const float>(one), std::span<const float>(other), tolerance);
  }

  /// Two and three different items together, and each alone. More could only differ where a layer mixes them, and then two do.
  bool gives_the_same_together(network& net) const {
    try {
      std::vector<std::vector<float>> alone;
      for (const std::uint32_t number : {0U, 1U, 2U})
        alone.push_back(compute_trial(net, {number}).front());
      if (are_alike(alone[0], alone[1]) || are_alike(alone[1], alone[2])) return false;  // it would tell nothing
      const auto three = compute_trial(net, {0, 1, 2}), two = compute_trial(net, {1, 0});
      return std::ranges::equal(three, alone, are_alike) && are_alike(two[0], alone[1]) && are_alike(two[1], alone[0]);
    } catch (const cv::Exception&) {
    } catch (const error&) {
    }
    return false;
  }

  void learn_batch(network& net, std::size_t max_batch) {
    if (gives_the_same_together(net))
      batch_ = max_batch;
    else
      net.reload();
  }

  /// Of a network that was exported for one batch size.
  void check_neighbours(network& net) const {
    if (batch_ == 1) return;
    std::vector<std::uint32_t> numbers(batch_, 2);
    numbers[0] = 0;
    const auto before = compute_trial(net, numbers);
    numbers[1] = 1;
    const auto after = compute_trial(net, numbers);
    if (!are_alike(before[0], after[0]))
      net.fail(errc::bad_model,
               fmt::format("output '{}' is no vector for each input, but depends on the others of a batch", output_));
  }

  void check(const network& net, const cv::Mat& result, const cv::Mat& blob, errc otherwise) const {
    const std::span<const int> sizes(result.size.p, static_cast<std::size_t>(result.dims));
    if (sizes.size() < 2 || sizes[0] != blob.size[0] || dimension_ == 0 ||
        result.total() != static_cast<std::size_t>(sizes[0]) * dimension_)
      net.fail(otherwise, fmt::format("output '{}' is {} for a batch of {}, expected one vector of floats each", output_,
                                      describe_shape(sizes), blob.size[0]));
  }

  template <typename Place>
  void copy(const float* from, std::span<float> to, Place place) const {
    if (!are_finite({from, to.size()})) fail(errc::bad_output, "NaN or infinity " + place());
    double squares = 0;
    for (std::size_t i = 0; i < to.size(); ++i)
      squares += static_cast<double>(from[i]) * static_cast<double>(from[i]);
    if (normalise_ && squares == 0) fail(errc::bad_output, "a vector of length 0, which cannot be normalised, " + place());
    const auto factor = normalise_ ? 1 / std::sqrt(squares) : 1.0;
    for (std::size_t i = 0; i < to.size(); ++i)
      to[i] = static_cast<float>(static_cast<double>(from[i]) * factor);
  }

  std::string output_;
  std::vector<std::size_t> sizes_;
  bool fixed_batch_;
  std::size_t batch_;
  bool normalise_;
  std::size_t dimension_ = 0;
  network net_;  // is tried out with all of the above
};

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
