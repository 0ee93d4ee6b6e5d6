#pragma once
/// What the program prints for programs. The keys are a contract: docs/program.md and docs/converter.md.
#include <nlohmann/json.hpp>
#include <string>

#include "heed/model.h"
#include "heed/session.h"

namespace heed::tools {

using Json = nlohmann::ordered_json;

/// What a file holds: `inspect --json`, and the part of `convert --report` that the file knows.
Json describe(const Model& model, const Session& session);

/// Indented. JSON is UTF-8: bytes of a name that are not are replaced.
std::string dump(const Json& json);

/// The content hash in hexadecimal digits.
std::string hash_text(const Model& model);

/// The most that a state takes.
uint64_t state_bytes(const Model& model, const State& state);

}  // namespace heed::tools
