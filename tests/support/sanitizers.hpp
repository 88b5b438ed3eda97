#pragma once

// ROSTER_TEST_TSAN, ROSTER_TEST_ASAN: whether the tests are built with that sanitizer.

#if defined(__has_feature)
#define ROSTER_TEST_TSAN __has_feature(thread_sanitizer)
#define ROSTER_TEST_ASAN __has_feature(address_sanitizer)
#else
#if defined(__SANITIZE_THREAD__)
#define ROSTER_TEST_TSAN 1
#else
#define ROSTER_TEST_TSAN 0
#endif
#if defined(__SANITIZE_ADDRESS__)
#define ROSTER_TEST_ASAN 1
#else
#define ROSTER_TEST_ASAN 0
#endif
#endif
