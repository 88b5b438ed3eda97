#pragma once

#include <roster/capability/embeddings.hpp>
#include <roster/engines/opencv/network.hpp>
#include <roster/error.hpp>
#include <roster/exec/run_context.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// A network that makes a vector of each item of a batch, whatever the items are.
class embedding_network {
 public:
  /// `sizes` are those of the input: items of a batch, or 0 for any number of them, up to `max_batch`, and then those of an
  /// item. Throws `bad_model`, and `invalid_argument` if there is no output `output`.
  embedding_network(const onnx_file& file, std::string output, std::vector<std::size_t> sizes, std::size_t max_batch,
                    bool normalise)
      : output_(std::move(output)),
        sizes_(std::move(sizes)),
        fixed_batch_(sizes_[0] != 0),
        batch_(fixed_batch_ ? sizes_[0] : max_batch),
        normalise_(normalise),
        net_(file, [&](network& net) {
          if (!net.has_layer(output_))
            net.fail(errc::invalid_argument,
                     fmt::format("no output '{}', but {}", output_, fmt::join(file.signature().outputs, ", ")));
          learn_dimension(net);
        }) {}

  std::size_t dimension() const noexcept { return dimension_; }

  [[noreturn]] void fail(errc what, const std::string& why) const { net_.fail(what, why); }

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
  void clear(cv::Mat& blob, std::size_t rows) {
    sizes_[0] = rows;
    if (blob.empty() || blob.size[0] != static_cast<int>(rows))
      blob = make_blob(sizes_);
    else
      blob.setTo(0);
  }

  void learn_dimension(network& net) {
    cv::Mat blob;
    clear(blob, fixed_batch_ ? batch_ : 2);  // two, because one would not tell a vector each from a vector for all
    net.set_input(blob);
    const auto result = net.forward(output_);
    for (int axis = 1; axis < result.dims; ++axis)
      dimension_ = (std::max)(dimension_, static_cast<std::size_t>(result.size[axis]));
    check(net, result, blob, errc::bad_model);
  }

  void check(const network& net, const cv::Mat& result, const cv::Mat& blob, errc otherwise) const {
    const std::span<const int> sizes(result.size.p, static_cast<std::size_t>(result.dims));
    if (sizes.size() < 2 || sizes[0] != blob.size[0] || dimension_ == 0 ||
        result.total() != static_cast<std::size_t>(sizes[0]) * dimension_)
      net.fail(otherwise, fmt::format("output '{}' is {} for {} inputs, expected one vector of floats each", output_,
                                      describe_shape(sizes), blob.size[0]));
  }

  template <typename Place>
  void copy(const float* from, std::span<float> to, Place place) const {
    double squares = 0;
    for (std::size_t i = 0; i < to.size(); ++i)
      squares += static_cast<double>(from[i]) * static_cast<double>(from[i]);
    if (!std::isfinite(squares)) fail(errc::bad_output, "NaN or infinity " + place());
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
