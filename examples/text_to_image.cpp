// Draws prompts with a diffusion model, each with several seeds, 64 requests at a time, and writes the pictures as one sheet: a
// row per prompt. With previews, each picture follows what was to be seen of it every so many steps.
//
//     text_to_image PROMPT... [--seed FIRST] [--seeds COUNT] [--steps N] [--guidance G] [--previews EVERY] [--output FILE.png]
//                   [--models FOLDER]

#include "support/arguments.hpp"
#include "support/contact_sheet.hpp"
#include "support/progress_bar.hpp"
#include "support/run_all.hpp"
#include "support/small_models.hpp"

#include <boost/asio/io_context.hpp>

#include <opencv2/core/utility.hpp>

#include <memory>

namespace asio = boost::asio;
using asio::awaitable;
using pictures = std::vector<roster::image>;  // previews, and then the result

awaitable<pictures> draw(model_catalog& models, roster::image_request request, progress_bar& bar) {
  const auto painter = co_await models.get<roster::text_to_image>("digits");
  auto drawing = painter->generate(std::move(request));
  pictures seen;
  while (auto event = co_await drawing.next()) {
    if (auto* step = std::get_if<roster::image_step>(&*event)) {
      bar.show(step->step, step->total);
      if (step->preview) seen.push_back(std::move(*step->preview));
    } else {
      seen.push_back(std::move(std::get<roster::image>(*event)));
    }
  }
  co_return seen;
}

awaitable<void> application(roster::blocking_pool& pool, const arguments& given) {
  model_catalog models{co_await asio::this_coro::executor};
  co_await add_small_models(models, pool, given.text("--models", ROSTER_EXAMPLE_MODELS), 1);

  const auto seeds = given.count("--seeds", 1);
  const auto first_seed = given.number("--seed", std::uint64_t{1});
  std::vector<pictures> drawn(given.words.size() * seeds);
  const std::function job = [&](std::size_t number) -> awaitable<void> {
    const auto& prompt = given.words[number / seeds];
    const auto seed = first_seed + number % seeds;
    roster::image_request request(prompt);
    request.seed(seed).preview_every(given.number("--previews", std::uint32_t{0}));
    if (given.has("--steps")) request.steps(given.number("--steps", std::uint32_t{0}));
    if (given.has("--guidance")) request.guidance(given.number("--guidance", 0.0F));
    progress_bar bar(fmt::format("{}, seed {}", prompt, seed));
    drawn[number] = co_await draw(models, std::move(request), bar);
  };
  co_await run_all(drawn.size(), 64, job);

  contact_sheet sheet(2);
  for (std::size_t row = 0; row < given.words.size(); ++row) {
    std::vector<contact_sheet::cell> cells;
    for (std::size_t column = 0; column < seeds; ++column)
      for (const auto& picture : drawn[row * seeds + column])
        cells.push_back({&picture, {80, 80, 80}});
    sheet.add_row(std::move(cells));
  }
  const auto file = given.text("--output", "text_to_image.png");
  sheet.write(file);
  fmt::print("{}\n", file);
}

int main(int argc, char** argv) try {
  cv::setNumThreads(1);
  const arguments given(argc, argv, {"--seed", "--seeds", "--steps", "--guidance", "--previews", "--output", "--models"});
  if (given.words.empty()) throw std::invalid_argument("what shall it draw? For example 'the digit seven'");
  asio::io_context loop;
  roster::blocking_pool pool{1};
  asio::co_spawn(loop, application(pool, given), [](std::exception_ptr failure) {
    if (failure) std::rethrow_exception(failure);
  });
  loop.run();
} catch (const std::exception& failure) {
  fmt::print(stderr, "text_to_image: {}\n", failure.what());
  return 1;
}
