// Compiled with -ffast-math, which takes std::isfinite to be true, and every comparison with NaN to be about numbers.

#include <roster/engines/opencv.hpp>

#include <bit>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#ifndef __FAST_MATH__
#error "to be compiled with -ffast-math"
#endif

namespace {

namespace opencv = roster::opencv;
using roster::errc;

int failures = 0;

void check(bool holds, const char* claim) {
  if (holds) return;
  std::fprintf(stderr, "not so: %s\n", claim);
  ++failures;
}

void check_refused(errc expected, const char* claim, const std::function<void()>& function) {
  try {
    function();
  } catch (const roster::error& failure) {
    return check(failure.code() == expected, claim);
  }
  check(false, claim);
}

template <typename Event>
class forgetful_sink final : public roster::sink<Event> {
 public:
  bool push(Event) override { return true; }
};

const std::filesystem::path data = std::filesystem::path(ROSTER_SOURCE_DIR) / "tests" / "engines" / "data";
const std::filesystem::path models = std::filesystem::path(ROSTER_SOURCE_DIR) / "examples" / "models";

// The compiler must not know them.
const volatile std::uint32_t nan_bits = 0x7FC0'0000, infinity_bits = 0x7F80'0000;
float nan_value() {
  return std::bit_cast<float>(std::uint32_t{nan_bits});
}
float infinity_value() {
  return std::bit_cast<float>(std::uint32_t{infinity_bits});
}

void check_numbers() {
  for (const float bad : {nan_value(), -nan_value(), infinity_value(), -infinity_value()}) {
    check(!opencv::detail::is_finite(bad), "NaN and infinity are not finite");
    check(!opencv::detail::is_finite(static_cast<double>(bad)), "nor are they as doubles");
    check_refused(errc::invalid_argument, "a mean is finite", [&] { opencv::image_encoder_options().mean(0, bad, 0); });
    check_refused(errc::invalid_argument, "a scale is finite", [&] { opencv::image_encoder_options().scale(bad); });
  }
  for (const float good : {0.0F, -1.5F, std::numeric_limits<float>::max(), std::numeric_limits<float>::denorm_min()})
    check(opencv::detail::is_finite(good) && opencv::detail::is_finite(static_cast<double>(good)), "numbers are finite");
}

void check_encoder() {
  opencv::image_encoder_options options;
  opencv::image_encoder encoder(data / "logarithm.onnx", options.scale(1).normalise(false));
  check_refused(errc::bad_output, "the logarithm of 0 is no result", [&] {
    roster::embeddings vectors;
    roster::run_context context;
    const std::vector<roster::image> images(1, roster::image(4, 4));
    encoder.run(images, roster::embed_options(), vectors, context);
  });
}

void check_generators() {
  opencv::text_generator speaker(models / "language.onnx");
  opencv::image_generator drawer(models / "drawing.onnx", opencv::text_encoder(models / "joint_text_encoder.onnx"));
  forgetful_sink<roster::text_event> words;
  forgetful_sink<roster::image_event> pictures;
  roster::run_context context;
  for (const float bad : {nan_value(), infinity_value()}) {
    check_refused(errc::invalid_input, "a temperature is finite",
                  [&] { speaker.run(roster::text_request("3+4").temperature(bad), words, context); });
    check_refused(errc::invalid_input, "top_p is finite",
                  [&] { speaker.run(roster::text_request("3+4").top_p(bad), words, context); });
    check_refused(errc::invalid_input, "a guidance is finite",
                  [&] { drawer.run(roster::image_request("the digit 7").guidance(bad), pictures, context); });
  }
  check_refused(errc::bad_model, "a network whose scores are NaN is no text generator",
                [&] { opencv::text_generator(data / "scores_nan.onnx"); });
}

}  // namespace

int main() {
  check_numbers();
  check_encoder();
  check_generators();
  return failures == 0 ? 0 : 1;
}
