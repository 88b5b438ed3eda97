# Each dependency is taken from the project around roster, or the system, when it is there, and downloaded, pinned to the
# version that the tests use, when it is not and ROSTER_ALLOW_DOWNLOADS permits it.
include(FetchContent)

function(roster_check_download package debian_package)
  if(NOT ROSTER_ALLOW_DOWNLOADS)
    message(FATAL_ERROR "roster needs ${package}, which was not found, and ROSTER_ALLOW_DOWNLOADS is off. "
                        "Install it (on Debian: ${debian_package}) or set ${package}_ROOT.")
  endif()
  message(STATUS "roster: ${package} not found, downloading it")
endfunction()

function(roster_require_boost)
  roster_find_boost(problem)
  if(NOT problem AND NOT TARGET roster::boost)
    roster_check_download(Boost libboost1.81-dev)
    # The release archive holds all headers in one folder. SOURCE_SUBDIR names none: nothing of Boost is built.
    FetchContent_Declare(roster_boost
      URL https://archives.boost.io/release/1.81.0/source/boost_1_81_0.tar.bz2
      URL_HASH SHA256=71feeed900fbccca04a3b4f2f84a7c217186f28a940ed8b7ed4725986baf99fa
      DOWNLOAD_EXTRACT_TIMESTAMP FALSE
      SOURCE_SUBDIR none)
    FetchContent_MakeAvailable(roster_boost)
    add_library(Boost::headers INTERFACE IMPORTED GLOBAL)
    target_include_directories(Boost::headers INTERFACE ${roster_boost_SOURCE_DIR})
    roster_find_boost(problem)
  endif()
  if(problem)
    message(FATAL_ERROR "roster: ${problem}")
  endif()
endfunction()

function(roster_require_fmt)
  roster_find_fmt(problem)
  if(NOT problem AND NOT TARGET roster::fmt)
    roster_check_download(fmt libfmt-dev)
    FetchContent_Declare(fmt
      URL https://github.com/fmtlib/fmt/archive/refs/tags/9.1.0.tar.gz
      URL_HASH SHA256=5dea48d1fcddc3ec571ce2058e13910a0d4a6bab4cc09a809d8b1dd1c88ae6f2
      DOWNLOAD_EXTRACT_TIMESTAMP FALSE
      SYSTEM)
    FetchContent_MakeAvailable(fmt)
    roster_find_fmt(problem)
  endif()
  if(problem)
    message(FATAL_ERROR "roster: ${problem}")
  endif()
endfunction()

# Either major version of Catch2; the tests include it through tests/support/catch.hpp. A macro: they use what it finds.
macro(roster_require_catch2)
  find_package(Catch2 CONFIG QUIET)
  if(NOT Catch2_FOUND)
    roster_check_download(Catch2 catch2)
    FetchContent_Declare(Catch2
      URL https://github.com/catchorg/Catch2/archive/refs/tags/v2.13.10.tar.gz
      URL_HASH SHA256=d54a712b7b1d7708bc7a819a8e6e47b2fde9536f487b89ccbca295072a7d9943
      DOWNLOAD_EXTRACT_TIMESTAMP FALSE
      SYSTEM)
    FetchContent_MakeAvailable(Catch2)
    list(APPEND CMAKE_MODULE_PATH ${catch2_SOURCE_DIR}/contrib)
  endif()
endmacro()
