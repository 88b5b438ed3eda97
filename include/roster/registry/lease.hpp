#pragma once

#include <roster/capability/capability.hpp>

#include <memory>
#include <utility>

ROSTER_BEGIN_NAMESPACE

/// A model in use: a pointer that keeps alive the model that the lookup found, even if that is replaced or removed. Copyable.
///
/// **Thread safety**: as `std::shared_ptr`.
template <capability Capability>
class lease {
 public:
  /// What is leased.
  using model_type = typename Capability::model;

  /// No model.
  lease() = default;

  /// A lease of `model`, which need not come from a registry.
  explicit lease(std::shared_ptr<model_type> model) noexcept : model_(std::move(model)) {}

  /// The model.
  model_type* operator->() const noexcept { return model_.get(); }

  /// The model.
  model_type& operator*() const noexcept { return *model_; }

  /// Whether there is a model.
  explicit operator bool() const noexcept { return model_ != nullptr; }

  /// Leases are equal when they hold the same model.
  friend bool operator==(const lease&, const lease&) = default;

 private:
  std::shared_ptr<model_type> model_;
};

ROSTER_END_NAMESPACE
