#pragma once

// Models and engines with prescribed behaviour that record what was done to them.

#include <roster/call/call_options.hpp>
#include <roster/capability/image_embedding.hpp>
#include <roster/capability/text_to_image.hpp>
#include <roster/registry/lease.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/exec.hpp"

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace test {

/// Runs the loop until an operation has ended, and returns or throws what it ended with.
template <typename T>
T finish(asio::io_context& loop, asio::awaitable<T> operation) {
  auto running = spawn(loop, std::move(operation));
  run_until(loop, [&] { return running.done(); });
  if (running.failure()) std::rethrow_exception(running.failure());
  if constexpr (!std::is_void_v<T>) return std::move(running.value());
}

/// The code that `action` fails with.
template <typename Action>
error_code failure_of(Action action) {
  try {
    action();
  } catch (...) {
    return code_of(std::current_exception());
  }
  return {};
}

template <typename T>
error_code failure_of(asio::io_context& loop, asio::awaitable<T> operation) {
  return failure_of([&] { finish(loop, std::move(operation)); });
}

/// The message that an operation fails with.
template <typename T>
std::string message_of(asio::io_context& loop, asio::awaitable<T> operation) {
  try {
    finish(loop, std::move(operation));
  } catch (const std::exception& e) {
    return e.what();
  }
  return {};
}

/// The life of one engine.
struct engine_life {
  std::thread::id made_on, destroyed_on;
  std::vector<std::thread::id> ran_on;
  roster::device target;
  bool busy = false;
};

/// What the engines of one test do, and what happened to them. Outlives them.
class engine_probe {
 public:
  using embed_function = std::function<void(std::span<const roster::image>, roster::embeddings&, roster::run_context&)>;
  using paint_function =
      std::function<void(const roster::image_request&, roster::sink<roster::image_event>&, roster::run_context&)>;

  // What engines do. To be set before there are any.
  std::function<void()> on_make = [] {};
  embed_function on_embed = [](auto inputs, auto& outputs, auto&) {
    outputs.resize(inputs.size(), 1);
    for (std::size_t i = 0; i < inputs.size(); ++i)
      outputs[i][0] = static_cast<float>(inputs[i].width());
  };
  paint_function on_paint = [](const auto& request, auto& chunks, auto& context) {
    const auto steps = request.steps().value_or(2);
    for (std::uint32_t i = 1; i <= steps; ++i) {
      if (!chunks.push(roster::image_step(i, steps))) return;
      context.report_progress(i, steps);
    }
    chunks.push(roster::image(1, 1));
  };

  std::size_t made() const {
    return read([&] { return lives_.size(); });
  }
  std::size_t destroyed() const {
    return read([&] { return destroyed_; });
  }
  std::size_t attempts() const {
    return read([&] { return attempts_; });
  }
  int most_made_at_once() const {
    return read([&] { return most_making_; });
  }
  int most_run_at_once() const {
    return read([&] { return most_running_; });
  }
  engine_life life(std::size_t index) const {
    return read([&] { return lives_.at(index); });
  }
  int runs() const {
    return read([&] { return runs_; });
  }

  /// Whether some engine was given two calls at once.
  bool overlapped() const {
    return read([&] { return overlapped_; });
  }

  /// Waits for engines to be destroyed.
  void await_destroyed(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return destroyed_ >= count; });
  }

 private:
  friend class probed_engine;

  template <typename Reader>
  std::invoke_result_t<Reader&> read(Reader reader) const {
    std::lock_guard lock(mutex_);
    return reader();
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<engine_life> lives_;
  std::size_t attempts_ = 0, destroyed_ = 0;
  int making_ = 0, most_making_ = 0, running_ = 0, most_running_ = 0, runs_ = 0;
  bool overlapped_ = false;
};

/// An engine that neither moves nor copies.
class probed_engine {
 public:
  probed_engine(engine_probe& probe, roster::device target) : probe_(probe) {
    {
      std::lock_guard lock(probe.mutex_);
      ++probe.attempts_;
      probe.most_making_ = std::max(probe.most_making_, ++probe.making_);
    }
    const counted making(probe, probe.making_);
    probe.on_make();
    std::lock_guard lock(probe.mutex_);
    index_ = probe.lives_.size();
    probe.lives_.emplace_back();
    probe.lives_.back().made_on = std::this_thread::get_id();
    probe.lives_.back().target = std::move(target);
  }
  probed_engine(const probed_engine&) = delete;
  probed_engine& operator=(const probed_engine&) = delete;

  ~probed_engine() {
    std::lock_guard lock(probe_.mutex_);
    probe_.lives_[index_].destroyed_on = std::this_thread::get_id();
    ++probe_.destroyed_;
    probe_.changed_.notify_all();
  }

 protected:
  template <typename Work>
  void run_probed(Work work) {
    {
      std::lock_guard lock(probe_.mutex_);
      auto& life = probe_.lives_[index_];
      life.ran_on.push_back(std::this_thread::get_id());
      if (std::exchange(life.busy, true)) probe_.overlapped_ = true;
      probe_.most_running_ = std::max(probe_.most_running_, ++probe_.running_);
      ++probe_.runs_;
    }
    const idle_again after(*this);
    work(probe_);
  }

 private:
  struct counted {
    counted(engine_probe& owner, int& count) : probe(owner), counter(count) {}
    counted(const counted&) = delete;
    counted& operator=(const counted&) = delete;
    ~counted() {
      // The constructor's own lock, taken after this was made, is released before.
      std::lock_guard lock(probe.mutex_);
      --counter;
    }
    engine_probe& probe;
    int& counter;
  };

  struct idle_again {
    explicit idle_again(probed_engine& busy) : engine(busy) {}
    idle_again(const idle_again&) = delete;
    idle_again& operator=(const idle_again&) = delete;
    ~idle_again() {
      std::lock_guard lock(engine.probe_.mutex_);
      engine.probe_.lives_[engine.index_].busy = false;
      --engine.probe_.running_;
    }
    probed_engine& engine;
  };

  engine_probe& probe_;
  std::size_t index_ = 0;
};

class encoder final : public probed_engine {
 public:
  using probed_engine::probed_engine;
  std::size_t dimension() const { return 1; }
  void run(std::span<const roster::image> inputs, const roster::embed_options&, roster::embeddings& outputs,
           roster::run_context& context) {
    run_probed([&](engine_probe& probe) { probe.on_embed(inputs, outputs, context); });
  }
};

class painter final : public probed_engine {
 public:
  using probed_engine::probed_engine;
  void run(const roster::image_request& request, roster::sink<roster::image_event>& chunks, roster::run_context& context) {
    run_probed([&](engine_probe& probe) { probe.on_paint(request, chunks, context); });
  }
};

/// A factory of probed engines that does not care for devices.
template <typename Engine>
auto maker(engine_probe& probe) {
  return [&probe] { return Engine(probe, roster::device()); };
}

/// A factory of probed engines on a device.
template <typename Engine>
auto device_maker(engine_probe& probe) {
  return [&probe](const roster::device& target) { return Engine(probe, target); };
}

/// A model made by hand: every vector is `number`. Notes where it is destroyed.
class ready_model final : public roster::image_embedding::model {
 public:
  explicit ready_model(float number, std::shared_ptr<destruction_logger::log> destroyed_log = nullptr)
      : roster::image_embedding::model(roster::model_info("test", std::to_string(static_cast<int>(number)))),
        number_(number),
        end_(std::move(destroyed_log)) {}

 private:
  asio::awaitable<roster::embeddings> run(std::vector<roster::image> inputs, roster::embed_options) override {
    roster::embeddings all(inputs.size(), 1);
    std::ranges::fill(all.values(), number_);
    co_return all;
  }

  float number_;
  destruction_logger end_;
};

inline std::shared_ptr<roster::image_embedding::model> make_model(float number) {
  return std::make_shared<ready_model>(number);
}

/// The number a lease's model answers with.
inline float ask(asio::io_context& loop, const roster::lease<roster::image_embedding>& model) {
  return finish(loop, model->embed(roster::image(1, 1))).at(0);
}

}  // namespace test
