# roster::compiled: roster for programs that compile what needs no type of theirs once, instead of in every file.
# Used by roster itself and by its package.

function(roster_add_compiled)
  if(TARGET roster_compiled)
    return()
  endif()
  file(CONFIGURE OUTPUT roster_compiled.cpp CONTENT "#include <roster/src.hpp>\n" @ONLY)
  add_library(roster_compiled STATIC EXCLUDE_FROM_ALL ${CMAKE_CURRENT_BINARY_DIR}/roster_compiled.cpp)
  add_library(roster::compiled ALIAS roster_compiled)
  set_target_properties(roster_compiled PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(roster_compiled PUBLIC roster::roster)
  target_compile_definitions(roster_compiled PUBLIC ROSTER_SEPARATE_COMPILATION)
endfunction()
