#pragma once
/// SHA-256 (FIPS 180-4): the content hash of a file, and the hash of a run's outputs.
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace heed::tools {

class Sha256 {
 public:
  using Digest = std::array<uint8_t, 32>;

  void update(std::span<const std::byte> bytes);
  /// The digest of everything so far; the object is used up.
  Digest finish();

 private:
  void block(const uint8_t* bytes);

  std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> pending_{};
  uint64_t length_ = 0;  // bytes
};

Sha256::Digest sha256(std::span<const std::byte> bytes);

/// 64 lower-case hexadecimal digits.
std::string hex(const Sha256::Digest& digest);

}  // namespace heed::tools
