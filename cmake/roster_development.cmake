# What the tests, examples and benchmarks share. Nothing in here reaches users of the library.

set(CMAKE_CXX_EXTENSIONS OFF)

add_library(roster_warnings INTERFACE)
target_compile_options(roster_warnings INTERFACE
  $<$<CXX_COMPILER_ID:GNU,Clang,AppleClang>:
    -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wold-style-cast -Wnon-virtual-dtor -Werror>
  # False with optional and with sanitizers, in Asio and in tests alike.
  $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
  $<$<CXX_COMPILER_ID:MSVC>:/W4 /WX>)

# Options for the sanitizer runtimes, linked in, so that a program started by hand gets them as well.
add_library(roster_sanitizer_options OBJECT ${PROJECT_SOURCE_DIR}/tests/support/sanitizer_options.cpp)
target_compile_definitions(roster_sanitizer_options PRIVATE
  ROSTER_TSAN_SUPPRESSIONS="${PROJECT_SOURCE_DIR}/tests/support/tsan.supp")

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(CCACHE ccache)
  if(CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE})
  endif()
endif()

# Stands in front of each test's name, and is its label.
set(ROSTER_TEST_PREFIX roster CACHE STRING "Name of this build in the list of tests")
