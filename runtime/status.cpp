#include "heed/status.h"

#include "writer.h"

namespace heed {

const char* name(Code code) {
  switch (code) {
    case Code::ok:
      return "ok";
    case Code::invalid_argument:
      return "invalid argument";
    case Code::misaligned:
      return "misaligned";
    case Code::arena_too_small:
      return "arena too small";
    case Code::index_out_of_range:
      return "index out of range";
    case Code::dimension_out_of_range:
      return "dimension out of range";
    case Code::constraint_broken:
      return "constraint broken";
    case Code::state_full:
      return "state full";
    case Code::not_a_model:
      return "not a model";
    case Code::corrupt:
      return "corrupt";
    case Code::contract:
      return "contract";
    case Code::other_version:
      return "other version";
    case Code::isa_unavailable:
      return "instruction set unavailable";
    case Code::too_large:
      return "too large";
  }
  return "unknown";
}

size_t Status::describe(char* text, size_t size) const {
  Writer out(text, size);
  out << name(code);
  if (what[0] != 0) out << ": " << what;
  if (operator_index >= 0 || tensor_index >= 0 || !where.empty()) {
    const char* separator = " (";
    if (operator_index >= 0) {
      out << separator << "operator " << operator_index;
      separator = " ";
    }
    if (!where.empty()) {
      out << separator << "'" << where << "'";
      separator = ", ";
    }
    if (tensor_index >= 0) out << (operator_index >= 0 ? ", " : separator) << "tensor " << tensor_index;
    out << ")";
  }
  if (has_values) {
    constexpr const char* words[] = {"", "at most ", "at least ", "below "};
    out << ": found " << found << ", expected " << words[static_cast<int>(limit)] << expected;
  }
  return out.finish();
}

}  // namespace heed
