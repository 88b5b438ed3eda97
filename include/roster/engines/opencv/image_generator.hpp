#pragma once

#include <roster/call/image.hpp>
#include <roster/call/image_request.hpp>
#include <roster/call/model_info.hpp>
#include <roster/call/run_context.hpp>
#include <roster/call/sink.hpp>
#include <roster/engines/detail/seeded_random.hpp>
#include <roster/engines/opencv/detail/blob.hpp>
#include <roster/engines/opencv/detail/floats.hpp>
#include <roster/engines/opencv/detail/network.hpp>
#include <roster/engines/opencv/detail/onnx_file.hpp>
#include <roster/engines/opencv/detail/rectified_flow.hpp>
#include <roster/engines/opencv/text_encoder.hpp>
#include <roster/error.hpp>

#include <fmt/format.h>
#include <opencv2/core.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv {

/// Text to image by diffusion, with an ONNX network that OpenCV's `dnn` module runs on the CPU: an engine for `text_to_image`.
///
/// The network is one step of a rectified flow (Liu, Gong and Liu, 2023). Its inputs are `image`, `1 x channels x height x
/// width` floats, 1 or 3 channels, from noise to a picture whose values run from -1 to 1; `time`, `1 x 1`, from 0 to 1; and
/// `text`, `1 x dimension`, the vector that the text encoder makes of the prompt, or zeros for no prompt. Its output is the
/// finished picture, as far as can be told. A negative prompt takes the place of no prompt.
///
/// Each step runs the network twice, with and without the prompt; once if guidance is 1 or 0.
///
/// The noise depends on the seed alone. The picture does up to the last bits of the network's floating-point numbers, which
/// differ between processors.
///
/// What `image_encoder` says of OpenCV and of threads holds here as well.
class image_generator final {
 public:
  static constexpr std::uint32_t default_steps = 8;  ///< where a request names none
  static constexpr std::uint32_t max_steps = 1000;   ///< the most that are accepted
  static constexpr float default_guidance = 4;       ///< where a request names none
  static constexpr float max_guidance = 20;          ///< the most that is accepted; the least is 0

  /// Reads a network and tries it out. Blocks, so call it where an engine is made.
  ///
  /// **Errors**: `bad_model`, naming the file, if it is missing, damaged or not ONNX, if OpenCV cannot run it or does not run
  /// it right, or if its inputs or outputs are others than above, for this encoder.
  image_generator(const std::filesystem::path& onnx, text_encoder prompts)
      : image_generator(detail::onnx_file(onnx), std::move(prompts)) {}

  /// Takes the network over. The other generator can only be destroyed or assigned to.
  image_generator(image_generator&&) = default;

  /// Takes the network over. The other generator can only be destroyed or assigned to.
  image_generator& operator=(image_generator&&) = default;

  image_generator(const image_generator&) = delete;
  image_generator& operator=(const image_generator&) = delete;
  ~image_generator() = default;

  /// The width of all pictures.
  std::size_t width() const noexcept { return sizes_[3]; }

  /// The height of all pictures.
  std::size_t height() const noexcept { return sizes_[2]; }

  /// Adds the size of pictures, and the most characters of a prompt.
  void describe(model_info& info) const {
    info.max_image_width = width();
    info.max_image_height = height();
    info.context_length = prompts_.max_length();
  }

  /// Draws: an `image_step` after each step, with the picture so far where a preview is asked for, and then the picture.
  ///
  /// **Cancellation**: returns after the current step when nobody wants more of `out`; `operation_aborted` before the next run
  /// of the network when the context asks to stop.
  /// **Errors**: `invalid_input`, naming what is wrong and what is allowed, for a prompt that the text encoder refuses, another
  /// size than the network's, and steps or guidance out of range; `bad_output` for NaN or infinity, or if OpenCV fails. The
  /// generator remains usable.
  void run(const image_request& request, sink<image_event>& out, run_context& context) {
    const auto steps = request.steps().value_or(default_steps);
    const auto guidance = request.guidance().value_or(default_guidance);
    check(request, steps, guidance);
    const auto prompt = prompts_.embed(request.prompt(), "prompt");
    const auto no_prompt = request.negative_prompt().empty() ? std::vector<float>(prompt.size())
                                                             : prompts_.embed(request.negative_prompt(), "negative prompt");
    std::vector<float> picture(sizes_[1] * sizes_[2] * sizes_[3]);
    roster::detail::seeded_random random(request.seed());
    std::ranges::generate(picture, [&] { return random.normal(); });

    const auto predict = [&](std::span<const float> from, float time, detail::condition condition, std::span<float> clean) {
      context.throw_if_stop_requested();
      evaluate(from, time, condition == detail::condition::prompt ? prompt : no_prompt, clean);
    };
    const auto on_step = [&](std::uint32_t step) {
      context.report_progress(step, steps);
      image_step event(step, steps);
      if (request.preview_every() != 0 && step % request.preview_every() == 0) event.preview = to_image(picture);
      return out.push(std::move(event));
    };
    if (detail::follow_rectified_flow(picture, steps, guidance, predict, on_step)) out.push(to_image(picture));
  }

 private:
  image_generator(const detail::onnx_file& file, text_encoder prompts)
      : prompts_(std::move(prompts)),
        sizes_(input_sizes(file)),
        output_(file.output("", "so this is no image generator")),
        image_(detail::make_blob(sizes_)),
        time_(detail::make_blob({1, 1})),
        text_(detail::make_blob({1, prompts_.dimension()})),
        net_(file, {{"image", sizes_}, {"time", {1, 1}}, {"text", {1, prompts_.dimension()}}}, output_,
             [&](detail::network& net) { evaluate(net); }) {}

  std::vector<std::size_t> input_sizes(const detail::onnx_file& file) const {
    constexpr auto expected = "1 x channels x height x width, 1 or 3 channels";
    const auto& input = file.input("image");
    auto sizes = file.shape(input, {1, 0, 0, 0}, expected);
    if ((sizes[1] != 1 && sizes[1] != 3) || sizes[2] == 0 || sizes[3] == 0)
      file.fail(errc::bad_model, fmt::format("{}, expected {}", detail::to_string(input), expected));
    file.shape(file.input("time"), {1, 1}, "1 x 1");
    file.shape(file.input("text"), {1, prompts_.dimension()}, fmt::format("1 x {}", prompts_.dimension()));
    return sizes;
  }

  void check(const image_request& request, std::uint32_t steps, float guidance) const {
    const auto fail = [](const std::string& reason) { throw error(errc::invalid_input, reason); };
    if (request.width().value_or(width()) != width() || request.height().value_or(height()) != height())
      fail(fmt::format("size: {} x {} pixels, allowed are {} x {}", request.width().value_or(width()),
                       request.height().value_or(height()), width(), height()));
    if (steps == 0 || steps > max_steps) fail(fmt::format("steps: {}, allowed are 1 to {}", steps, max_steps));
    if (!detail::is_finite(guidance) || guidance < 0 || guidance > max_guidance)
      fail(fmt::format("guidance: {}, allowed are 0 to {}", guidance, max_guidance));
  }

  cv::Mat evaluate(detail::network& net) {
    net.set_input(image_, "image");
    net.set_input(time_, "time");
    net.set_input(text_, "text");
    return net.forward(output_, image_.total());
  }

  void evaluate(std::span<const float> picture, float time, const std::vector<float>& text, std::span<float> clean) {
    std::ranges::copy(picture, image_.ptr<float>());
    *time_.ptr<float>() = time;
    std::ranges::copy(text, text_.ptr<float>());
    const auto result = net_.guard([&] { return evaluate(net_); });
    std::copy_n(result.ptr<float>(), clean.size(), clean.begin());
  }

  image to_image(std::span<const float> values) const {
    image picture(width(), height());
    const auto area = width() * height();
    for (std::size_t i = 0; i < picture.pixels().size(); ++i) {
      const auto value = values[(sizes_[1] == 1 ? 0 : i % 3 * area) + i / 3];
      const auto level = detail::is_finite(value) ? std::nearbyint((value + 1) * 127.5F) : 0.0F;
      picture.pixels()[i] = static_cast<std::uint8_t>(std::clamp(level, 0.0F, 255.0F));
    }
    return picture;
  }

  text_encoder prompts_;
  std::vector<std::size_t> sizes_;  // of the network's input
  std::string output_;
  cv::Mat image_, time_, text_;
  detail::network net_;  // is tried out with all of the above
};

}  // namespace opencv

ROSTER_END_NAMESPACE
