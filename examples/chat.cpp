// Talks with a language model that streams its answers, and that Ctrl-C stops in mid-answer; between answers, it ends the
// program. The model answers in milliseconds: `--delay 300` between tokens leaves time for that.
//
//     chat [QUESTION] [--delay MILLISECONDS] [--temperature T] [--seed N] [--models FOLDER]

#include "support/arguments.hpp"
#include "support/small_models.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <opencv2/core/utility.hpp>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <optional>

#include <fcntl.h>
#include <unistd.h>

namespace asio = boost::asio;
using asio::awaitable;

class conversation {
 public:
  conversation(const asio::any_io_executor& loop, const arguments& given)
      : given_(given), input_(loop, dup(STDIN_FILENO)), ctrl_c_(loop, SIGINT), models_(loop), pool_(1) {
    listen();
  }
  conversation(const conversation&) = delete;
  conversation& operator=(const conversation&) = delete;
  ~conversation() { fcntl(STDIN_FILENO, F_SETFL, terminal_flags_); }  // Asio does not wait in reads, but the shell does

  awaitable<void> run() {
    co_await add_small_models(models_, pool_, given_.text("--models", ROSTER_EXAMPLE_MODELS), 1);
    const auto model = co_await models_.get<roster::text_to_text>("language");
    if (!given_.words.empty()) {
      const auto question = fmt::format("{}", fmt::join(given_.words, " "));
      fmt::print("> {}\n", question);
      co_await answer(model, question);
    }
    while (auto question = co_await ask())
      co_await answer(model, std::move(*question));
    ctrl_c_.cancel();
  }

 private:
  awaitable<std::optional<std::string>> ask() {
    std::optional<std::string> question;
    if (!given_.words.empty() || quit_) co_return question;
    fmt::print("> ");
    std::fflush(stdout);
    boost::system::error_code failure;
    auto token = asio::redirect_error(asio::use_awaitable, failure);
    co_await asio::async_read_until(input_, asio::dynamic_buffer(typed_), '\n', token);
    const auto end = typed_.find('\n');  // nowhere at the end of the input, or after Ctrl-C
    if (end == std::string::npos) fmt::print("\n");
    if (!quit_ && !typed_.empty()) question = typed_.substr(0, end);
    typed_.erase(0, end == std::string::npos ? end : end + 1);
    co_return question;
  }

  awaitable<void> answer(roster::lease<roster::text_to_text> model, std::string question) {
    try {
      co_await stream_answer(model, std::move(question));
    } catch (const boost::system::system_error& failure) {
      fmt::print("{}\n", failure.code() == asio::error::operation_aborted ? " (stopped)" : failure.what());
    }
  }

  awaitable<void> stream_answer(roster::lease<roster::text_to_text> model, std::string question) {
    roster::text_request request(std::move(question));
    request.temperature(given_.number("--temperature", 0.0F));
    if (given_.has("--seed")) request.seed(given_.number("--seed", std::uint64_t{0}));
    auto tokens = model->generate(std::move(request));
    asio::steady_timer pause(co_await asio::this_coro::executor);
    stop_answer_ = [&] {
      tokens.cancel();
      pause.cancel();
    };
    const auto on_exit = std::shared_ptr<void>(nullptr, [this](void*) { stop_answer_ = nullptr; });
    while (auto event = co_await tokens.next()) {
      if (const auto* text = std::get_if<std::string>(&*event)) {
        fmt::print("{}", *text);
        std::fflush(stdout);
        pause.expires_after(std::chrono::milliseconds(given_.number("--delay", 0)));
        co_await pause.async_wait(asio::use_awaitable);
      } else {
        const auto& end = std::get<roster::text_end>(*event);
        fmt::print("   ({} + {} tokens)\n", end.prompt_tokens, end.completion_tokens);
      }
    }
  }

  void listen() {
    ctrl_c_.async_wait([this](boost::system::error_code failure, int) {
      if (failure) return;
      quit_ = !stop_answer_;
      if (quit_)
        input_.cancel();
      else
        stop_answer_();
      listen();
    });
  }

  const arguments& given_;
  const int terminal_flags_ = fcntl(STDIN_FILENO, F_GETFL);
  std::string typed_;
  bool quit_ = false;
  asio::posix::stream_descriptor input_;
  asio::signal_set ctrl_c_;
  std::function<void()> stop_answer_;
  model_catalog models_;
  roster::blocking_pool pool_;
};

int main(int argc, char** argv) try {
  cv::setNumThreads(1);
  const arguments given(argc, argv, {"--delay", "--temperature", "--seed", "--models"});
  asio::io_context loop;
  conversation talk(loop.get_executor(), given);
  asio::co_spawn(loop, talk.run(), [](std::exception_ptr failure) {
    if (failure) std::rethrow_exception(failure);
  });
  loop.run();
} catch (const std::exception& failure) {
  fmt::print(stderr, "chat: {}\n", failure.what());
  return 1;
}
