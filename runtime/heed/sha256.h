#pragma once
/// SHA-256 (FIPS 180-4): the content hash of a file, and the hash of a run's outputs.
#include <cstddef>
#include <cstdint>
#include <span>

namespace heed {

class Sha256 {
 public:
  struct Digest {
    uint8_t bytes[32];

    /// 64 lower-case hexadecimal digits and a final zero.
    struct Hex {
      char text[65];
    };
    Hex hex() const;
  };

  void update(std::span<const std::byte> bytes);
  /// The digest of everything so far; the object is used up.
  Digest finish();

 private:
  void block(const uint8_t* bytes);

  uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  uint8_t pending_[64] = {};
  uint64_t length_ = 0;  // bytes
};

Sha256::Digest sha256(std::span<const std::byte> bytes);

}  // namespace heed
