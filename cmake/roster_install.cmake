include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(roster_cmake_dir ${CMAKE_INSTALL_DATADIR}/cmake/roster)

foreach(target IN LISTS roster_targets)
  install(TARGETS ${target} EXPORT ${target}-targets FILE_SET HEADERS)
  install(EXPORT ${target}-targets NAMESPACE roster:: DESTINATION ${roster_cmake_dir})
endforeach()

configure_package_config_file(cmake/roster-config.cmake.in ${PROJECT_BINARY_DIR}/roster-config.cmake
  INSTALL_DESTINATION ${roster_cmake_dir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/roster-config-version.cmake
  COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(
  FILES
    ${PROJECT_BINARY_DIR}/roster-config.cmake
    ${PROJECT_BINARY_DIR}/roster-config-version.cmake
    cmake/roster_compiled.cmake
    cmake/roster_libraries.cmake
    cmake/roster_opencv.cmake
  DESTINATION ${roster_cmake_dir})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES include/roster/src.hpp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/roster)
