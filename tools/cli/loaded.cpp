#include "tools/cli/loaded.h"

#include <fmt/format.h>

#include <cstdlib>
#include <cstring>

#include "tools/error.h"

namespace heed::tools {

void check(const Status& status, const std::string& where) {
  if (status.ok()) return;
  Fault fault = Fault::model;
  if (status.code == Code::isa_unavailable) fault = Fault::command_line;
  if (status.code == Code::too_large) fault = Fault::machine;
  char text[1024];
  status.describe(text, sizeof text);
  throw Error(fault, where + ": " + text);
}

void Free::operator()(std::byte* bytes) const {
  std::free(bytes);
}

namespace {

/// At a multiple of 64. Throws Error(machine) where there is not so much memory.
std::unique_ptr<std::byte, Free> memory(uint64_t bytes, const std::string& what) {
  std::unique_ptr<std::byte, Free> found(static_cast<std::byte*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
  if (!found) throw Error(Fault::machine, fmt::format("{}: {} bytes of memory are not to be had", what, bytes));
  return found;
}

}  // namespace

LoadedModel::LoadedModel(const std::filesystem::path& path)
    : path_(path.string()), file_(path), model_(Model::load(file_->bytes())) {
  if (!model_ && model_.status().code == Code::not_a_model && path.extension() == ".onnx")
    throw Error(Fault::model,
                fmt::format("{}: is an ONNX file; `heed convert {}` makes a .heed file of it", path_, path_));
  check(model_.status(), path_);
}

LoadedModel::LoadedModel(const std::string& name, const std::vector<std::byte>& bytes)
    : path_(name), copy_(memory(bytes.size(), name)), model_(Status{Code::invalid_argument}) {
  std::memcpy(copy_.get(), bytes.data(), bytes.size());
  model_ = Model::load({copy_.get(), bytes.size()});
  check(model_.status(), path_);
}

Runner::Runner(const LoadedModel& loaded, const RunOptions& options)
    : threads_(options.threads), session_(Status{Code::invalid_argument}) {
  const Parallel parallel = threads_.parallel();
  if (parallel.threads < options.threads)
    throw Error(Fault::machine, fmt::format("the system gives {} threads of {}", parallel.threads, options.threads));
  const uint64_t bytes = loaded.model().memory().total(parallel.threads);
  arena_ = memory(bytes, loaded.path());
  session_ = Session::create(loaded.model(), {arena_.get(), bytes}, {.isa = options.isa, .parallel = parallel});
  check(session_.status(), loaded.path());
}

const char* dtype(Type type) {
  switch (type) {
    case Type::f32:
      return "float32";
    case Type::i32:
      return "int32";
    case Type::boolean:
      return "bool";
    case Type::i8:
      return "int8";
    case Type::u8:
      return "uint8";
  }
  return "unknown";
}

std::string border_dtype(const Port& port) {
  switch (port.border_type) {  // TensorProto.DataType
    case 1:
      return "float32";
    case 2:
      return "uint8";
    case 3:
      return "int8";
    case 4:
      return "uint16";
    case 5:
      return "int16";
    case 6:
      return "int32";
    case 7:
      return "int64";
    case 9:
      return "bool";
    case 10:
      return "float16";
    case 11:
      return "float64";
    case 12:
      return "uint32";
    case 13:
      return "uint64";
    case 16:
      return "bfloat16";
  }
  return dtype(port.type);
}

std::string expression_text(const Model& model, uint32_t expression) {
  std::string text(256, '\0');
  const size_t length = model.write_expression(expression, text.data(), text.size());
  text.resize(std::min(length, text.size() - 1));
  return text;
}

std::string shape_text(const Model& model, const TensorInfo& tensor) {
  std::string text;
  for (uint32_t axis = 0; axis < tensor.rank; ++axis)
    text += (axis > 0 ? ", " : "") + expression_text(model, tensor.dims[axis]);
  return "[" + text + "]";
}

size_t byte_count(const Tensor& tensor) {
  return static_cast<size_t>(element_count(*tensor.shape)) * size_of(tensor.shape->type);
}

}  // namespace heed::tools
