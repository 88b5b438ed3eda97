#pragma once

#include <roster/version.hpp>

#include <opencv2/core/utils/logger.hpp>
#include <opencv2/dnn.hpp>

#include <string>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// Silences OpenCV's log, unless the program asked for more than warnings: the exceptions say what went wrong.
class muted_log {
 public:
  muted_log() {
    if (mutes_) cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
  }
  muted_log(const muted_log&) = delete;
  muted_log& operator=(const muted_log&) = delete;
  ~muted_log() {
    if (mutes_) cv::utils::logging::setLogLevel(before_);
  }

 private:
  cv::utils::logging::LogLevel before_ = cv::utils::logging::getLogLevel();
  bool mutes_ = before_ <= cv::utils::logging::LOG_LEVEL_WARNING;
};

/// The network of an ONNX file with these bytes, for the CPU.
inline cv::dnn::Net read_net(const std::string& bytes) {
  auto net = cv::dnn::readNetFromONNX(bytes.data(), bytes.size());
  net.setPreferableBackend(cv::dnn::DNN_BACKEND_OPENCV);
  net.setPreferableTarget(cv::dnn::DNN_TARGET_CPU);
  return net;
}

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
