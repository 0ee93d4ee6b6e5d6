#pragma once
/// From ONNX's graph to the converter's: names become values, operators are lowered to the few operations of
/// tools/graph, and shapes are inferred on the way (what the file says about shapes inside the graph is not trusted).
#include <map>
#include <string>
#include <vector>

#include "tools/convert.h"
#include "tools/graph/graph.h"
#include "tools/onnx/model.h"

namespace heed::tools {

/// The newest operator set that is known. Models of every set from 11 on are read, and older ones where their operators
/// had today's form already.
inline constexpr int64_t newest_opset = 28;

/// Throws Error with every problem at once: model (each unsupported operator once with its nodes, attributes that are
/// not honoured, malformed graphs), or command_line (`--dim` that names nothing, dimensions that have no bounds yet).
/// `notes` takes what a person should know: dimensions made one, defaults taken.
Graph import(const onnx::Model& model, const ConvertOptions& options, std::vector<std::string>& notes);

/// Operators of the graph and how often each occurs, calls of functions counted as such.
std::map<std::string, int> count_operators(const onnx::Model& model);

}  // namespace heed::tools
