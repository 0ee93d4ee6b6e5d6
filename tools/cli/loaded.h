#pragma once
/// A model file and a session on it, for the verbs that run one.
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "heed/model.h"
#include "heed/session.h"
#include "heed/threads.h"
#include "tools/cli/verbs.h"
#include "tools/io/file.h"

namespace heed::tools {

/// Throws Error with the status's text after `where` unless it is ok; exit code by whose fault the status names.
void check(const Status& status, const std::string& where);

/// Frees what std::aligned_alloc gave.
struct Free {
  void operator()(std::byte* bytes) const;
};

class LoadedModel {
 public:
  explicit LoadedModel(const std::filesystem::path& path);
  /// A conversion's result; `name` is what messages call it.
  LoadedModel(const std::string& name, const std::vector<std::byte>& bytes);

  const Model& model() const { return *model_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::optional<MappedFile> file_;
  std::unique_ptr<std::byte, Free> copy_;
  Result<Model> model_;
};

/// A session with its arena and threads. The model outlives it.
class Runner {
 public:
  Runner(const LoadedModel& model, const RunOptions& options);

  Session& session() { return *session_; }
  Parallel parallel() { return threads_.parallel(); }

 private:
  Threads threads_;
  std::unique_ptr<std::byte, Free> arena_;
  Result<Session> session_;
};

/// numpy's name of a device type ("float32"), and of an input's or output's own type, numbered as in ONNX.
const char* dtype(Type type);
std::string border_dtype(const Port& port);

/// "[batch, 5]": sizes as the model states them.
std::string shape_text(const Model& model, const TensorInfo& tensor);
std::string expression_text(const Model& model, uint32_t expression);

/// The bytes that a dense tensor takes.
size_t byte_count(const Tensor& tensor);

}  // namespace heed::tools
