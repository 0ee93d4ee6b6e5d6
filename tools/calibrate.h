#pragma once
/// What the layers of a float model read while it runs on data: what smoothing goes by.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "heed/session.h"

namespace heed::tools {

/// The rows that a matrix product reads.
struct Activations {
  std::vector<float> top;   // [channels], the largest magnitude of each
  std::vector<float> rows;  // [.., channels], some of them, evenly spread over all
};

struct Calibration {
  std::map<std::string, Activations> layers;  // by name

  const Activations* find(const std::string& layer) const {
    const auto found = layers.find(layer);
    return found == layers.end() ? nullptr : &found->second;
  }
};

/// Watches a session of the float model; what it saw is in `seen`.
class Calibrator {
 public:
  explicit Calibrator(Session& session);
  ~Calibrator() { session_.observe(nullptr); }
  Calibrator(const Calibrator&) = delete;
  Calibrator& operator=(const Calibrator&) = delete;

  Calibration seen;

 private:
  struct Sampling {
    size_t rows = 0, every = 1;  // of which every so many is kept
  };
  void after(uint32_t index);

  Session& session_;
  std::map<std::string, Sampling> sampling_;
};

/// Fills a session's inputs with random numbers from a fixed seed: reals in [-1, 1), table indices inside their table,
/// other whole numbers and booleans 0 or 1.
void fill_at_random(Session& session, uint32_t seed);

}  // namespace heed::tools
