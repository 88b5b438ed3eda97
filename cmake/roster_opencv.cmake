# Defines roster::opencv_libraries when OpenCV is there. Shared by the build and the installed package.
# Debian's libopencv-dnn-dev has headers and libraries without a CMake package, so look for those as well.
if(NOT TARGET roster::opencv_libraries)
  set(roster_opencv_parts dnn imgcodecs imgproc core)
  find_package(OpenCV 4.5 CONFIG QUIET COMPONENTS ${roster_opencv_parts})

  if(OpenCV_FOUND)
    set(roster_opencv_libraries ${OpenCV_LIBS})
    set(roster_opencv_include ${OpenCV_INCLUDE_DIRS})
  else()
    find_path(roster_opencv_include opencv2/dnn.hpp PATH_SUFFIXES opencv4 NO_CACHE)
    set(roster_opencv_libraries)
    foreach(part IN LISTS roster_opencv_parts)
      find_library(roster_opencv_${part} opencv_${part} NO_CACHE)
      list(APPEND roster_opencv_libraries ${roster_opencv_${part}})
    endforeach()
  endif()

  if(roster_opencv_include AND NOT "${roster_opencv_libraries}" MATCHES "NOTFOUND")
    # Imported: its headers, which warn under C++20, count as system headers.
    add_library(roster::opencv_libraries INTERFACE IMPORTED GLOBAL)
    target_include_directories(roster::opencv_libraries INTERFACE ${roster_opencv_include})
    target_link_libraries(roster::opencv_libraries INTERFACE ${roster_opencv_libraries})
  endif()
endif()
