#pragma once

/// Engines on OpenCV, for networks in ONNX files. With CMake, `roster::opencv` brings what they need.

#include <roster/engines/opencv/character_vocabulary.hpp>
#include <roster/engines/opencv/image_encoder.hpp>
#include <roster/engines/opencv/image_encoder_options.hpp>
#include <roster/engines/opencv/image_generator.hpp>
#include <roster/engines/opencv/mat.hpp>
#include <roster/engines/opencv/png.hpp>
#include <roster/engines/opencv/text_encoder.hpp>
#include <roster/engines/opencv/text_generator.hpp>
