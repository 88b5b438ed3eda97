#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/separate_compilation.hpp>
#include <roster/detail/thread_group.hpp>

#include <boost/asio/strand.hpp>

#include <memory>
#include <mutex>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

class closing_list;

/// State that belongs to the execution context of its executor; closed if that context is destroyed first.
class context_bound : public std::enable_shared_from_this<context_bound> {
 public:
  explicit context_bound(const asio::any_io_executor& executor) : executor_(executor) {}
  context_bound(const context_bound&) = delete;
  context_bound& operator=(const context_bound&) = delete;
  virtual ~context_bound();

  /// Empty once the context is gone.
  const asio::any_io_executor& executor() const noexcept { return executor_; }

  /// Completes everything that waits. Nothing may be posted to the context afterwards: it is being destroyed.
  virtual void close() noexcept {}

 protected:
  template <typename State>
  static std::shared_ptr<State> shared(State* state) {
    return {state->shared_from_this(), state};
  }

 private:
  friend class closing_list;

  void context_closed() noexcept {
    close();
    // fault b5: drop: a state keeps an executor whose context is gone
    executor_ = nullptr;
  }

  asio::any_io_executor executor_;  // may be a strand, which must not outlive the context
  context_bound* previous_ = nullptr;
  context_bound* next_ = nullptr;
  std::shared_ptr<closing_list> list_;
};

/// The live states of one context. Outlives the context while states do.
class closing_list {
 public:
  void add(context_bound& state) noexcept {
    std::lock_guard lock(mutex_);  // short:
    state.next_ = first_;
    if (first_) first_->previous_ = &state;
    first_ = &state;
  }

  void remove(context_bound& state) noexcept {
    std::lock_guard lock(mutex_);  // short:
    unlink(state);
  }

  void close_all() noexcept {
    while (auto state = pop())
      state->context_closed();
  }

  static void enlist(context_bound& state, std::shared_ptr<closing_list> list) noexcept {
    state.list_ = std::move(list);
    state.list_->add(state);
  }

 private:
  std::shared_ptr<context_bound> pop() noexcept {
    std::lock_guard lock(mutex_);  // short:
    while (first_) {
      auto state = first_->weak_from_this().lock();
      unlink(*first_);
      if (state) return state;
    }
    return nullptr;
  }

  void unlink(context_bound& state) noexcept {
    if (state.previous_)
      state.previous_->next_ = state.next_;
    else if (first_ == &state)
      first_ = state.next_;
    if (state.next_) state.next_->previous_ = state.previous_;
    state.previous_ = state.next_ = nullptr;
  }

  std::mutex mutex_;
  context_bound* first_ = nullptr;
};

inline context_bound::~context_bound() {
  if (list_) list_->remove(*this);
}

/// Closes the states of a context when the context shuts down. A plugin with hidden symbols has its own `id`, and so its own
/// service in the same context, which closes what the plugin made.
class closing_service final : public asio::execution_context::service {
 public:
  using key_type = closing_service;
  static inline asio::execution_context::id id;

  explicit closing_service(asio::execution_context& context) : service(context) {}

  const std::shared_ptr<closing_list>& list() const noexcept { return list_; }

  /// Threads whose work completes on this context. Its shutdown asks them to end and joins them, before it closes the states
  /// that their work may use.
  const std::shared_ptr<thread_group>& threads() const noexcept { return threads_; }

 private:
  void shutdown() override {
    threads_->end_all();
    list_->close_all();
  }

  const std::shared_ptr<closing_list> list_ = std::make_shared<closing_list>();
  const std::shared_ptr<thread_group> threads_ = std::make_shared<thread_group>();
};

/// The states of the context of `executor`.
ROSTER_DECL std::shared_ptr<closing_list> closing_list_of(const asio::any_io_executor& executor);

/// Makes a state that is closed with the context of `executor`.
template <typename State, typename... Args>
std::shared_ptr<State> make_context_bound(const asio::any_io_executor& executor, Args&&... args) {
  auto list = closing_list_of(executor);
  auto state = std::make_shared<State>(executor, std::forward<Args>(args)...);
  // fault b5: drop: a state is not closed with its context
  closing_list::enlist(*state, std::move(list));
  return state;
}

#if ROSTER_DEFINITIONS_HERE

ROSTER_DECL std::shared_ptr<closing_list> closing_list_of(const asio::any_io_executor& executor) {
  if (!executor) throw error(errc::stopped, "the context of the executor is gone");
  auto& context = context_of(executor);
  // Asio's strand service first: services are shut down newest first, and our shutdown joins threads that may still post to
  // strands.
  if (!asio::has_service<closing_service>(context)) asio::strand<asio::any_io_executor> creates_the_service(executor);
  return asio::use_service<closing_service>(context).list();
}

#endif

}  // namespace detail

ROSTER_END_NAMESPACE
