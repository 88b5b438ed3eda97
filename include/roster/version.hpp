#pragma once

#define ROSTER_VERSION_MAJOR 0
#define ROSTER_VERSION_MINOR 1
#define ROSTER_VERSION_PATCH 0

// clang-format off
#define ROSTER_BEGIN_NAMESPACE namespace roster { inline namespace v0 {
#define ROSTER_END_NAMESPACE }}
// clang-format on
